"""Boxes (4,): x_min, y_min, x_max, y_max in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def box_iou(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """IoU of two boxes, 0..1; 0 where one has no area."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    if (sides <= 0).any():
        return 0.0
    shared = float(sides.prod())
    areas = float((first[2:] - first[:2]).prod() + (second[2:] - second[:2]).prod())
    return shared / (areas - shared)
