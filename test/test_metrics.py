"""Measures of masks."""

from __future__ import annotations

import numpy as np
import pytest

from mosam_ros.evaluation.metrics import mask_iou


def square(x: int) -> np.ndarray:
    mask = np.zeros((21, 47), bool)
    mask[5:15, x : x + 10] = True
    return mask


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (square(0), square(0), 1.0),
        (square(0), square(5), 1 / 3),
        (square(0), square(20), 0.0),
        (np.zeros((21, 47), bool), np.zeros((21, 47), bool), 1.0),
        (np.zeros((21, 47), bool), square(0), 0.0),
    ],
)
def test_mask_iou(first, second, expected):
    assert mask_iou(first, second) == pytest.approx(expected)
