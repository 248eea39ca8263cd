"""Training clips from the synthetic generator, made in worker processes while the model trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset

from mosam_ros.evaluation.metrics import tight_box
from mosam_ros.mosam.views import View
from mosam_ros.synthetic import (
    FIRST_HELD_OUT_SEED,
    TARGET,
    ObjectKinds,
    SceneConfig,
    SceneFrame,
    SyntheticScene,
)
from mosam_ros.training.views import draw_context, look_at, see_through, view_path


@dataclass(frozen=True)
class Clip:
    """A batch of clips, every one with the same number of targets.

    Attributes:
        frames: (N, T, S, S, 3) uint8 RGB.
        masks: (N, K, T, S, S) bool, visible pixels of K targets.
        views: (N, T, 4) float32, which part of the image the frame shows: x, y, width and height
            as shares of the image's sides.
    """

    frames: torch.Tensor
    masks: torch.Tensor
    views: torch.Tensor


HIDE_RATE = 0.45
"""Share of scenes in which the target is fully hidden or leaves, unless a stage asks for more."""

PART_RATE = 0.15
"""Share of scenes in which half of the target is hidden, unless a stage asks for more."""

EXIT_SHARE = 1 / 3
"""Of the scenes in which the target is hidden, the share in which it leaves the image, unless a
stage asks for more."""

VIEW_PATIENCE = 5
"""Hidden frames after which a view is given up, at the most, unless a stage asks for more."""

LARGER_RATE = 0.4
"""Share of the clips seen through views that are rendered larger, so that a view has details that
the whole image has not."""

CLEARLY_IN_VIEW = 0.6
"""Share of an object that has to lie in the view in which it is clicked."""

LEAST_AREA_IN_VIEW = 0.004
"""Of a view, that an object has to fill to be clicked."""


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
        zoom_rate: share of clips that are seen through views around the first of their targets.
        view_patience: hidden frames after which a view is given up, at the most.
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
    zoom_rate: float = 0.0
    view_patience: int = VIEW_PATIENCE


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


@dataclass(frozen=True)
class TrainingClip:
    """One clip of K targets.

    Attributes:
        frames: (T, S, S, 3) uint8.
        masks: (K, T, S, S) bool.
        views: (T, 4) float32, as in `Clip`.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    views: NDArray[np.float32]


def make_clip(seed: int, config: ClipConfig) -> TrainingClip:
    """One clip, all of whose targets are visible in the first frame.

    The targets are different objects, so that the network must listen to the prompt and cannot
    answer with what is salient. Only in a narrow view one may be there more than once.
    """
    rng = np.random.default_rng([seed, 99])
    opening = _open(rng, seed, config)
    first, stride = opening.first, opening.stride
    rendered = [opening.scene.frame(first + i * stride) for i in range(config.length)]
    frames = np.stack([f.image for f in rendered])
    masks = np.stack([f.masks[opening.targets] for f in rendered], axis=1)
    views = [opening.view] * config.length
    if opening.view_rng is not None:
        views = view_path(opening.view_rng, masks[0], opening.view, config.view_patience)
        frames, masks = see_through(views, frames, masks, config.size)
    shares = np.array([view.shares for view in views], np.float32)
    return _augment(rng, TrainingClip(frames, masks, shares))


@dataclass(frozen=True)
class _Opening:
    """A scene, its frame with which a clip starts, and the targets to click there in a view;
    without a `view_rng` the view is the whole image for ever.
    """

    scene: SyntheticScene
    first: int
    stride: int
    targets: NDArray[np.intp]
    view: View
    view_rng: np.random.Generator | None


