"""The forecast of a target's motion: exact where motion is regular, careful where it is noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mosam_ros.mosam.motion.flow import DenseMotion
from mosam_ros.mosam.motion.forecast import Forecaster
from mosam_ros.mosam.motion.preference import WEIGHT, forecast_preference
from mosam_ros.mosam.results import MotionPrompt
from mosam_ros.mosam.views import View

SIZE = (480, 640)
WHOLE = View.whole(SIZE)
DT = 0.1
OFFSETS = np.array([(0, 0), (0, -10), (0, 10), (-10, 0), (10, 0)], np.float32)


def box_at(x: float, y: float, half: float = 20.0) -> np.ndarray:
    return np.array([x - half, y - half, x + half, y + half])


def observe_line(
    forecaster: Forecaster, frames: int, velocity=(4.0, -2.0), dt: float = DT
) -> float:
    """A target moving 4 pixels right and 2 up a frame from (100, 200); the last frame's time."""
    for t in range(frames):
        x, y = 100 + 4 * t, 200 - 2 * t
        forecaster.observe(t * dt, box_at(x, y), OFFSETS + np.float32([x, y]))
    return (frames - 1) * dt


def test_constant_velocity_is_predicted_exactly():
    forecaster = Forecaster(5)
    last = observe_line(forecaster, 8)
    forecast = forecaster.predict(last + DT, SIZE)
    assert forecast.valid and forecast.time == pytest.approx(last + DT)
    np.testing.assert_allclose(forecast.box, box_at(132, 184), atol=0.1)
    np.testing.assert_allclose(forecast.key_points, OFFSETS + [132, 184], atol=0.1)
    np.testing.assert_allclose(forecast.velocity, [40, -20], rtol=0.01)


def test_velocity_is_per_second_whatever_the_frame_rate():
    forecaster = Forecaster(5)
    last = observe_line(forecaster, 8, dt=1 / 60)
    np.testing.assert_allclose(
        forecaster.predict(last + 1 / 60, SIZE).velocity, [240, -120], rtol=0.01
    )


def test_a_lost_frame_in_between_moves_the_forecast_further():
    forecaster = Forecaster(5)
    last = observe_line(forecaster, 8)
    one, two = (forecaster.predict(last + n * DT, SIZE).box[0] for n in (1, 2))
    assert two - one == pytest.approx(4.0, abs=0.5)


def test_noise_is_not_taken_for_motion():
    forecaster = Forecaster(5)
    errors, still = [], []
    jitter = np.random.default_rng(0).normal(0, 3, (80, 2))
    for t, (dx, dy) in enumerate(jitter):
        if forecaster.ready:
            box = forecaster.predict(t * DT, SIZE).box
            errors.append(np.abs(box - box_at(100 + dx, 200 + dy)).mean())
            still.append(np.abs(jitter[t] - jitter[t - 1]).mean())
        forecaster.observe(t * DT, box_at(100 + dx, 200 + dy), OFFSETS + np.float32([100, 200]))
    assert np.mean(errors) < 1.03 * np.mean(still)


def test_a_forecast_needs_history():
    forecaster = Forecaster(5)
    assert forecaster.predict(0.0, SIZE) is None
    for t, expected in enumerate([False, False, True]):
        forecaster.observe(t * DT, box_at(100, 100), OFFSETS + np.float32([100, 100]))
        assert forecaster.predict((t + 1) * DT, SIZE).valid is expected


def test_uncertainty_grows_and_trust_ends_while_the_target_is_hidden():
    forecaster = Forecaster(5)
    last = observe_line(forecaster, 8)
    forecasts = [forecaster.predict(last + n * DT, SIZE) for n in range(1, 12)]
    uncertainty = [f.uncertainty for f in forecasts]
    assert np.all(np.diff(uncertainty) > 0) and uncertainty[0] >= 1.0
    assert [f.valid for f in forecasts[:4]] == [True, True, False, False]
    steps = np.diff([f.box[0] for f in forecasts])
    assert np.all(np.diff(steps) < 0) and steps[-1] > 0


def test_a_forecast_outside_the_image_is_not_valid():
    forecaster = Forecaster(5)
    last = observe_line(forecaster, 8)
    assert forecaster.predict(last + DT, SIZE).valid
    assert not forecaster.predict(last + DT, (150, 640)).valid


