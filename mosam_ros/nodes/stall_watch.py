"""Notices when a camera stops sending, and when it goes on."""

from __future__ import annotations


class StallWatch:
    """Times are in seconds of any steady clock.

    One thread may note arrivals while another one checks.

    Args:
        now: when the waiting for images starts.

    Attributes:
        stalled: whether nothing has come for too long.
    """

    def __init__(self, now: float) -> None:
        self._last = now
        self.stalled = False

    def arrived(self, now: float) -> float:
        """Note an image; returns how long none came if that was too long, else 0."""
        silence = now - self._last if self.stalled else 0.0
        self._last, self.stalled = now, False
        return silence

    def silence(self, now: float) -> float:
        """Seconds since the last image."""
        return now - self._last

    def check(self, now: float, limit: float) -> bool:
        """Whether it has just turned out that nothing has come for longer than `limit` seconds."""
        begins = not self.stalled and self.silence(now) > limit
        self.stalled = self.stalled or begins
        return begins
