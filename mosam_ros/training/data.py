"""Training clips from the synthetic generator, made in worker processes while the model trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from mosam_ros.synthetic import (
    FIRST_HELD_OUT_SEED,
    TARGET,
    ObjectKinds,
    SceneConfig,
    SyntheticScene,
)


@dataclass(frozen=True)
class Clip:
    """A batch of clips, every one with the same number of targets.

    Attributes:
        frames: (N, T, S, S, 3) uint8 RGB.
        masks: (N, K, T, S, S) bool, visible pixels of K targets.
    """

    frames: torch.Tensor
    masks: torch.Tensor


HIDE_RATE = 0.45
"""Share of scenes in which the target is fully hidden or leaves, unless a stage asks for more."""

PART_RATE = 0.15
"""Share of scenes in which half of the target is hidden, unless a stage asks for more."""

EXIT_SHARE = 1 / 3
"""Of the scenes in which the target is hidden, the share in which it leaves the image, unless a
stage asks for more."""


@dataclass(frozen=True)
class ClipConfig:
    """What clips are like.

    Attributes:
        size: S in pixels.
        length: T, frames.
        num_targets: K per clip.
        hide_rate: share of clips in which the target is hidden for some frames.
        part_rate: share of clips in which half of the target is hidden for some frames.
        even_speed: objects are no faster where frames of the scene are skipped.
        kinds: what share of the objects is hard to make out.
        piece_rate: share of clips whose targets are, in the main, pieces of a cluttered background.
        exit_share: of the clips in which the target is hidden, the share in which it leaves.
    """

    size: int
    length: int
    num_targets: int
    hide_rate: float = HIDE_RATE
    part_rate: float = PART_RATE
    even_speed: bool = False
    kinds: ObjectKinds = ObjectKinds()
    piece_rate: float = 0.0
    exit_share: float = EXIT_SHARE


def random_scene_config(
    rng: np.random.Generator,
    size: int,
    num_frames: int,
    hide_rate: float = HIDE_RATE,
    part_rate: float = PART_RATE,
    exit_share: float = EXIT_SHARE,
) -> SceneConfig:
    """A configuration drawn over all scenarios, from easy to crowded and hidden."""
    more_hiding = hide_rate > HIDE_RATE
    crowding = 0.6 if more_hiding else 0.4
    num_objects = int(rng.integers(4, 7) if more_hiding else rng.integers(3, 6))
    occlusion_rate = hide_rate * (1 - exit_share)
    hides = rng.random()
    return SceneConfig(
        height=size,
        width=size,
        num_frames=num_frames,
        num_objects=num_objects,
        num_lookalikes=int(rng.integers(1, num_objects)) if rng.random() < crowding else 0,
        size=(0.12, float(rng.uniform(0.3, 0.55))),
        speed=float(rng.uniform(0.004, 0.035)),
        spin=float(rng.uniform(0.0, 0.08)),
        scale_change=float(rng.uniform(0.0, 0.5)),
        deformation=float(rng.uniform(0.0, 0.1)),
        camera_motion=float(rng.uniform(0.0, 0.01)),
        full_occlusions=int(hides < occlusion_rate),
        exits=int(occlusion_rate <= hides < hide_rate),
        partial_occlusions=int(hide_rate <= hides < hide_rate + part_rate),
        passing_panels=int(rng.integers(0, 3)) if more_hiding else 0,
        hidden_frames=(3, num_frames // 2) if more_hiding else (2, num_frames // 3),
        clutter=int(rng.integers(0, 14)),
        blur=float(rng.uniform(0.0, 1.2)),
        light_change=float(rng.uniform(0.0, 0.25)),
        noise=float(rng.uniform(0.0, 12.0)),
    )


def make_clip(seed: int, config: ClipConfig) -> tuple[np.ndarray, np.ndarray]:
    """One clip: frames (T, S, S, 3) uint8 and masks (K, T, S, S) bool.

    The K targets are different objects, all visible in the first frame, so that the network must
    listen to the prompt and cannot answer with what is salient.
    """
    rng = np.random.default_rng([seed, 99])
    stride = int(rng.integers(1, 4)) if config.length > 2 else int(rng.integers(4, 12))
    in_pieces = config.piece_rate > 0 and rng.random() < config.piece_rate
    scene_length = config.length * stride + 2
    if config.hide_rate <= HIDE_RATE:
        scene_length = max(16, scene_length + 2)
    for attempt in range(20):
        scene_config = random_scene_config(
            rng,
            config.size,
            scene_length,
            config.hide_rate,
            config.part_rate,
            config.exit_share,
        )
        speed = scene_config.speed / stride if config.even_speed else scene_config.speed
        scene_config = replace(scene_config, speed=speed, kinds=config.kinds)
        if in_pieces:
            scene_config = _cluttered(rng, scene_config)
        scene = SyntheticScene(seed * 20 + attempt, scene_config)
        first = int(rng.integers(0, scene_length - config.length * stride + 1))
        start = scene.frame(first)
        targets = _choose_targets(
            rng, start.masks, start.visibility, config.num_targets, with_target=not in_pieces
        )
        if targets is not None:
            break
    else:
        raise RuntimeError(f"no scene with {config.num_targets} visible targets from seed {seed}")
    rendered = [start] + [scene.frame(first + i * stride) for i in range(1, config.length)]
    frames = np.stack([f.image for f in rendered])
    masks = np.stack([f.masks[targets] for f in rendered], axis=1)
    return _augment(rng, frames, masks)


def _cluttered(rng: np.random.Generator, config: SceneConfig) -> SceneConfig:
    """The scene with few objects before a background, mostly full of edges, pieces of which are
    targets.
    """
    return replace(
        config,
        num_objects=int(rng.integers(1, 4)),
        num_lookalikes=0,
        passing_panels=int(rng.random() < 0.4),
        camera_motion=float(rng.uniform(0, 0.012)) if rng.random() < 0.7 else 0.0,
        leaves=int(10 ** rng.uniform(1.3, 3.1)) if rng.random() < 0.75 else 0,
        num_pieces=3,
    )


def _choose_targets(
    rng: np.random.Generator,
    masks: np.ndarray,
    visibility: np.ndarray,
    count: int,
    with_target: bool = True,
) -> np.ndarray | None:
    """`count` objects that can be clicked in this frame, by default the scene's target among
    them.
    """
    large_enough = masks.reshape(len(masks), -1).mean(1) > 0.003
    usable = np.flatnonzero(large_enough & (visibility > 0.4))
    if not with_target:
        return rng.permutation(usable)[:count] if len(usable) >= count else None
    others = usable[usable != TARGET]
    if TARGET not in usable or len(others) < count - 1:
        return None
    return np.concatenate([[TARGET], rng.permutation(others)[: count - 1]])


def _augment(
    rng: np.random.Generator, frames: np.ndarray, masks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    if rng.random() < 0.5:
        frames, masks = frames[:, :, ::-1], masks[..., ::-1]
    if rng.random() < 0.2:
        gray = np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in np.ascontiguousarray(frames)])
        frames = np.repeat(gray[..., None], 3, axis=-1)
    contrast = float(rng.uniform(0.4, 1.1))
    if rng.random() < 0.4:
        frames = (frames * contrast + (1 - contrast) * rng.uniform(30, 200)).clip(0, 255)
    return np.ascontiguousarray(frames.astype(np.uint8)), np.ascontiguousarray(masks)


class ClipStream(IterableDataset):
    """An endless stream of batches; batch i of a stage of a seed is always the same. Processes that
    train together take every `num_ranks`-th batch.

    Args:
        seed: of the training run.
        config: of the clips.
        num_clips: N per batch.
        stage: index of the stage, so that every stage has clips of its own.
        first_batch: which of its own batches to start with (for resuming).
        rank, num_ranks: which of the processes this is.
    """

    def __init__(
        self,
        seed: int,
        config: ClipConfig,
        num_clips: int,
        stage: int = 0,
        first_batch: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self.seed = seed
        self.config = config
        self.num_clips = num_clips
        self.stage = stage
        self.first_batch = first_batch
        self.rank = rank
        self.num_ranks = num_ranks

    def batch(self, index: int) -> Clip:
        """Batch `index` of the stream."""
        config = self.config
        rng = np.random.default_rng([self.seed, self.stage, config.size, config.length, index])
        seeds = rng.integers(0, FIRST_HELD_OUT_SEED // 20 - 1, self.num_clips)
        clips = [make_clip(int(s), config) for s in seeds]
        frames, masks = (np.stack(x) for x in zip(*clips, strict=True))
        return Clip(torch.from_numpy(frames), torch.from_numpy(masks))

    def __iter__(self) -> Iterator[Clip]:
        cv2.setNumThreads(1)
        worker = torch.utils.data.get_worker_info()
        offset, step = (worker.id, worker.num_workers) if worker else (0, 1)
        index = self.first_batch + offset
        while True:
            yield self.batch(index * self.num_ranks + self.rank)
            index += step

    def loader(self, num_workers: int) -> DataLoader:
        """The stream, in order, made `num_workers` processes ahead."""
        return DataLoader(
            self,
            batch_size=None,
            num_workers=num_workers,
            prefetch_factor=3 if num_workers else None,
        )
