"""Which part of a frame the network looks at: small targets are looked at more closely.

This is not in the paper. The network shrinks every frame to its own size, in which a small target
covers a few cells of the memory; in a view around it, it covers more of them at the same cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEARLY_WHOLE = 0.85
"""A view with a larger share of the frame's sides is not worth its edges: it is the whole frame."""

MARGIN = 0.3
"""A view is kept while so many of the target's extents lie between the target and its edge."""

LEAST_CONTEXT = 1 + 2 * MARGIN
"""A view of fewer extents of its target would be given up at once."""

TOLERANCE = 1.4
"""It is kept while its sides are not so many times too long or too short, either."""


@dataclass(frozen=True)
class View:
    """A part of a frame, with the frame's proportions, in whole pixels of the camera.

    Attributes:
        x, y: its first column and row.
        width, height: of the part.
        image_size: (height, width) of the frame.
    """

    x: int
    y: int
    width: int
    height: int
    image_size: tuple[int, int]

    @classmethod
    def whole(cls, image_size: tuple[int, int]) -> View:
        """The frame itself."""
        return cls(0, 0, image_size[1], image_size[0], image_size)

    @classmethod
    def around(cls, box: NDArray[np.floating], share: float, image_size: tuple[int, int]) -> View:
        """The part with a share, 0..1, of the frame's sides that has a box (4,) in its middle, or
        as near to it as the frame allows.
        """
        height, width = (max(1, round(share * side)) for side in image_size)
        x_middle, y_middle = (box[:2] + box[2:]) / 2
        x = round(min(max(x_middle - width / 2, 0), image_size[1] - width))
        y = round(min(max(y_middle - height / 2, 0), image_size[0] - height))
        return cls(x, y, width, height, image_size)

    def resized(self, image_size: tuple[int, int]) -> View:
        """The same part of a frame of another size (height, width), to a pixel."""
        if image_size == self.image_size:
            return self
        x, y, width, height = self.shares
        rows, columns = image_size
        first = min(round(x * columns), columns - 1), min(round(y * rows), rows - 1)
        return View(
            *first,
            min(max(1, round(width * columns)), columns - first[0]),
            min(max(1, round(height * rows)), rows - first[1]),
            image_size,
        )

    @property
    def is_whole(self) -> bool:
        """Whether nothing of the frame is left out."""
        return (self.height, self.width) == self.image_size

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the part."""
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Its rows and columns in an image of the frame's size."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    @property
    def origin(self) -> NDArray[np.float32]:
        """(2,) x, y of its first pixel in the frame."""
        return np.array([self.x, self.y], np.float32)

    @property
    def last_pixel(self) -> NDArray[np.float32]:
        """(2,) x, y of its last pixel in the frame."""
        return self.origin + np.array([self.width - 1, self.height - 1], np.float32)

    @property
    def shares(self) -> tuple[float, float, float, float]:
        """x, y, width and height as shares of the frame's sides."""
        height, width = self.image_size
        return self.x / width, self.y / height, self.width / width, self.height / height

    def contains(self, box: NDArray[np.floating], margin: float) -> bool:
        """Whether a box (4,) lies within it, with so many of the box's extents around it as far as
        the frame goes.
        """
        height, width = self.image_size
        x_min, y_min, x_max, y_max = box.tolist()
        room_x, room_y = margin * (x_max - x_min), margin * (y_max - y_min)
        return (
            max(x_min - room_x, 0) >= self.x
            and max(y_min - room_y, 0) >= self.y
            and min(x_max + room_x, width) <= self.x + self.width
            and min(y_max + room_y, height) <= self.y + self.height
        )


def choose_view(
    last: View | None,
    box: NDArray[np.floating],
    image_size: tuple[int, int],
    context: float,
    max_zoom: float,
) -> View:
    """The view in which to look for a target; the last one where that still does.

    Args:
        last: the target's last view; None if it had none.
        box: (4,) x_min, y_min, x_max, y_max in pixels, what has to be seen.
        image_size: (height, width) of the frame.
        context: the view's sides in extents of the box.
        max_zoom: the frame's sides are at most so many times as long as the view's.
    """
    sides = np.array(image_size[::-1])
    box = np.clip(box, 0, np.tile(sides, 2))
    extent = float(((box[2:] - box[:2]) / sides).max())
    share = min(max(context * extent, 1 / max_zoom), 1.0)
    if share > NEARLY_WHOLE:
        share = 1.0
    if last is not None and last.image_size == image_size and last.contains(box, MARGIN):
        ratio = last.width / (share * image_size[1])
        if 1 / TOLERANCE <= ratio <= TOLERANCE:
            return last
    return View.whole(image_size) if share == 1.0 else View.around(box, share, image_size)
