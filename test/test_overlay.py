"""What the overlay shows of targets and their forecasts."""

import numpy as np
import pytest

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")

from geometry_msgs.msg import Point32, Vector3  # noqa: E402
from sensor_msgs.msg import RegionOfInterest  # noqa: E402

from mosam_ros.msg import MotionPrompt, TrackedTarget  # noqa: E402
from mosam_ros.nodes.overlay import TINT, draw_overlay, target_color  # noqa: E402

PICTURE = np.full((120, 160, 3), 50, np.uint8)
LABELS = np.zeros((120, 160), np.uint16)
LABELS[60:100, 50:90] = 3
NOTHING = np.zeros_like(LABELS)


def region(x: int, y: int, width: int, height: int) -> RegionOfInterest:
    return RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)


def prompt(valid: bool = True, velocity: float = 0.0, uncertainty: float = 4.0) -> MotionPrompt:
    """A forecast to the right of the mask: its box from (100, 60) to (140, 100)."""
    points = ((120, 80), (120, 70), (120, 90), (110, 80), (130, 80))
    return MotionPrompt(
        valid=valid,
        key_points=[Point32(x=float(x), y=float(y)) for x, y in points],
        box=region(100, 60, 40, 40),
        velocity=Vector3(x=velocity),
        uncertainty=uncertainty,
    )


def target(motion_prompt: MotionPrompt | None = None, **changes) -> TrackedTarget:
    fields = {"id": 3, "label": "cup", "box": region(50, 60, 40, 40), **changes}
    return TrackedTarget(motion_prompt=motion_prompt or MotionPrompt(), **fields)


def drawn(shown: TrackedTarget, labels: np.ndarray = LABELS) -> np.ndarray:
    return draw_overlay(PICTURE, labels, [shown])


def changed(picture: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(height, width) bool: where two pictures differ."""
    return (picture != other).any(axis=-1)


def test_the_mask_is_tinted_and_the_rest_stays():
    picture = drawn(target())
    assert (PICTURE == 50).all(), "the picture itself is not drawn into"
    expected = (1 - TINT) * 50 + TINT * np.array(target_color(3))
    assert np.abs(picture[80, 70] - expected).max() <= 1
    assert (picture[105:] == 50).all()


def test_a_forecast_is_a_dashed_box_around_dots():
    ahead = changed(drawn(target(prompt())), drawn(target()))
    edge = ahead[60, 100:140]
    assert 0.3 < edge.mean() < 0.7, "dashes and gaps"
    for x, y in ((120, 80), (120, 70), (120, 90), (110, 80), (130, 80)):
        assert ahead[y, x]
    assert not ahead[65, 105] and not ahead[95, 135], "nothing else in the box"


def test_an_untrusted_forecast_of_a_target_in_sight_is_not_drawn():
    assert np.array_equal(drawn(target(prompt(valid=False))), drawn(target()))


def test_the_arrow_points_where_the_target_goes():
    still = drawn(target(prompt()))
    right = changed(drawn(target(prompt(velocity=60.0))), still)
    left = changed(drawn(target(prompt(velocity=-60.0))), still)
    assert right[80, 148] and not right[:, :105].any()
    assert left[80, 92] and not left[:, 135:].any()


def test_a_fast_target_has_an_arrow_that_can_be_drawn():
    assert drawn(target(prompt(velocity=1e12))).shape == PICTURE.shape


def test_an_unsure_forecast_has_a_wide_circle():
    sure, unsure = (drawn(target(prompt(uncertainty=u))) for u in (1.0, 10.0))
    assert changed(sure, unsure)[60:101, 100:140].any()
    assert changed(unsure, drawn(target()))[80, 140]


def test_a_circle_that_does_not_fit_is_left_out():
    assert drawn(target(prompt(uncertainty=1e9))).shape == PICTURE.shape


def test_an_occluded_target_has_no_tint_but_a_place_where_it_is_expected():
    hidden = target(prompt(valid=False), state=TrackedTarget.OCCLUDED, box=RegionOfInterest())
    ahead = drawn(hidden, NOTHING)
    assert (ahead[80, 70] == 50).all()
    assert (ahead[60, 100:140] != 50).any(), "the dashed box"
    assert (ahead[70, 120] == 50).all(), "no dots"


def test_the_unconfirmed_mask_of_an_occluded_target_is_only_outlined():
    picture = drawn(target(state=TrackedTarget.OCCLUDED))
    assert (picture[80, 70] == 50).all()
    assert (picture[80, 50] != 50).any()


def test_hidden_targets_are_darker():
    seen, hidden = (
        drawn(target(state=state, box=RegionOfInterest()), NOTHING).max()
        for state in (TrackedTarget.TRACKED, TrackedTarget.OCCLUDED)
    )
    assert hidden < 0.7 * seen


def test_a_lost_target_is_named_and_nothing_is_expected_of_it():
    lost = target(prompt(valid=False), state=TrackedTarget.LOST, box=RegionOfInterest())
    picture = drawn(lost, NOTHING)
    assert (picture[:24] != 50).any()
    assert (picture[30:] == 50).all()


def test_neighboring_ids_have_different_colors():
    colors = [target_color(i) for i in range(1, 12)]
    assert len(set(colors)) == len(colors)
    assert target_color(65535) == target_color(65535)
