"""What a node that answers frames says about itself on /diagnostics."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

RATE_SECONDS = 10.0
"""The rate is that of the last seconds."""


class FrameStatistics:
    """Counters since the start, and the times of the last answered frames.

    One thread may count received and dropped frames while another adds answered ones.

    Args:
        window: how many answered frames the percentiles are taken over, and the rate at most.
        clock: the steady clock of the answers' times, in seconds.
    """

    def __init__(self, window: int = 300, clock: Callable[[], float] = time.perf_counter) -> None:
        self.received = 0
        self.dropped = 0
        self.answered = 0
        self._clock = clock
        self._answers: deque[tuple[float, float, float]] = deque(maxlen=window)

    def add_answer(self, time: float, latency: float, overhead: float) -> None:
        """Count an answered frame.

        Args:
            time: when it was answered, in seconds of the steady clock.
            latency: seconds from the frame's stamp to its answer.
            overhead: seconds that the node took for it beside the tracker.
        """
        self.answered += 1
        self._answers.append((time, latency, overhead))

    def summary(self) -> Mapping[str, str]:
        """All figures by name, as text; times in milliseconds, the rate in Hz."""
        figures = {
            "frames received": str(self.received),
            "frames answered": str(self.answered),
            "frames dropped": str(self.dropped),
        }
        answers = np.array(self._answers)
        if len(answers) > 1:
            times, latency, overhead = answers.T
            figures["rate (Hz)"] = f"{_rate(times, self._clock()):.2f}"
            for name, seconds in (("latency", latency), ("own overhead", overhead)):
                for q in (50, 99):
                    figures[f"{name} p{q} (ms)"] = f"{1000 * np.percentile(seconds, q):.2f}"
        return figures


def _rate(times: NDArray[np.float64], now: float) -> float:
    """Answers per second over the last seconds, as far back as `times` reach; 0 in silence."""
    start = max(times[0], now - RATE_SECONDS)
    return np.count_nonzero(times > start) / max(now - start, 1e-9)
