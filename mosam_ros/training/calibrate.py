"""Where the object score crosses zero: between visible and hidden targets, on training scenes.

Training balances many visible frames against few hidden ones, which can leave the score of a hidden
target too high. A shift of the score's bias is tried against that, and kept only where it helps.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from mosam_ros.mosam.checkpoints import LoadedModel
from mosam_ros.mosam.tracker import MosamTracker
from mosam_ros.synthetic import SCENARIOS, TARGET, VISIBLE_PIXELS, SceneFrame, SyntheticScene
from mosam_ros.training.prompting import prompt_for

SHIFTS = (0.0, -1.0, -1.75, -2.5, -3.25, -4.0)
"""Shifts of the bias, in logits, that are tried."""

SCENES = ("full_occlusion", "exit_reentry", "full_occlusion", "deforming")
"""Scenarios of the calibration clips, in turn."""

NUM_FRAMES = 50


def calibration_clips(count: int, size: int) -> list[list[SceneFrame]]:
    """`count` clips with training seeds; the target is whole in the first frame."""
    clips: list[list[SceneFrame]] = []
    seed = 0
    while len(clips) < count:
        config = SCENARIOS[SCENES[len(clips) % len(SCENES)]]
        config = replace(config, height=size, width=size, num_frames=NUM_FRAMES, num_lookalikes=0)
        scene = SyntheticScene(seed, config)
        seed += 1
        first = scene.frame(0)
        if first.visibility[TARGET] > 0.8 and first.masks[TARGET].mean() > 0.01:
            clips.append([scene.frame(t) for t in range(NUM_FRAMES)])
    return clips


def shift_object_score(loaded: LoadedModel, shift: float) -> None:
    """Add `shift` to every object score that the model gives from now on."""
    with torch.no_grad():
        loaded.model.base.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.add_(shift)


def balanced_accuracy(loaded: LoadedModel, clips: list[list[SceneFrame]]) -> float:
    """Mean of the shares of visible and of hidden frames with the right sign of the score."""
    visible, hidden = [], []
    for clip in clips:
        tracker = MosamTracker(loaded)
        tracker.add(prompt_for("box", clip[0].masks[TARGET]))
        for frame in clip:
            score = tracker.track(frame.image).targets[0].object_score
            pixels = np.count_nonzero(frame.masks[TARGET])
            if pixels >= VISIBLE_PIXELS:
                visible.append(score > 0)
            elif pixels == 0:
                hidden.append(score < 0)
    return float((np.mean(visible) + np.mean(hidden)) / 2)


def calibrate(loaded: LoadedModel, num_clips: int) -> dict[str, float]:
    """Shift the model's object score to the best of `SHIFTS`; returns each shift's accuracy."""
    clips = calibration_clips(num_clips, loaded.model.image_size)
    accuracy: dict[float, float] = {}
    for shift in tqdm(SHIFTS, desc="calibration"):
        shift_object_score(loaded, shift)
        accuracy[shift] = balanced_accuracy(loaded, clips)
        shift_object_score(loaded, -shift)
    best = max(SHIFTS, key=lambda s: accuracy[s])
    shift_object_score(loaded, best)
    return {"shift": best} | {f"accuracy at {s:g}": round(a, 4) for s, a in accuracy.items()}
