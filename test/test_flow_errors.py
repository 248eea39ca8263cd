"""The error of optical flow against the generator's truth."""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mosam_ros.evaluation.flow_errors import STILL, end_point_error, flow_errors, true_pairs
from mosam_ros.evaluation.key_point_errors import METHODS, key_point_errors
from mosam_ros.mosam.checkpoints import LoadedModel, load_model, save_weights
from mosam_ros.mosam.motion.encoders import MotionEncoders
from mosam_ros.mosam.motion.flow import DisFlow, FeatureFlow, FlowField, Region, target_region

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "motion_encoders.py"


def field_of(pair, motion_at) -> FlowField:
    """A field around a pair's target whose motion is given at every sample."""
    region = target_region(pair.box, pair.current.shape[:2])
    empty = FlowField(region, np.zeros((24, 32, 2), np.float32), np.ones((24, 32), bool))
    return FlowField(region, motion_at(empty.positions).astype(np.float32), empty.consistent)


def test_pairs_say_where_the_targets_points_went():
    pairs = list(true_pairs(1, 0, (120, 160)))
    assert len(pairs) > 5
    errors = []
    for pair in pairs:
        came_from = pair.places - pair.motion
        there = [
            cv2.remap(image, *points.T[:, None], cv2.INTER_LINEAR)[0].astype(float)
            for image, points in ((pair.current, pair.places), (pair.earlier, came_from))
        ]
        errors.append(np.abs(there[0] - there[1]).mean())
    assert np.median(errors) < 12


def test_the_error_of_a_known_field():
    pair = next(true_pairs(0, 0, (120, 160)))
    mean = pair.motion.mean(0)
    spread = np.linalg.norm(pair.motion - mean, axis=1).mean()
    exact = field_of(pair, lambda at: np.broadcast_to(mean, at.shape))
    off = field_of(pair, lambda at: np.broadcast_to(mean + (3.0, 4.0), at.shape))
    assert end_point_error(exact, pair) == pytest.approx(spread, abs=1e-3)
    assert end_point_error(off, pair) == pytest.approx(5.0, abs=2 * spread + 1e-3)


def test_samples_are_read_at_their_own_places():
    pair = next(true_pairs(0, 0, (120, 160)))
    ramp = field_of(pair, lambda at: at * (0.1, 0.2))
    inner = pair.__class__(
        pair.earlier, pair.current, pair.box, pair.places, pair.places * np.float32([0.1, 0.2])
    )
    assert isinstance(ramp.region, Region)
    assert end_point_error(ramp, inner) < 0.02


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("nano", device="cpu")


def test_dis_beats_no_motion(loaded):
    figures = flow_errors(loaded, {"dis": DisFlow()}, 2, 0)
    assert figures["dis"]["epe"] < 0.7 * figures[STILL]["epe"]
    assert figures["dis"]["ms"] > 0 and "ms" not in figures[STILL]


def test_the_flow_encoder_is_given_the_features_of_both_frames(loaded):
    torch.manual_seed(0)
    method = FeatureFlow(MotionEncoders(loaded.model.width).flow.eval())
    figures = flow_errors(loaded, {"feature": method}, 1, 0)
    errors = []
    for pair in true_pairs(0, 0):
        frames = torch.from_numpy(np.stack([pair.earlier, pair.current]))
        with torch.inference_mode():
            both = loaded.model.encode_image(loaded.model.normalize(frames))
            then = method.prepare(pair.earlier, both.for_targets([0]))
            now = method.prepare(pair.current, both.for_targets([1]))
            field = method.estimate(then, now, target_region(pair.box, (480, 640)))
        errors.append(end_point_error(field, pair))
    assert figures["feature"]["n"] == len(errors) > 5
    assert figures["feature"]["epe"] == pytest.approx(np.mean(errors), rel=1e-3)
    assert figures["feature"]["median"] == pytest.approx(np.median(errors), rel=1e-3)
    assert figures["feature"]["ms"] > 0


class SlowToStart(DisFlow):
    """DIS whose first estimate takes two seconds longer."""

    waits = True

    def estimate(self, earlier, current, region):
        if self.waits:
            time.sleep(2.0)
            self.waits = False
        return super().estimate(earlier, current, region)


def test_the_first_estimate_is_not_timed(loaded):
    figures = flow_errors(loaded, {"slow": SlowToStart()}, 1, 0)
    assert figures["slow"]["ms"] < 1000 * 1.0 / figures["slow"]["n"]


def test_without_encoders_the_benchmark_says_how_to_make_them(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [BENCHMARK.name])
    with pytest.raises(SystemExit):
        runpy.run_path(str(BENCHMARK), run_name="__main__")
    message = capsys.readouterr().err
    assert "mosam train motion --data synthetic --model nano --out FOLDER" in message
    assert "then pass --encoders FOLDER/nano_motion.pt" in message


def test_the_benchmark_prints_and_writes_what_it_measured(capsys, monkeypatch, tmp_path, loaded):
    encoders, figures = tmp_path / "nano_motion.pt", tmp_path / "figures.json"
    save_weights(encoders, MotionEncoders(loaded.model.width).state_dict(), {})
    options = ["--clips", "1", "--device", "cpu", "--encoders", encoders, "--json", figures]
    monkeypatch.setattr(sys, "argv", [BENCHMARK.name, *map(str, options)])
    runpy.run_path(str(BENCHMARK), run_name="__main__")
    written = json.loads(figures.read_text())
    printed = capsys.readouterr().out
    assert set(written["flow"]) == {STILL, "dis", "feature"}
    for name, row in written["flow"].items():
        assert f"flow, {name:10} error {row['epe']:.3f} px" in printed
    assert set(written["key_points"]) == set(METHODS)
    for name, row in written["key_points"].items():
        assert f"key points, {name:10} error {row['error']:.3f} px" in printed


def test_an_encoder_that_changes_nothing_forecasts_about_as_the_linear_rule_does(loaded):
    """Fresh encoders answer with the mean of the past velocities."""
    fresh = MotionEncoders(loaded.model.width).key_points.eval()
    figures = key_point_errors(loaded, fresh, 1, 0)
    assert {row["n"] for row in figures.values()} == {figures["linear"]["n"]}
    assert figures["linear"]["n"] >= 10
    assert figures["trained"]["error"] == pytest.approx(figures["linear"]["error"], rel=0.5)
    assert figures["trained"]["error"] != figures["linear"]["error"]
    assert figures["linear"]["error"] < figures["no motion"]["error"]
