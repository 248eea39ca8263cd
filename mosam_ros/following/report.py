"""How well a target was followed, by the camera's ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

NEAR_CENTER = 0.15
"""Share of the image's half width within which a target counts as centered."""

SETTLE_SECONDS = 3.0
"""After the target's selection; from then on offsets are judged."""

REACTION_SECONDS = 0.5
"""In which a tracker and a follower may notice that the target is hidden."""

COMMAND_SECONDS = 0.5
"""No command counts for longer."""


@dataclass(frozen=True)
class FollowedFrame:
    """One frame that the camera sent.

    Attributes:
        time: of its stamp, in seconds.
        offset: of the target's visible part to the right of the image's middle, over half the
            width; None where the target is hidden.
        answered: whether the tracker answered it with the target.
    """

    time: float
    offset: float | None
    answered: bool


def center_offset(mask: NDArray[np.bool_]) -> float | None:
    """How far right of the middle a mask (height, width) lies, over half the width; None: empty."""
    columns = mask.sum(0)
    if not columns.any():
        return None
    half = mask.shape[1] / 2
    return float(np.average(np.arange(mask.shape[1]) + 0.5, weights=columns)) / half - 1.0


def summarize_following(
    frames: Sequence[FollowedFrame],
    commands: Sequence[tuple[float, float]],
    occluded_limit: float,
) -> dict[str, float | int | bool | None]:
    """The figures of a run.

    Args:
        frames: all that the camera sent, in time order.
        commands: when, in seconds of the stamps' clock, and how fast to the left the robot was
            told to turn, in radians per second; in time order.
        occluded_limit: seconds after which the follower stops for a hidden target.

    Returns:
        By name; None: there was nothing to measure it on.
    """
    answered = [frame.time for frame in frames if frame.answered]
    settled = answered[0] + SETTLE_SECONDS if answered else float("inf")
    offsets = [abs(f.offset) for f in frames if f.offset is not None and f.time >= settled]
    waits = list(_hidden(frames))
    must_stand = [
        turn
        for start, end in waits
        for time, turn in commands
        if start + occluded_limit + REACTION_SECONDS <= time <= end
    ]
    return {
        "frames_sent": len(frames),
        "frames_answered": len(answered),
        "frames_judged": len(offsets),
        "near_center": float(np.mean(np.array(offsets) <= NEAR_CENTER)) if offsets else None,
        "mean_offset": float(np.mean(offsets)) if offsets else None,
        "hidden_seconds": sum(end - start for start, end in waits),
        "hidden_commands": len(must_stand),
        "stood_still": not any(must_stand) if must_stand else None,
        "swept_degrees": _swept_degrees(commands),
    }


def _hidden(frames: Sequence[FollowedFrame]) -> Iterator[tuple[float, float]]:
    """The first and the last time of every run of frames in which the target is hidden."""
    for hidden, run in groupby(frames, key=lambda frame: frame.offset is None):
        times = [frame.time for frame in run]
        if hidden:
            yield times[0], times[-1]


def _swept_degrees(commands: Sequence[tuple[float, float]]) -> float:
    """The angle between the leftmost and the rightmost heading that the commands lead to."""
    heading = [0.0]
    for (time, turn), (following, _) in pairwise(commands):
        heading.append(heading[-1] + turn * min(following - time, COMMAND_SECONDS))
    return float(np.degrees(max(heading) - min(heading)))


def format_following(summary: dict) -> str:
    """The figures for people."""

    def number(key: str, form: str) -> str:
        value = summary[key]
        return "-" if value is None else format(value, form)

    still = {True: "yes", False: "no", None: "-"}[summary["stood_still"]]
    rows = [
        ("frames sent", summary["frames_sent"]),
        ("frames answered with the target", summary["frames_answered"]),
        ("frames judged: target in sight, robot settled", summary["frames_judged"]),
        (f"of these within {NEAR_CENTER:.0%} of the center", number("near_center", ".1%")),
        ("mean distance from the center", number("mean_offset", ".1%")),
        ("seconds with the target hidden", number("hidden_seconds", ".1f")),
        ("robot stood still then, after its limit", still),
        ("angle that the robot swept, degrees", number("swept_degrees", ".0f")),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value!s:>8}" for name, value in rows)
