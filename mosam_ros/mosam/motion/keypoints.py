"""Sparse motion: key points of a mask (paper, section 3.2.1), and the mask's plain geometry.

All pixels are of the image that the masks were made for; the center of the first pixel is (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class MaskGeometry:
    """Where B masks lie; rows of empty masks are NaN and their area is 0.

    Attributes:
        boxes: (B, 4) float64 x_min, y_min, x_max, y_max, tight, the maximum is the first pixel
            outside.
        centroids: (B, 2) float64 x, y.
        areas: (B,) int64, pixels.
    """

    boxes: NDArray[np.float64]
    centroids: NDArray[np.float64]
    areas: NDArray[np.int64]

    @classmethod
    def of(cls, masks: NDArray[np.bool_]) -> MaskGeometry:
        """Measure masks (B, height, width)."""
        pixels = np.ascontiguousarray(masks).view(np.uint8)
        columns = np.add.reduce(pixels, axis=1, dtype=np.uint32)
        rows = np.add.reduce(pixels, axis=2, dtype=np.uint32)
        areas = columns.sum(axis=1, dtype=np.int64)
        with np.errstate(invalid="ignore", divide="ignore"):
            x = columns @ np.arange(columns.shape[1], dtype=np.float64) / areas
            y = rows @ np.arange(rows.shape[1], dtype=np.float64) / areas
        (left, right), (top, bottom) = _extent(columns > 0), _extent(rows > 0)
        boxes = np.stack([left, top, right, bottom], axis=1).astype(np.float64)
        boxes[areas == 0] = np.nan
        return cls(boxes, np.stack([x, y], axis=1), areas)


def _extent(hit: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First hit and one past the last hit of each row."""
    return hit.argmax(axis=1), hit.shape[1] - hit[:, ::-1].argmax(axis=1)


def key_points(
    masks: NDArray[np.bool_], centroids: NDArray[np.float64], count: int = 5
) -> NDArray[np.float32]:
    """The centroid and points on the way from it up, down, left and right to the mask's edge.

    Five points are the paper's: the centroid and the four points half way to the edge. Nine have
    two points per direction, at a third and two thirds, and so on (figure 4a). The edge is where
    the mask first ends, so that every point lies on the object; a centroid outside a concave mask
    moves to the nearest pixel of the mask.

    Args:
        masks: (B, height, width).
        centroids: (B, 2) x, y of the masks.
        count: 1, 5, 9, …

    Returns:
        (B, count, 2) float32 x, y: the center, then up, down, left, right at the first fraction of
        the way, then at the next; NaN for empty masks.

    Raises:
        ValueError: `count` is not 1 + 4 n.
    """
    require_key_point_count(count)
    points = np.full((len(masks), count, 2), np.nan, np.float32)
    rows = np.flatnonzero(~np.isnan(centroids[:, 0]))
    if len(rows) == 0:
        return points
    centers = _onto_masks(masks, rows, centroids[rows])
    up, down, left, right = _reach(masks, rows, centers)
    steps = (count - 1) // 4
    zero = np.zeros_like(up)
    offsets = np.stack(
        [np.stack(x, -1) for x in ((zero, -up), (zero, down), (-left, zero), (right, zero))], axis=1
    )
    fractions = np.arange(1, steps + 1) / (steps + 1)
    around = centers[:, None, None] + fractions[None, :, None, None] * offsets[:, None]
    points[rows] = np.concatenate([centers[:, None], around.reshape(len(rows), -1, 2)], axis=1)
    return points


def require_key_point_count(count: int) -> None:
    """Raise ValueError unless `count` key points can be laid out."""
    if count < 1 or (count - 1) % 4:
        raise ValueError(f"key points come as 1, 5, 9, …: one center and four ways, not {count}")


def _onto_masks(
    masks: NDArray[np.bool_], rows: NDArray[np.intp], centers: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Centers (n, 2), those off their mask moved to its nearest pixel."""
    centers = centers.copy()
    x, y = np.rint(centers).astype(np.intp).T
    for i in np.flatnonzero(~masks[rows, y, x]):
        centers[i] = _nearest_pixel(masks[rows[i]], centers[i])
    return centers


def _nearest_pixel(mask: NDArray[np.bool_], point: NDArray[np.float64]) -> tuple[int, int]:
    """x, y of the pixel of a mask, not empty, nearest to a point (2,) in the image.

    Only the first pixels of each row to the left and to the right are compared, so that the cost
    does not grow with the mask. Of equally near pixels it is the upper one, then the left one.
    """
    left = int(point[0])
    right = min(left + 1, mask.shape[1] - 1)
    to_left, to_right = mask[:, left::-1].argmax(1), mask[:, right:].argmax(1)
    x = np.stack([left - to_left, right + to_right], axis=1)
    y = np.arange(len(mask))[:, None]
    distance = (x - point[0]) ** 2 + (y - point[1]) ** 2
    distance[~mask[y, x]] = np.inf
    row, way = np.unravel_index(distance.argmin(), distance.shape)
    return int(x[row, way]), int(row)


def _reach(
    masks: NDArray[np.bool_], rows: NDArray[np.intp], centers: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """Pixels from each center to the last mask pixel up, down, left and right of it."""
    x, y = np.rint(centers).astype(np.intp).T
    first_y, last_y = _run(masks[rows, :, x], y)
    first_x, last_x = _run(masks[rows, y, :], x)
    up_down = (centers[:, 1] - first_y, last_y - centers[:, 1])
    left_right = (centers[:, 0] - first_x, last_x - centers[:, 0])
    return tuple(np.maximum(way, 0.0) for way in (*up_down, *left_right))


def _run(
    lines: NDArray[np.bool_], start: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """First and last index of the unbroken run of True around `start` in each line (n, length)."""
    length = lines.shape[1]
    index = np.arange(length)
    after = ~lines & (index > start[:, None])
    before = ~lines & (index < start[:, None])
    last = np.where(after.any(1), after.argmax(1), length) - 1
    first = np.where(before.any(1), length - before[:, ::-1].argmax(1), 0)
    return first, last
