"""What the tracker says about a frame."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from mosam_ros.mosam.views import View


class TargetState(IntEnum):
    """Whether a target is in sight; the values are those of the TrackedTarget message."""

    TRACKED = 0
    OCCLUDED = 1
    LOST = 2


@dataclass(frozen=True)
class Box:
    """A tight box in pixels of the camera's image; `x + width` is the first column outside."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True)
class MotionPrompt:
    """Where a target is expected, in pixels of the camera's image.

    Attributes:
        time: that the forecast is for, in seconds of the frames' stamps.
        valid: whether it can be trusted; else it is a guess.
        key_points: (K, 2) float32 x, y: the centroid, then the points up, down, left, right of it.
        box: (4,) float32 x_min, y_min, x_max, y_max, not cut to the image.
        velocity: (2,) float32, of the centroid, pixels per second.
        uncertainty: expected error of the forecast centroid, pixels; grows while the target is
            hidden, or seen only unsurely.
    """

    time: float
    valid: bool
    key_points: NDArray[np.float32]
    box: NDArray[np.float32]
    velocity: NDArray[np.float32]
    uncertainty: float


@dataclass(frozen=True)
class TargetResult:
    """One target in one frame.

    Attributes:
        target_id: 1 … 65535, stable while the target exists.
        label: the name given when it was added, or "".
        state: TRACKED, OCCLUDED (not in this frame), LOST (not for a long time).
        mask: (height, width) bool at the camera's resolution; not empty while OCCLUDED or LOST only
            where the model sees something that is not yet confirmed to be the target. What it sees
            with scores far below those usual of the target is not shown.
        box: the mask's tight box, None when the mask is empty.
        centroid: x, y of the mask in pixels, None when the mask is empty.
        area: pixels of the mask.
        predicted_iou: the model's own estimate of the mask's IoU with the truth, 0..1.
        object_score: logit, positive when the model sees the target.
        frames_since_seen: 0 when TRACKED.
        mask_logits: (S/4, S/4) float32 at the model's resolution, over the target's view.
        view: the part of the frame in which it was looked for.
        motion_prompt: where it is expected in the next frame; None where nothing is known.
        injected_prompt: the forecast with which this frame was prompted; None where there was none.
    """

    target_id: int
    label: str
    state: TargetState
    mask: NDArray[np.bool_]
    box: Box | None
    centroid: tuple[float, float] | None
    area: int
    predicted_iou: float
    object_score: float
    frames_since_seen: int
    mask_logits: NDArray[np.float32]
    view: View
    motion_prompt: MotionPrompt | None = None
    injected_prompt: MotionPrompt | None = None

    @property
    def presence(self) -> float:
        """The probability, 0..1, that the target is in the frame."""
        return float(1.0 / (1.0 + np.exp(-np.clip(self.object_score, -50, 50))))


@dataclass(frozen=True)
class RejectedPrompt:
    """A prompt that could not be applied to this frame, and why."""

    target_id: int
    reason: str


@dataclass(frozen=True)
class StageSeconds:
    """Wall-clock seconds spent per stage of one frame; `total` includes what lies between."""

    encode: float = 0.0
    decode: float = 0.0
    memory: float = 0.0
    motion: float = 0.0
    total: float = 0.0


@dataclass(frozen=True)
class FrameResult:
    """All targets in one frame.

    Attributes:
        frame_index: counts tracked frames from 0.
        image_size: (height, width) of the frame in pixels.
        targets: in the order in which they were added.
        rejected: prompts that could not be applied.
        seconds: time spent.
    """

    frame_index: int
    image_size: tuple[int, int]
    targets: tuple[TargetResult, ...]
    rejected: tuple[RejectedPrompt, ...]
    seconds: StageSeconds

    def label_image(self) -> NDArray[np.uint16]:
        """(height, width): each pixel's target id, 0 for none; where masks overlap the target with
        the higher predicted IoU wins.
        """
        labels = np.zeros(self.image_size, np.uint16)
        for target in sorted(self.targets, key=lambda t: t.predicted_iou):
            labels[target.mask] = target.target_id
        return labels
