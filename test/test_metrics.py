"""Measures of masks and boxes."""

from __future__ import annotations

import numpy as np
import pytest

from mosam_ros.evaluation.metrics import boundary_f, j_and_f, mask_iou, tight_box
from mosam_ros.mosam.motion.boxes import box_iou

EMPTY = np.zeros((21, 47), bool)


def square(x: int) -> np.ndarray:
    mask = np.zeros((21, 47), bool)
    mask[5:15, x : x + 10] = True
    return mask


def test_tight_box():
    assert tight_box(square(3)).tolist() == [3, 5, 13, 15]
    assert tight_box(EMPTY) is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (square(0), square(0), 1.0),
        (square(0), square(5), 1 / 3),
        (square(0), square(20), 0.0),
        (EMPTY, EMPTY, 1.0),
        (EMPTY, square(0), 0.0),
    ],
)
def test_mask_iou(first, second, expected):
    assert mask_iou(first, second) == pytest.approx(expected)


def block(x: int, width: int = 40) -> np.ndarray:
    """In an image whose boundaries may lie 2 pixels apart: 0.008 of its diagonal is 1.6."""
    mask = np.zeros((120, 160), bool)
    mask[40:80, x : x + width] = True
    return mask


@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (1, 1.0), (2, 1.0), (60, 0.0)])
def test_boundaries_within_the_tolerance_match(shift, expected):
    assert boundary_f(block(30 + shift), block(30)) == pytest.approx(expected)


def test_boundary_f_of_a_known_overlap():
    """The boundary is a ring of 41 x 41. Shifted by 20, 21 pixels of the upper and of the lower
    side match, and with the tolerance 2 more of those and 2 at either end of the side within.
    """
    expected = (2 * (21 + 2) + 2 * 2) / 160
    assert boundary_f(block(50), block(30)) == pytest.approx(expected)


def test_precision_and_recall_are_both_asked_for():
    two_blocks = block(30) | block(110)
    f = boundary_f(two_blocks, block(30))
    assert f == pytest.approx(2 * 0.5 * 1.0 / 1.5, abs=0.01)
    assert boundary_f(block(30), two_blocks) == pytest.approx(f)


def test_absent_objects_count_as_in_davis():
    everywhere = np.ones((21, 47), bool)
    assert boundary_f(EMPTY, EMPTY) == 1.0
    assert boundary_f(EMPTY, square(0)) == boundary_f(square(0), EMPTY) == 0.0
    assert boundary_f(everywhere, everywhere) == 1.0
    assert boundary_f(everywhere, EMPTY) == 0.0
    assert boundary_f(everywhere, square(20)) == 0.0


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (EMPTY, EMPTY, 1.0),
        (EMPTY, square(0), 0.0),
        (block(30), block(32), (38 / 42 + 1.0) / 2),
    ],
)
def test_j_and_f_is_their_mean(first, second, expected):
    assert j_and_f(first, second) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0, 0, 4, 4), (0, 0, 4, 4), 1.0),
        ((0, 0, 4, 4), (2, 0, 6, 4), 1 / 3),
        ((0, 0, 4, 4), (4, 0, 8, 4), 0.0),
        ((0, 0, 0, 0), (0, 0, 4, 4), 0.0),
    ],
)
def test_box_iou(first, second, expected):
    assert box_iou(np.float64(first), np.float64(second)) == pytest.approx(expected)
