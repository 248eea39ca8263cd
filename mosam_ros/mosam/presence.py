"""Whether a target is in sight: TRACKED, OCCLUDED or LOST."""

from __future__ import annotations

from mosam_ros.mosam.results import TargetState

CONFIRM_FRAMES = 2
"""A target that was hidden is TRACKED again when it is seen in so many frames in a row, …"""

SURE_IOU = 0.7
"""… or at once, if the predicted IoU of its mask is above this."""


class Presence:
    """The state of one target, with hysteresis on its way back.

    A target whose object score falls to 0 or whose mask is empty is OCCLUDED at once, and LOST
    after a time. What is seen then is the target again only when it is confirmed.

    Args:
        lost_after: frames without the target after which OCCLUDED becomes LOST.
    """

    def __init__(self, lost_after: int) -> None:
        self.lost_after = lost_after
        self._seen_in_a_row = 0
        self.frames_since_tracked = 0

    @property
    def state(self) -> TargetState:
        """As of the last frame."""
        if self.frames_since_tracked == 0:
            return TargetState.TRACKED
        lost = self.frames_since_tracked > self.lost_after
        return TargetState.LOST if lost else TargetState.OCCLUDED

    def update(
        self, area: int, object_score: float, predicted_iou: float, prompted: bool
    ) -> TargetState:
        """Take in a frame.

        Args:
            area: pixels of the mask.
            object_score: logit.
            predicted_iou: of the mask.
            prompted: whether the user showed the target in this frame.
        """
        seen = area > 0 and object_score > 0
        self._seen_in_a_row = self._seen_in_a_row + 1 if seen else 0
        confirmed = (
            self.state is TargetState.TRACKED
            or prompted
            or predicted_iou > SURE_IOU
            or self._seen_in_a_row >= CONFIRM_FRAMES
        )
        self.frames_since_tracked = 0 if seen and confirmed else self.frames_since_tracked + 1
        return self.state
