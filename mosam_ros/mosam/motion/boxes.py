"""Boxes (4,): x_min, y_min, x_max, y_max in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def box_iou(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """IoU of two boxes, 0..1; 0 where one has no area."""
    left, top, right, bottom = first.tolist()
    other_left, other_top, other_right, other_bottom = second.tolist()
    width = min(right, other_right) - max(left, other_left)
    height = min(bottom, other_bottom) - max(top, other_top)
    if not (width > 0 and height > 0):
        return 0.0
    area = (right - left) * (bottom - top)
    other_area = (other_right - other_left) * (other_bottom - other_top)
    return width * height / (area + other_area - width * height)
