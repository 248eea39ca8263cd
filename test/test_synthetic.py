"""The procedural video: deterministic, with a truth that agrees with its pixels."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosam_ros.evaluation.metrics import mask_iou
from mosam_ros.synthetic import SCENARIOS, TARGET, SceneConfig, SyntheticScene

SMALL = SceneConfig(height=96, width=128, num_frames=30, num_objects=3)


@pytest.mark.parametrize("name", SCENARIOS)
def test_same_seed_gives_the_same_video_in_any_order(name):
    config = SCENARIOS[name]
    first = SyntheticScene(4, config)
    second = SyntheticScene(4, config)
    later_first = [second.frame(t) for t in (17, 0)]
    for ours, theirs in zip([first.frame(0), first.frame(17)], reversed(later_first), strict=True):
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.masks, theirs.masks)
    other = SyntheticScene(5, config).frame(0)
    assert not np.array_equal(other.image, first.frame(0).image)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), t=st.integers(0, 29))
def test_truth_is_well_formed(seed, t):
    frame = SyntheticScene(seed, SMALL).frame(t)
    assert frame.image.shape == (96, 128, 3) and frame.image.dtype == np.uint8
    assert frame.masks.shape == (3, 96, 128) and frame.masks.dtype == bool
    assert frame.masks.sum(0).max() <= 1
    assert np.all((frame.visibility >= 0) & (frame.visibility <= 1))
    assert np.array_equal(frame.visibility > 0, frame.masks.any((1, 2)))


def test_full_occlusion_and_exit_hide_the_target_for_a_while():
    for name in ("full_occlusion", "exit_reentry"):
        hidden_scenes = 0
        for seed in range(10):
            scene = SyntheticScene(seed, SCENARIOS[name])
            gone = [scene.frame(t).visibility[TARGET] == 0 for t in range(len(scene))]
            hidden_scenes += 3 <= sum(gone) < 30
        assert hidden_scenes >= 6, name


def test_lookalikes_share_the_targets_colors():
    def color(frame, index):
        return frame.image[frame.masks[index]].mean(0)

    alike, unlike = [], []
    for seed in range(8):
        alike_frame = SyntheticScene(seed, SCENARIOS["lookalikes"]).frame(0)
        unlike_frame = SyntheticScene(seed, SCENARIOS["fast"]).frame(0)
        alike.append(np.abs(color(alike_frame, TARGET) - color(alike_frame, 1)).mean())
        unlike.append(np.abs(color(unlike_frame, TARGET) - color(unlike_frame, 1)).mean())
    assert np.median(alike) < 0.4 * np.median(unlike)


def test_objects_stand_still_during_the_lead_in():
    config = SceneConfig(lead_in=10, num_frames=30, camera_motion=0.0, speed=0.02)
    scene = SyntheticScene(3, config)
    first = scene.frame(0).masks[TARGET]
    assert np.array_equal(first, scene.frame(9).masks[TARGET])
    assert mask_iou(first, scene.frame(25).masks[TARGET]) < 0.9


@pytest.mark.parametrize("name", ["easy", "fast", "deforming"])
def test_flow_carries_the_image_and_the_mask_to_the_next_frame(name):
    config = SCENARIOS[name].__class__(
        **{**SCENARIOS[name].__dict__, "noise": 0.0, "light_change": 0.0, "blur": 0.0}
    )
    scene = SyntheticScene(11, config)
    now, following = scene.frame(5), scene.frame(6)
    flow = scene.flow(5)
    assert flow.shape == (256, 256, 2)
    y, x = np.mgrid[0:256, 0:256].astype(np.float32)
    at = np.stack([x, y], -1) + flow
    pulled = cv2.remap(following.image, at.astype(np.float32), None, cv2.INTER_LINEAR)
    visible_in_both = now.masks[TARGET] & (
        cv2.remap(following.masks[TARGET].astype(np.float32), at.astype(np.float32), None, 1) > 0.9
    )
    error = np.abs(pulled.astype(float) - now.image)[visible_in_both].mean()
    unmoved = np.abs(following.image.astype(float) - now.image)[visible_in_both].mean()
    assert visible_in_both.sum() > 0.7 * now.masks[TARGET].sum()
    assert error < 6.0
    assert error < 0.5 * unmoved


def test_frames_are_fast_enough_to_feed_training():
    scene = SyntheticScene(0, SCENARIOS["lookalikes"])
    scene.frame(0)
    start = time.process_time()
    for t in range(20):
        scene.frame(t)
    assert (time.process_time() - start) / 20 < 0.06
