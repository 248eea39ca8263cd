"""What a user says about a target: points, a box or a mask, in pixels of the camera's image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_POINTS = 64
"""Points that the mask decoder is given at most, with a box as two: its time grows with them."""


class PromptError(ValueError):
    """A prompt that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Prompt:
    """Points with labels, a box, or both; or a mask. Make one with the `from_…` methods.

    Attributes:
        points: (P, 2) float32, x and y in pixels of the image; the center of the first pixel is
            (0, 0).
        labels: (P,) int32, 1 on the target, 0 off it.
        box: (4,) float32 x_min, y_min, x_max, y_max in pixels, or None.
        mask: (height, width) bool at the image's size, or None; never beside points or a box.

    Raises:
        PromptError: empty, not finite, of the wrong shape, or contradictory.
    """

    points: NDArray[np.float32]
    labels: NDArray[np.int32]
    box: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        if self.mask is not None:
            self._check_mask()
            return
        if self.box is None and len(self.points) == 0:
            raise PromptError("the prompt is empty: give points, a box or a mask")
        self._check_points()
        if self.box is not None:
            self._check_box()

    def _check_mask(self) -> None:
        assert self.mask is not None
        if len(self.points) or self.box is not None:
            raise PromptError("a mask cannot be combined with points or a box: give one of them")
        if self.mask.ndim != 2:
            raise PromptError(f"a mask has two dimensions, height and width, not {self.mask.ndim}")
        if not self.mask.any():
            raise PromptError("the mask is empty: mark at least one pixel of the target")

    def _check_points(self) -> None:
        if self.points.ndim != 2 or self.points.shape[1] != 2:
            raise PromptError(f"points have the shape (P, 2), x and y, not {self.points.shape}")
        if self.labels.shape != (len(self.points),):
            raise PromptError(f"{len(self.points)} points came with {self.labels.size} labels")
        if not np.isfinite(self.points).all():
            raise PromptError("a point is not a finite number")
        if not np.isin(self.labels, (0, 1)).all():
            raise PromptError("point labels are 1 (on the target) or 0 (off it)")
        if self.num_points > MAX_POINTS:
            raise PromptError(f"the prompt has {self.num_points} points: give at most {MAX_POINTS}")

    def _check_box(self) -> None:
        assert self.box is not None
        if self.box.shape != (4,) or not np.isfinite(self.box).all():
            raise PromptError("a box is four finite numbers: x_min, y_min, x_max, y_max")
        if self.box[2] <= self.box[0] or self.box[3] <= self.box[1]:
            raise PromptError("the box is empty: its width and height must be positive")

    @classmethod
    def from_points(
        cls,
        points: ArrayLike,
        labels: Sequence[int] | None = None,
        box: ArrayLike | None = None,
    ) -> Prompt:
        """Points (P, 2), all on the target unless `labels` says otherwise, perhaps with a box."""
        xy = np.asarray(points, np.float32)
        xy = xy.reshape(0, 2) if xy.size == 0 else xy
        marks = np.ones(len(xy), np.int32) if labels is None else np.asarray(labels, np.int32)
        corners = None if box is None else np.asarray(box, np.float32)
        return cls(xy, marks, corners)

    @classmethod
    def from_box(cls, x_min: float, y_min: float, x_max: float, y_max: float) -> Prompt:
        """A box around the target."""
        return cls.from_points([], [], (x_min, y_min, x_max, y_max))

    @classmethod
    def from_mask(cls, mask: ArrayLike) -> Prompt:
        """The target's mask (height, width); whatever is not zero is the target."""
        return cls(np.zeros((0, 2), np.float32), np.zeros(0, np.int32), mask=np.asarray(mask) != 0)

    def require_target(self) -> None:
        """Refuse a prompt that does not say where the target is.

        Raises:
            PromptError: all its points lie off the target.
        """
        if self.mask is None and self.box is None and not (self.labels == 1).any():
            raise PromptError(
                "no point lies on the target: give at least one with label 1, or a box"
            )

    def followed_by(self, later: Prompt) -> Prompt:
        """Both prompts for one frame: all points, the later box; a later mask says it all.

        Raises:
            PromptError: points or a box follow a mask, or there are too many points.
        """
        if later.mask is not None:
            return later
        if self.mask is not None:
            raise PromptError(
                "the target was given as a mask in that frame: send the mask that is right, or "
                "points and boxes for a later frame"
            )
        return Prompt(
            np.concatenate([self.points, later.points]),
            np.concatenate([self.labels, later.labels]),
            self.box if later.box is None else later.box,
        )

    @property
    def num_points(self) -> int:
        """How many points SAM sees: a box counts as two."""
        return len(self.points) + (0 if self.box is None else 2)

    def fit(self, height: int, width: int) -> Prompt:
        """This prompt for an image of the given size: the box is cut at the image's edge.

        Raises:
            PromptError: a point or the whole box lies outside, or the mask has another size.
        """
        size = f"{width}x{height}"
        if self.mask is not None:
            if self.mask.shape != (height, width):
                theirs = f"{self.mask.shape[1]}x{self.mask.shape[0]}"
                raise PromptError(
                    f"the mask is {theirs} but the image is {size}: send it at that size"
                )
            return self
        limit = np.array([width, height], np.float32) - 1
        outside = (self.points < -0.5).any(1) | (self.points > limit + 0.5).any(1)
        if outside.any():
            x, y = self.points[outside][0]
            raise PromptError(f"the point ({x:g}, {y:g}) lies outside the image of {size} pixels")
        if self.box is None:
            return self
        cut = np.clip(self.box, 0, np.array([width, height] * 2, np.float32))
        if cut[2] <= cut[0] or cut[3] <= cut[1]:
            raise PromptError(
                f"the box {self.box.tolist()} lies outside the image of {size} pixels"
            )
        return Prompt(self.points, self.labels, cut)