def _open(rng: np.random.Generator, seed: int, config: ClipConfig) -> _Opening:
    stride = int(rng.integers(1, 4)) if config.length > 2 else int(rng.integers(4, 12))
    in_pieces = config.piece_rate > 0 and rng.random() < config.piece_rate
    zooms = config.zoom_rate > 0 and rng.random() < config.zoom_rate
    larger = zooms and rng.random() < LARGER_RATE
    size = config.size * 3 // 2 if larger else config.size
    view_rng = np.random.default_rng([seed, 98]) if zooms else None
    context = draw_context(view_rng) if view_rng else 0.0
    length = config.length * stride + 2
    if config.hide_rate <= HIDE_RATE:
        length = max(16, length + 2)
    for attempt in range(20):
        scene_config = random_scene_config(
            rng, size, length, config.hide_rate, config.part_rate, config.exit_share
        )
        speed = scene_config.speed / stride if config.even_speed else scene_config.speed
        scene_config = replace(scene_config, speed=speed, kinds=config.kinds)
        if in_pieces:
            scene_config = _cluttered(rng, scene_config)
        scene = SyntheticScene(seed * 20 + attempt, scene_config)
        first = int(rng.integers(0, length - config.length * stride + 1))
        start = scene.frame(first)
        count = 1 if view_rng else config.num_targets
        targets = _choose_targets(rng, start.masks, start.visibility, count, not in_pieces)
        view = View.whole((size, size))
        if targets is not None and view_rng is not None:
            lead = int(targets[0])
            targets, view = _choose_in_view(rng, view_rng, start, lead, config.num_targets, context)
        if targets is not None:
            return _Opening(scene, first, stride, targets, view, view_rng)
    raise RuntimeError(f"no scene with {config.num_targets} visible targets from seed {seed}")


def _choose_in_view(
    rng: np.random.Generator,
    view_rng: np.random.Generator,
    start: SceneFrame,
    lead: int,
    count: int,
    context: float,
) -> tuple[NDArray[np.intp] | None, View]:
    """A view around one object in which others can be clicked too, and all of them. If there are
    none even in a wide view, that object is all targets; None where it is lost in the image.
    """
    size = start.image.shape[0]
    box = tight_box(start.masks[lead])
    assert box is not None
    for widening in (1.0, 1.25, 1.25**2):
        view = look_at(view_rng, box, context * widening, size)
        others = _clickable(start, view)
        others = others[others != lead]
        if len(others) >= count - 1:
            return np.concatenate([[lead], rng.permutation(others)[: count - 1]]), view
    return (None if view.is_whole else np.repeat(lead, count)), view


def _clickable(start: SceneFrame, view: View) -> NDArray[np.intp]:
    """Objects most of which can be seen in a view, large enough for it."""
    pixels = np.count_nonzero(start.masks, axis=(1, 2))
    inside = np.count_nonzero(start.masks[(slice(None), *view.slices)], axis=(1, 2))
    large_enough = inside > LEAST_AREA_IN_VIEW * view.width * view.height
    in_view = inside > CLEARLY_IN_VIEW * pixels
    return np.flatnonzero(large_enough & in_view & (start.visibility > 0.4))


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


def _augment(rng: np.random.Generator, clip: TrainingClip) -> TrainingClip:
    frames, masks, views = clip.frames, clip.masks, clip.views
    if rng.random() < 0.5:
        frames, masks, views = frames[:, :, ::-1], masks[..., ::-1], views.copy()
        views[:, 0] = 1 - views[:, 0] - views[:, 2]
    if rng.random() < 0.2:
        gray = np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in np.ascontiguousarray(frames)])
        frames = np.repeat(gray[..., None], 3, axis=-1)
    contrast = float(rng.uniform(0.4, 1.1))
    if rng.random() < 0.4:
        frames = (frames * contrast + (1 - contrast) * rng.uniform(30, 200)).clip(0, 255)
    frames = np.ascontiguousarray(frames.astype(np.uint8))
    return TrainingClip(frames, np.ascontiguousarray(masks), views)


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
        return Clip(
            torch.from_numpy(np.stack([clip.frames for clip in clips])),
            torch.from_numpy(np.stack([clip.masks for clip in clips])),
            torch.from_numpy(np.stack([clip.views for clip in clips])),
        )

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
