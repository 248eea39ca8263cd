"""The error of optical flow against the generator's truth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mosam_ros.evaluation.flow_errors import STILL, end_point_error, flow_errors, true_pairs
from mosam_ros.mosam.checkpoints import load_model
from mosam_ros.mosam.motion.flow import DisFlow, FlowField, Region, target_region


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


def test_dis_beats_no_motion():
    loaded = load_model("nano", device="cpu")
    figures = flow_errors(loaded, {"dis": DisFlow()}, 2, 0)
    assert figures["dis"]["epe"] < 0.7 * figures[STILL]["epe"]
    assert figures["dis"]["ms"] > 0 and "ms" not in figures[STILL]
