"""What people and other nodes ask for: select a target, refine it, let it go."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from mosam_ros.mosam.prompts import Prompt


class Action(IntEnum):
    """What a selection asks for; the values are those of the TargetSelection message."""

    SELECT = 0
    REFINE = 1
    REMOVE = 2
    CLEAR = 3


@dataclass(frozen=True, eq=False)
class Selection:
    """A wish about one target, or with CLEAR about all of them.

    Attributes:
        action: what is asked for.
        prompt: where the target is; SELECT and REFINE have one.
        target_id: which target is meant; 0 with SELECT: the next id that was never used.
        label: a name for the new target of a SELECT.
        stamp: of the frame that a SELECT or REFINE is about, in seconds; None: the newest one.
    """

    action: Action
    prompt: Prompt | None = None
    target_id: int = 0
    label: str = ""
    stamp: float | None = None


def ignored(target_id: int, reason: object) -> str:
    """What people are told of a selection that could not be used.

    Args:
        target_id: as in the selection.
        reason: why not, and what to do.
    """
    name = f"target {target_id}" if target_id else "a new target"
    return f"selection for {name} ignored: {reason}"
