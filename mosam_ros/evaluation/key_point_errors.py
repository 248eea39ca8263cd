"""How far forecasts of key points are off, on synthetic clips with true masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from mosam_ros.mosam.checkpoints import LoadedModel
from mosam_ros.mosam.motion.encoders import KeyPointEncoder, features_at
from mosam_ros.mosam.motion.forecast import Forecaster
from mosam_ros.mosam.motion.keypoints import MaskGeometry, key_points
from mosam_ros.synthetic import (
    FIRST_HELD_OUT_SEED,
    SCENARIOS,
    TARGET,
    VISIBLE_PIXELS,
    SceneFrame,
    SyntheticScene,
)

CLIP_FRAMES = 20
NUM_KEY_POINTS = 5
FRAME_SECONDS = 1 / 30

METHODS = ("no motion", "linear", "trained")


def held_out_clip(clip: int, seed: int, size: tuple[int, int] = (480, 640)) -> list[SceneFrame]:
    """Clip `clip` of a seed, of the scenarios in turn."""
    name = list(SCENARIOS)[clip % len(SCENARIOS)]
    config = replace(SCENARIOS[name], height=size[0], width=size[1], num_frames=CLIP_FRAMES)
    scene = SyntheticScene(FIRST_HELD_OUT_SEED + 950_000_000 + seed * 10_000 + clip, config)
    return [scene.frame(t) for t in range(CLIP_FRAMES)]


def key_point_errors(
    loaded: LoadedModel, encoder: KeyPointEncoder, num_clips: int, seed: int
) -> dict[str, dict[str, float]]:
    """By method: mean and median `error` in pixels between the target's key points expected in a
    frame and those of its true mask there, over `n` frames whose past is known well enough.

    `linear` and `trained` are both calibrated by what came true, as in the tracker.
    """
    errors: dict[str, list[float]] = {method: [] for method in METHODS}
    for clip in range(num_clips):
        _add_errors(errors, loaded, encoder, held_out_clip(clip, seed))
    return {
        method: {
            "error": float(np.mean(values)),
            "median": float(np.median(values)),
            "n": len(values),
        }
        for method, values in errors.items()
    }


def _add_errors(
    errors: dict[str, list[float]],
    loaded: LoadedModel,
    encoder: KeyPointEncoder,
    frames: list[SceneFrame],
) -> None:
    forecasters = {method: Forecaster(NUM_KEY_POINTS) for method in METHODS[1:]}
    last: NDArray[np.float32] | None = None
    for index, frame in enumerate(frames):
        mask = frame.masks[TARGET]
        now = index * FRAME_SECONDS
        if np.count_nonzero(mask) < VISIBLE_PIXELS:
            last = None
            continue
        geometry = MaskGeometry.of(mask[None])
        points = key_points(mask[None], geometry.centroids, NUM_KEY_POINTS)[0]
        if last is not None and forecasters["linear"].ready:
            errors["no motion"].append(_distance(last, points))
            for method, forecaster in forecasters.items():
                forecast = forecaster.predict(now, mask.shape)
                assert forecast is not None
                errors[method].append(_distance(forecast.key_points, points))
        for forecaster in forecasters.values():
            forecaster.observe(now, geometry.boxes[0], points)
        if forecasters["trained"].ready:
            _encode(forecasters["trained"], loaded, encoder, frame)
        last = points


def _encode(
    forecaster: Forecaster, loaded: LoadedModel, encoder: KeyPointEncoder, frame: SceneFrame
) -> None:
    """Tell a forecaster what the encoder expects, as the tracker does."""
    points, velocities = (
        torch.from_numpy(x[None]).to(loaded.device) for x in forecaster.key_point_history()
    )
    with torch.inference_mode(), loaded.autocast():
        images = loaded.model.normalize(torch.from_numpy(frame.image[None]))
        coarse = loaded.model.encode_image(images).coarse
        features = features_at(coarse, points, frame.image.shape[:2])
        future = encoder(velocities, features)
    forecaster.expect_key_points(future[0].float().cpu().numpy())


def _distance(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(a - b, axis=1).mean())
