"""Why messages of several topics do not pair: which topic is silent, late or early."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import product

STAMPS_KEPT = 300
"""Per topic, to find the ones that lie nearest to each other."""


class PairingWatch:
    """Notes what arrives on each topic, and says once why nothing pairs.

    Args:
        topics: their names; stamps are compared with those of the first.
        slop: seconds that the stamps of a pair may differ by.
        patience: seconds without a pair after which something is wrong.
        now: the time, in seconds of any steady clock.
    """

    def __init__(self, topics: Sequence[str], slop: float, patience: float, now: float) -> None:
        self._slop = slop
        self._patience = patience
        self._stamps: dict[str, deque[float]] = {
            topic: deque(maxlen=STAMPS_KEPT) for topic in topics
        }
        self._since = now
        self._warned = False

    def arrived(self, topic: str, stamp: float) -> None:
        """A message stamped `stamp`, in seconds, came on a topic."""
        self._stamps[topic].append(stamp)

    def paired(self, now: float) -> bool:
        """A pair came; returns whether it ends a trouble that was spoken of."""
        ended, self._warned = self._warned, False
        self._since = now
        for stamps in self._stamps.values():
            stamps.clear()
        return ended

    def trouble(self, now: float) -> str:
        """Why nothing has paired for so long; empty: all is well, or it was said already."""
        waited = now - self._since
        if self._warned or waited < self._patience:
            return ""
        self._warned = True
        return f"no positions for {waited:.1f} s: {self._reason()}"

    def _reason(self) -> str:
        silent = [topic for topic, stamps in self._stamps.items() if not stamps]
        if silent:
            return (
                f"nothing arrives on {' and '.join(silent)}; check the topic's name, that "
                "somebody publishes it (the tracker: while it is active), and its QoS"
            )
        first, *others = self._stamps
        offsets = {topic: self._nearest(first, topic) for topic in others}
        worst = max(offsets, key=lambda topic: abs(offsets[topic]))
        if abs(offsets[worst]) < self._slop:
            return (
                "all topics arrive and their stamps fit, but never in the same set: "
                "raise queue_size, for one of them is far behind the others"
            )
        side = "later" if offsets[worst] > 0 else "earlier"
        return (
            f"the stamps on {worst} are {abs(offsets[worst]):.3f} s {side} than those on {first}, "
            f"and slop allows {self._slop:g} s; let the same clock stamp both, or raise slop"
        )

    def _nearest(self, first: str, other: str) -> float:
        """Signed distance in seconds of the two stamps that lie nearest to each other."""
        pairs = product(self._stamps[first], self._stamps[other])
        return min((stamp - reference for reference, stamp in pairs), key=abs)
