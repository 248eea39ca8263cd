"""The demo's scene shows what it is meant to show, judged by its ground truth."""

from dataclasses import replace

import numpy as np
import pytest

from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, TARGET
from mosam_ros.synthetic.demo_scene import (
    FINAL_FRAMES,
    FIRST_MASK_LIMIT,
    HIDDEN_FRAMES,
    SceneNotFoundError,
    demo_scene_config,
    find_demo_scene,
    first_mask_repeated,
    is_demo_scene,
)
from mosam_ros.synthetic.scene import SyntheticScene

SMALL = demo_scene_config(width=96, height=72, num_frames=80)


@pytest.fixture(scope="module")
def scenes():
    return [find_demo_scene(seed, SMALL) for seed in (0, 1)]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_scene_is_as_promised(scenes, seed):
    scene = scenes[seed]
    frames = [scene.frame(t) for t in range(len(scene))]
    visibility = np.array([frame.visibility[TARGET] for frame in frames])
    masks = [frame.masks[TARGET] for frame in frames]
    assert scene.seed >= FIRST_HELD_OUT_SEED
    assert (visibility[: SMALL.lead_in] >= 0.95).all()
    assert sum(not mask.any() for mask in masks) >= HIDDEN_FRAMES
    assert (visibility[-FINAL_FRAMES:] >= 0.5).all()
    assert first_mask_repeated(masks) <= FIRST_MASK_LIMIT


def test_a_seed_finds_the_same_scene_again_and_another_seed_another(scenes):
    assert find_demo_scene(0, SMALL).seed == scenes[0].seed != scenes[1].seed


def test_a_scene_that_is_too_short_is_refused():
    with pytest.raises(SceneNotFoundError, match="seed 5 with 30 frames of 64x48.*more frames"):
        find_demo_scene(5, demo_scene_config(64, 48, num_frames=30))


def test_a_target_that_stands_still_is_refused():
    assert not is_demo_scene(SyntheticScene(FIRST_HELD_OUT_SEED, replace(SMALL, speed=0.0)))


def test_repeating_the_first_mask():
    mask = np.zeros((20, 40), bool)
    mask[:10, :10] = True
    assert first_mask_repeated([mask, mask, np.roll(mask, 5, axis=1)]) == pytest.approx(2 / 3)
    assert first_mask_repeated([mask, np.zeros_like(mask)]) == 1.0
