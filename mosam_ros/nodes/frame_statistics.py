"""What a node that answers frames says about itself on /diagnostics."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np


class FrameStatistics:
    """Counters since the start, and the times of the last answered frames.

    One thread may count received and dropped frames while another adds answered ones.

    Args:
        window: how many answered frames the percentiles and the rate are taken over.
    """

    def __init__(self, window: int = 300) -> None:
        self.received = 0
        self.dropped = 0
        self.answered = 0
        self._answers: deque[tuple[float, float, float]] = deque(maxlen=window)

    def add_answer(self, time: float, latency: float, overhead: float) -> None:
        """Count an answered frame.

        Args:
            time: when it was answered, in seconds of any steady clock.
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
            span = max(times[-1] - times[0], 1e-9)
            figures["rate (Hz)"] = f"{(len(times) - 1) / span:.2f}"
            for name, seconds in (("latency", latency), ("own overhead", overhead)):
                for q in (50, 99):
                    figures[f"{name} p{q} (ms)"] = f"{1000 * np.percentile(seconds, q):.2f}"
        return figures
