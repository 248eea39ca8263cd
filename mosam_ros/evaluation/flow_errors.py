"""How far optical flow methods are off, on synthetic clips with true flow."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mosam_ros.mosam.checkpoints import LoadedModel
from mosam_ros.mosam.motion.flow import FlowEstimator, FlowField, target_region
from mosam_ros.mosam.sam2_model import ImageFeatures
from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, SCENARIOS, TARGET, SyntheticScene

CLIP_FRAMES = 12
MIN_POINTS = 50
"""Fewer points that are seen in both frames make no error."""

STILL = "no motion"


@dataclass(frozen=True)
class TruePair:
    """Two frames in a row, and where points of the target are in them.

    Attributes:
        earlier, current: (height, width, 3) uint8 RGB.
        box: (4,) x_min, y_min, x_max, y_max of the target in `current`, in pixels.
        places: (n, 2) x, y in `current`, in pixels.
        motion: (n, 2) how they came there from `earlier`.
    """

    earlier: NDArray[np.uint8]
    current: NDArray[np.uint8]
    box: NDArray[np.float64]
    places: NDArray[np.float32]
    motion: NDArray[np.float32]


def true_pairs(clip: int, seed: int, size: tuple[int, int] = (480, 640)) -> Iterator[TruePair]:
    """The pairs of held-out clip `clip` of a seed in which enough of the target is seen."""
    name = list(SCENARIOS)[clip % len(SCENARIOS)]
    config = replace(SCENARIOS[name], height=size[0], width=size[1], num_frames=CLIP_FRAMES)
    scene = SyntheticScene(FIRST_HELD_OUT_SEED + 900_000_000 + seed * 10_000 + clip, config)
    frames = [scene.frame(t) for t in range(CLIP_FRAMES)]
    for t, (before, now) in enumerate(zip(frames[:-1], frames[1:], strict=True)):
        rows, columns = np.nonzero(before.masks[TARGET])
        motion = scene.flow(t)[rows, columns]
        places = np.stack([columns, rows], 1).astype(np.float32) + motion
        x, y = np.rint(places).astype(int).T
        seen = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
        seen[seen] = now.masks[TARGET][y[seen], x[seen]]
        if np.count_nonzero(seen) >= MIN_POINTS:
            left, top, width, height = cv2.boundingRect(now.masks[TARGET].astype(np.uint8))
            box = np.array([left, top, left + width, top + height], float)
            yield TruePair(before.image, now.image, box, places[seen], motion[seen])


def end_point_error(field: FlowField, pair: TruePair) -> float:
    """Mean distance in pixels between estimated and true motion at a pair's places."""
    height, width = field.motion.shape[:2]
    first = field.positions[0, 0]
    step = np.array([field.region.width / width, field.region.height / height])
    x, y = ((pair.places - first) / step).astype(np.float32).T
    found = cv2.remap(
        field.motion, x[None], y[None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )[0]
    return float(np.linalg.norm(found - pair.motion, axis=1).mean())


def flow_errors(
    loaded: LoadedModel, methods: Mapping[str, FlowEstimator], num_clips: int, seed: int
) -> dict[str, dict[str, float]]:
    """By method: mean and median `epe` in pixels over all pairs, and `ms` per frame and target,
    without the model's features, which the tracker has anyway. `no motion` is the true motion's
    length.

    The device has finished all earlier work when the clock starts, and the method's when it stops.
    The first pair is done once before, untimed, so that `ms` counts no first-time preparations.
    """
    errors: dict[str, list[float]] = {STILL: [], **{name: [] for name in methods}}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for pair in (pair for clip in range(num_clips) for pair in true_pairs(clip, seed)):
        is_first = not errors[STILL]
        errors[STILL].append(float(np.linalg.norm(pair.motion, axis=1).mean()))
        for name, method in methods.items():
            if is_first:
                _timed_flow(loaded, method, pair)
            field, duration = _timed_flow(loaded, method, pair)
            errors[name].append(end_point_error(field, pair))
            seconds[name].append(duration)
    return {
        name: {"epe": float(np.mean(values)), "median": float(np.median(values)), "n": len(values)}
        | ({"ms": 1000 * float(np.mean(seconds[name]))} if name in seconds else {})
        for name, values in errors.items()
    }


def _timed_flow(
    loaded: LoadedModel, method: FlowEstimator, pair: TruePair
) -> tuple[FlowField, float]:
    """The flow around a pair's target, and its seconds without those of the model's features."""
    region = target_region(pair.box, pair.current.shape[:2])
    with torch.inference_mode(), loaded.autocast():
        kept = method.prepare(pair.earlier, _features(loaded, pair.earlier))
        features = _features(loaded, pair.current)
        _finish(loaded.device)
        started = time.perf_counter()
        field = method.estimate(kept, method.prepare(pair.current, features), region)
        _finish(loaded.device)
        return field, time.perf_counter() - started


def _finish(device: torch.device) -> None:
    """Wait for all work on a device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _features(loaded: LoadedModel, frame: NDArray[np.uint8]) -> ImageFeatures:
    images = torch.from_numpy(frame[None]).to(loaded.device)
    return loaded.model.encode_image(loaded.model.normalize(images))
