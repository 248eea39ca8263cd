"""The demo's scene: a target that moves well away from its start and vanishes once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np

from mosam_ros.synthetic.scene import (
    FIRST_HELD_OUT_SEED,
    TARGET,
    VISIBLE_PIXELS,
    SceneConfig,
    SyntheticScene,
)

CANDIDATES = 50
"""Scenes looked through per seed of the demo."""

HIDDEN_FRAMES = 8
"""The target is out of sight for at least so many frames in all."""

FINAL_FRAMES = 20
"""The target is in sight again for so many frames at the end."""

FIRST_MASK_LIMIT = 0.40
"""Mean IoU that somebody may get who answers every frame with the first frame's mask."""


class SceneNotFoundError(ValueError):
    """No scene of this configuration makes a demo; the message says what to change."""


def demo_scene_config(width: int = 640, height: int = 480, num_frames: int = 160) -> SceneConfig:
    """A target, a look-alike and another object; one full occlusion; an easy camera."""
    return SceneConfig(
        height=height,
        width=width,
        num_frames=num_frames,
        lead_in=12,
        num_objects=3,
        num_lookalikes=1,
        size=(0.30, 0.42),
        speed=0.008,
        scale_change=0.25,
        deformation=0.04,
        camera_motion=0.003,
        full_occlusions=1,
        hidden_frames=(8, 14),
        blur=0.5,
        light_change=0.1,
        noise=3.0,
    )


def find_demo_scene(seed: int, config: SceneConfig | None = None) -> SyntheticScene:
    """The first scene for `seed` that shows something: judged by its ground truth alone.

    The target is fully visible while the scene stands still, travels so far that repeating its
    first mask fails, is hidden for a while and in sight at the end.

    Args:
        seed: any non-negative integer; the same seed finds the same scene.
        config: what happens in it, `demo_scene_config()` unless given.

    Raises:
        SceneNotFoundError: none of the candidates will do.
    """
    config = config or demo_scene_config()
    long_enough = config.num_frames >= config.lead_in + HIDDEN_FRAMES + FINAL_FRAMES
    for candidate in range(CANDIDATES if long_enough else 0):
        scene = SyntheticScene(FIRST_HELD_OUT_SEED + 1000 * seed + candidate, config)
        if is_demo_scene(scene):
            return scene
    raise SceneNotFoundError(
        f"no scene for seed {seed} with {config.num_frames} frames of {config.width}x"
        f"{config.height} makes a demo: take more frames (160 is usual) or another seed"
    )


def is_demo_scene(scene: SyntheticScene) -> bool:
    """Whether the scene's ground truth is as `find_demo_scene` promises; the cheap checks first."""
    lead_in, final = range(scene.config.lead_in), range(len(scene) - FINAL_FRAMES, len(scene))
    return (
        _visible(scene, (0, final[0], final[-1]))
        and first_mask_repeated(_masks(scene, range(0, len(scene), 10))) <= FIRST_MASK_LIMIT
        and _visible(scene, lead_in, at_least=0.95)
        and _visible(scene, final)
        and _whole_scene_fits(scene)
    )


def _whole_scene_fits(scene: SyntheticScene) -> bool:
    masks = _masks(scene, range(len(scene)))
    hidden = sum(not mask.any() for mask in masks)
    return hidden >= HIDDEN_FRAMES and first_mask_repeated(masks) <= FIRST_MASK_LIMIT


def _visible(scene: SyntheticScene, times: Iterable[int], at_least: float = 0.5) -> bool:
    return all(scene.frame(t).visibility[TARGET] >= at_least for t in times)


def _masks(scene: SyntheticScene, times: Iterable[int]) -> list[np.ndarray]:
    return [scene.frame(t).masks[TARGET] for t in times]


def first_mask_repeated(masks: Sequence[np.ndarray]) -> float:
    """Mean IoU of the first mask with every other mask in which the target is visible.

    Args:
        masks: the target's masks (height, width) bool in time order, the first one not empty.
    """
    first = masks[0]
    scores = [
        (first & mask).sum() / (first | mask).sum()
        for mask in islice(masks, 1, None)
        if mask.sum() >= VISIBLE_PIXELS
    ]
    return float(np.mean(scores)) if scores else 1.0
