"""Measures of masks and boxes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Region similarity J of two masks of one shape; 1 when both are empty."""
    union = np.count_nonzero(first | second)
    return float(np.count_nonzero(first & second) / union) if union else 1.0