def test_a_box_that_an_occluder_cuts_off_does_not_shrink_on_while_the_target_is_hidden():
    """Only its left edge moves, by 5 pixels a frame."""
    forecaster = Forecaster(5)
    for t in range(6):
        box = np.array([100.0 + 5 * t, 100.0, 180.0, 160.0])
        forecaster.observe(t * DT, box, OFFSETS + np.float32([150, 130]))
    boxes = [forecaster.predict(5 * DT + n * DT, SIZE).box for n in (1, 5, 20)]
    widths = [box[2] - box[0] for box in boxes]
    assert 48 < widths[0] < 52
    np.testing.assert_allclose(widths, widths[0], atol=1e-3)
    assert boxes[0][2] < boxes[1][2] < boxes[2][2]


def test_a_jump_back_in_time_starts_a_new_history():
    forecaster = Forecaster(5)
    observe_line(forecaster, 8)
    forecaster.observe(0.0, box_at(10, 10), OFFSETS + np.float32([10, 10]))
    assert forecaster.num_observations == 1 and not forecaster.ready


def test_consistent_flow_corrects_a_turn_that_the_trend_does_not_see():
    with_flow, without = Forecaster(5), Forecaster(5)
    angle = np.arange(40) * 0.25
    centers = np.stack([300 + 60 * np.cos(angle), 240 + 60 * np.sin(angle)], 1)
    errors = {"flow": [], "trend": []}
    for t in range(3, 39):
        points = OFFSETS + centers[t].astype(np.float32)
        ahead = DenseMotion(np.tile(centers[t + 1] - centers[t], 2) / DT, 1.0)
        with_flow.observe(t * DT, box_at(*centers[t]), points, ahead)
        without.observe(t * DT, box_at(*centers[t]), points)
        true = box_at(*centers[t + 1])
        for name, forecaster in (("flow", with_flow), ("trend", without)):
            forecast = forecaster.predict((t + 1) * DT, SIZE)
            errors[name].append(np.abs(forecast.box - true).mean())
    assert np.mean(errors["flow"][10:]) < 0.6 * np.mean(errors["trend"][10:])


def forecast_with_flow(confidence: float | None) -> np.ndarray:
    """The box after a straight line, where a flow that was right so far says that it stops."""
    forecaster = Forecaster(5)
    for t in range(9):
        x, y = 100 + 4 * t, 200 - 2 * t
        flow = None
        if confidence is not None:
            flow = DenseMotion(np.array([40.0, -20.0, 40.0, -20.0]) * (t < 8), confidence)
        forecaster.observe(t * DT, box_at(x, y), OFFSETS + np.float32([x, y]), flow)
    return forecaster.predict(9 * DT, SIZE).box


def test_flow_counts_by_its_confidence():
    shares = [forecast_with_flow(confidence)[0] for confidence in (None, 0.3, 0.6, 1.0)]
    assert shares == sorted(shares, reverse=True)
    moves = np.array(shares) - box_at(132, 184)[0]
    assert moves[0] == pytest.approx(4.0, abs=0.1)
    assert moves[1] > 0.7 * 4.0 and moves[3] < 0.55 * 4.0


def forecast_at(x: float, y: float, uncertainty: float) -> MotionPrompt:
    box = box_at(x, y).astype(np.float32)
    points = OFFSETS + np.float32([x, y])
    return MotionPrompt(1.0, False, points, box, np.zeros(2, np.float32), uncertainty)


def candidates() -> torch.Tensor:
    logits = torch.full((2, 3, 48, 64), -5.0)
    logits[:, 0, 8:13, 8:13] = 5.0
    logits[:, 1, 30:35, 40:45] = 5.0
    return logits


def test_candidates_near_the_forecast_are_preferred():
    bonus = forecast_preference(candidates(), [forecast_at(100, 100, 5.0), None], [WHOLE] * 2)
    assert bonus[0, 0] > 0.9 * WEIGHT and bonus[0, 1] < 0.01 * WEIGHT and bonus[0, 2] == 0
    assert bonus[1].tolist() == [0, 0, 0]


def test_in_a_view_candidates_are_where_the_view_is():
    """The logits are of the frame's right lower quarter: what was at 100, 100 is at 420, 340."""
    quarter = View(320, 240, 320, 240, SIZE)
    x, y = 320 + 100 / 2, 240 + 100 / 2
    bonus = forecast_preference(candidates(), [forecast_at(x, y, 5.0), None], [quarter] * 2)
    assert bonus[0, 0] > 0.9 * WEIGHT and bonus[0, 1] < 0.05 * WEIGHT
    elsewhere = forecast_preference(candidates(), [forecast_at(x, y, 5.0), None], [WHOLE] * 2)
    assert elsewhere[0, 0] < 0.05 * WEIGHT


def test_a_forecast_that_has_become_a_guess_decides_nothing():
    bonus = forecast_preference(candidates(), [forecast_at(100, 100, 5000.0), None], [WHOLE] * 2)
    assert abs(float(bonus[0, 0] - bonus[0, 1])) < 0.01 * WEIGHT
