"""Prompts refuse what cannot be used, and say why."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mosam_ros.mosam.prompts import Prompt, PromptError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Prompt.from_points([]), "empty"),
        (lambda: Prompt.from_points([[1, float("nan")]]), "finite"),
        (lambda: Prompt.from_points([[1, 2]], [0]).require_target(), "label 1"),
        (lambda: Prompt.from_points(np.ones((65, 2))), "65 points: give at most 64"),
        (lambda: Prompt.from_points([[1, 2]], [1, 0]), "2 labels"),
        (lambda: Prompt.from_points([[1, 2]], [7]), "labels are"),
        (lambda: Prompt.from_points([[1, 2, 3]]), "shape"),
        (lambda: Prompt.from_box(5, 5, 5, 9), "empty"),
        (lambda: Prompt.from_box(5, 5, float("inf"), 9), "finite"),
        (lambda: Prompt.from_mask(np.zeros((4, 4))), "empty"),
        (lambda: Prompt.from_mask(np.ones((4, 4, 3))), "two dimensions"),
    ],
)
def test_bad_prompts_are_refused(make, message):
    with pytest.raises(PromptError, match=message):
        make()


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (Prompt.from_points([[320, 10]]), r"\(320, 10\) lies outside"),
        (Prompt.from_points([[10, 10], [-4, 3]], [1, 0]), "outside"),
        (Prompt.from_box(400, 10, 500, 60), "outside"),
        (Prompt.from_mask(np.ones((10, 10))), "10x10 but the image is 320x240"),
    ],
)
def test_prompts_outside_the_image_are_refused(prompt, message):
    with pytest.raises(PromptError, match=message):
        prompt.fit(240, 320)


@given(st.tuples(*[st.floats(-500, 800, allow_nan=False)] * 4))
def test_a_fitted_box_lies_in_the_image_or_is_refused(corners):
    x0, y0, x1, y1 = corners
    try:
        box = Prompt.from_box(x0, y0, x1, y1).fit(240, 320).box
    except PromptError:
        return
    assert 0 <= box[0] < box[2] <= 320 and 0 <= box[1] < box[3] <= 240


@pytest.mark.parametrize("corners", [(319, 100, 320, 120), (100, 239, 320, 240)])
def test_a_box_may_be_the_last_column_or_row(corners):
    assert Prompt.from_box(*corners).fit(240, 320).box.tolist() == list(corners)


def test_num_points_counts_a_box_as_two():
    assert Prompt.from_box(1, 2, 3, 4).num_points == 2
    assert Prompt.from_points([[1, 2]], box=(0, 0, 5, 5)).num_points == 3
    assert Prompt.from_mask(np.ones((2, 2))).num_points == 0
