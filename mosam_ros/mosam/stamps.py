"""What the stamps of a stream's frames say about its time."""

from __future__ import annotations

TIME_JUMP = 1.0
"""Seconds by which a stamp must lie before the last one to count as a new start of time."""


def starts_anew(stamp: float, last: float) -> bool:
    """Whether time starts anew with a stamp: a bag is played again, a simulation was reset.

    Args:
        stamp: of the newest frame, in seconds.
        last: of the frame before it.
    """
    return stamp < last - TIME_JUMP
