"""Whether a target is in sight: TRACKED, OCCLUDED or LOST."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from mosam_ros.mosam.results import TargetState

CONFIRM_FRAMES = 2
"""A target that was hidden is TRACKED again when it is seen in so many frames in a row, …"""

SURE_IOU = 0.7
"""… or at once, if the predicted IoU of its mask is above this."""

USUAL_FRAMES = 30
"""So many last masks say what is usual of a target."""

DOUBTFUL_SCORE = 0.35
"""A mask is doubtful whose object score is below this share of the target's usual one."""

MISPLACED = 0.75
"""A mask that is so many sizes of the target from where that is expected is doubtful, too, …"""

SHORT_OF_EDGE = 0.4
"""… and so is one that is so many from an edge of the frame at which the target is expected, …"""

MISPLACED_SCORE = 0.7
"""… if its object score is below this share of the usual one."""

AT_EDGE = 1.0
"""Pixels from an edge of the frame within which a box reaches it."""


@dataclass(frozen=True)
class Displacement:
    """How far a mask is from where the target is expected, in sizes of the target.

    Attributes:
        center: from the middle of its box to that of the forecast, taken to the edge of the frame
            where that lies outside.
        edge: from its box to the edge of the frame that the forecast reaches, if the target has
            lately come to that edge. It leaves there, and stays at the edge until nothing is seen
            of it; its neighbor ends short of it.
    """

    center: float = 0.0
    edge: float = 0.0

    @classmethod
    def of(
        cls,
        found: Sequence[float],
        expected: Sequence[float],
        before: Sequence[float],
        image_size: tuple[int, int],
        target_size: float,
    ) -> Displacement:
        """Of boxes (x_min, y_min, x_max, y_max): of the mask, of the forecast, and of an earlier
        mask that says which edges the target has come to. All is in pixels, `image_size` is
        height, width.
        """
        height, width = image_size
        x = min(max((expected[0] + expected[2]) / 2, 0.0), width)
        y = min(max((expected[1] + expected[3]) / 2, 0.0), height)
        center = math.hypot((found[0] + found[2]) / 2 - x, (found[1] + found[3]) / 2 - y)
        gaps = (_to_edges(box, height, width) for box in (found, expected, before))
        edge = max(
            gap if then <= AT_EDGE < earlier else 0.0
            for gap, then, earlier in zip(*gaps, strict=True)
        )
        return cls(center / target_size, edge / target_size)

    @property
    def is_large(self) -> bool:
        """Whether the mask is out of place."""
        return self.center > MISPLACED or self.edge > SHORT_OF_EDGE


def _to_edges(box: Sequence[float], height: int, width: int) -> tuple[float, float, float, float]:
    return box[0], box[1], width - box[2], height - box[3]


AS_EXPECTED = Displacement()


class Presence:
    """The state of one target, with hysteresis on its way back.

    A target whose object score falls to 0 or whose mask is empty is OCCLUDED at once, and LOST
    after a time. What is seen then is the target again only when it is confirmed. A target whose
    masks have become doubtful is OCCLUDED as well: what leaves the image, or goes behind something,
    is often still "seen" where it was, in its neighbor, or in something like it elsewhere, with
    scores that are low for it.

    Args:
        lost_after: frames without the target after which OCCLUDED becomes LOST.
        doubt_frames: so many doubtful masks in a row are not the target; 0: every mask is.

    Attributes:
        is_doubted: whether the last frame's mask is taken not to be the target.
        is_misplaced: whether it is doubtful for where it is.
        is_returning: whether the target was out of sight and has not been seen well since.
        score_ratio: its object score over what was usual of the target until then; 1 where that is
            not known, or the user showed the target.
    """

    def __init__(self, lost_after: int, doubt_frames: int = 0) -> None:
        self.lost_after = lost_after
        self.doubt_frames = doubt_frames
        self.is_doubted = False
        self.is_misplaced = False
        self.is_returning = False
        self.score_ratio = 1.0
        self._scores: deque[float] = deque(maxlen=USUAL_FRAMES)
        self._doubtful_in_a_row = 0
        self._seen_in_a_row = 0
        self.frames_since_tracked = 0

    @property
    def state(self) -> TargetState:
        """As of the last frame."""
        if self.frames_since_tracked == 0:
            return TargetState.TRACKED
        lost = self.frames_since_tracked > self.lost_after
        return TargetState.LOST if lost else TargetState.OCCLUDED

    @property
    def is_suspect(self) -> bool:
        """Whether something else seems to have taken the place of a target that was in sight."""
        return self.is_misplaced or (self.is_doubted and not self.is_returning)

    @property
    def ratio_to_remember(self) -> float:
        """The last frame's `score_ratio`; 0 if its mask was misplaced, and 1 while the target is
        returning, when what is faint may be the target as well.
        """
        if self.is_misplaced:
            return 0.0
        return 1.0 if self.is_returning else self.score_ratio

    def update(
        self,
        area: int,
        object_score: float,
        predicted_iou: float,
        prompted: bool,
        displacement: Displacement = AS_EXPECTED,
    ) -> TargetState:
        """Take in a frame.

        Args:
            area: pixels of the mask.
            object_score: logit.
            predicted_iou: of the mask.
            prompted: whether the user showed the target in this frame.
            displacement: from where the target is expected, if that is known.
        """
        seen = area > 0 and object_score > 0
        known = not prompted and len(self._scores) > 0
        self.score_ratio = object_score / median(self._scores) if known else 1.0
        away = displacement.is_large and self.score_ratio < MISPLACED_SCORE
        self.is_misplaced = seen and known and away
        faint = known and self.score_ratio < DOUBTFUL_SCORE
        doubtful = seen and (faint or self.is_misplaced)
        self.is_returning = not seen or (self.is_returning and faint)
        self._doubtful_in_a_row = self._doubtful_in_a_row + 1 if doubtful else 0
        self._learn_what_is_usual(seen, object_score, prompted)
        self.is_doubted = seen and 0 < self.doubt_frames <= self._doubtful_in_a_row
        seen = seen and not self.is_doubted
        self._seen_in_a_row = self._seen_in_a_row + 1 if seen else 0
        confirmed = (
            self.state is TargetState.TRACKED
            or prompted
            or predicted_iou > SURE_IOU
            or self._seen_in_a_row >= CONFIRM_FRAMES
        )
        self.frames_since_tracked = 0 if seen and confirmed else self.frames_since_tracked + 1
        return self.state

    def _learn_what_is_usual(self, seen: bool, object_score: float, prompted: bool) -> None:
        """Of masks that the network finds; what the user shows starts anew."""
        if prompted:
            self._scores.clear()
        elif seen:
            self._scores.append(object_score)
