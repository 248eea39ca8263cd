"""Measures of masks and boxes.

A target that is absent counts as in the DAVIS benchmark: a mask that is empty where the truth is
empty scores 1, one that is empty only on one side scores 0.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

BOUNDARY_TOLERANCE = 0.008
"""How far apart two boundaries may lie and still match, as a share of the image's diagonal."""


def tight_box(mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """The tight box of a mask (height, width): (4,) x_min, y_min, x_max, y_max in pixels, None of
    an empty mask.
    """
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return np.array([x, y, x + width, y + height], np.float64) if width else None


def mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Region similarity J of two masks of one shape; 1 when both are empty."""
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else 1.0


def boundary_f(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Contour accuracy F of two masks (height, width): harmonic mean of precision and recall of the
    boundary pixels, which match within `BOUNDARY_TOLERANCE`; 1 when both masks are empty.
    """
    if not mask.any() or not truth.any():
        return float(mask.any() == truth.any())
    edge, true_edge = _boundary(mask), _boundary(truth)
    if not edge.any() or not true_edge.any():
        return float(edge.any() == true_edge.any())
    disk = _disk(int(np.ceil(BOUNDARY_TOLERANCE * np.hypot(*mask.shape))))
    precision = cv2.dilate(true_edge, disk)[edge > 0].mean()
    recall = cv2.dilate(edge, disk)[true_edge > 0].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def j_and_f(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Mean of region similarity J and contour accuracy F of two masks of one shape."""
    return (mask_iou(mask, truth) + boundary_f(mask, truth)) / 2


def _boundary(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """1 where a pixel differs from its right, lower or lower right neighbour."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    differs = mask != padded[:-1, 1:]
    differs |= mask != padded[1:, :-1]
    differs |= mask != padded[1:, 1:]
    return differs.astype(np.uint8)


def _disk(radius: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return (x**2 + y**2 <= radius**2).astype(np.uint8)
