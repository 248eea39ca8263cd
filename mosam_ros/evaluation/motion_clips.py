"""Clips on which motion forecasts are measured: masks from files, clean motion, a moving camera."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, TARGET, SceneConfig, SyntheticScene
from mosam_ros.synthetic.textures import random_outline

Masks = list[NDArray[np.bool_]]
Images = list[NDArray[np.uint8]]

VOID = 255
"""The palette id of pixels that belong to nobody."""

CLIP_FRAMES = 30
CLEAN_SIZE = (480, 854)


@dataclass(frozen=True)
class MotionClip:
    """One target's masks, and the images where there are any, in time order.

    Attributes:
        masks: (height, width) each.
        images: (height, width, 3) uint8 RGB each, or None.
    """

    masks: Masks
    images: Images | None = None


def read_label_images(folder: Path) -> Images:
    """The palette ids (height, width) of all PNG files in a folder, by name.

    Raises:
        FileNotFoundError: there are none.
    """
    paths = sorted(folder.glob("*.png"))
    if not paths:
        raise FileNotFoundError(f"there is no PNG file in {folder}")
    return [np.asarray(Image.open(path)) for path in paths]


def read_images(folder: Path) -> Images:
    """All PNG and JPEG images in a folder, by name, as RGB.

    Raises:
        FileNotFoundError: there are none.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not paths:
        raise FileNotFoundError(f"there is no PNG or JPEG image in {folder}")
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def object_clips(labels: Images, images: Images | None = None) -> Iterator[MotionClip]:
    """One clip per object id in label images.

    Raises:
        ValueError: the images are not as many as the label images.
    """
    if images is not None and len(images) != len(labels):
        raise ValueError(f"{len(images)} images do not go with {len(labels)} masks")
    ids = sorted({int(i) for label in labels for i in np.unique(label)} - {0, VOID})
    for object_id in ids:
        yield MotionClip([label == object_id for label in labels], images)


def clean_clip(kind: str, seed: int) -> MotionClip:
    """A silhouette that moves without noise, whole in the image all the time.

    Args:
        kind: one of `CLEAN_MOTIONS`.
        seed: of shape, size, place and motion.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in CLEAN_MOTIONS:
        raise ValueError(f"there is no motion {kind!r}: take one of {', '.join(CLEAN_MOTIONS)}")
    rng = np.random.default_rng([seed, 31])
    outline = random_outline(rng, 128)
    while True:
        centers, sizes = CLEAN_MOTIONS[kind](rng)
        half = sizes[:, None] / 2
        low, high = (centers - half).min(0), (centers + half).max(0)
        room = np.array(CLEAN_SIZE[::-1]) - (high - low)
        if (room > 0).all():
            break
    centers = centers + rng.uniform(0, room) - low
    return MotionClip([_draw(outline, c, s) for c, s in zip(centers, sizes, strict=True)])


def camera_clip(seed: int) -> MotionClip:
    """A rendered scene seen by a camera that swings: a window that travels over larger frames."""
    size = np.array([240, 320])
    margin = np.array([60, 80])
    height, width = size + 2 * margin
    config = SceneConfig(
        height=int(height), width=int(width), num_frames=CLIP_FRAMES, num_lookalikes=0, speed=0.01
    )
    rng = np.random.default_rng([seed, 57])
    rate, phase = rng.uniform(0.12, 0.3, 2), rng.uniform(0, 2 * np.pi, 2)
    swing = margin * rng.uniform(0.4, 1.0, 2)
    scene = SyntheticScene(FIRST_HELD_OUT_SEED + 700_000_000 + seed, config)
    masks, images = [], []
    for t in range(len(scene)):
        y, x = np.rint(margin + swing * np.sin(rate * t + phase)).astype(int)
        window = slice(y, y + size[0]), slice(x, x + size[1])
        frame = scene.frame(t)
        images.append(np.ascontiguousarray(frame.image[window]))
        masks.append(np.ascontiguousarray(frame.masks[TARGET][window]))
    return MotionClip(masks, images)


def _draw(
    outline: NDArray[np.float32], center: NDArray[np.float64], size: float
) -> NDArray[np.bool_]:
    """A silhouette of `size` pixels around `center` x, y."""
    scale = size / outline.shape[0]
    corner = center - size / 2
    place = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
    alpha = cv2.warpAffine(outline, place, CLEAN_SIZE[::-1], flags=cv2.INTER_LINEAR)
    return alpha > 0.5


Motion = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Centers (CLIP_FRAMES, 2) x, y and sizes (CLIP_FRAMES,), pixels."""


def _path(
    rng: np.random.Generator,
    speed: tuple[float, float],
    speed_factor: float = 1.0,
    turn: float = 0.0,
    growth: float = 1.0,
) -> Motion:
    """A path whose velocity is scaled and turned, and whose size is scaled, from frame to frame."""
    t = np.arange(CLIP_FRAMES)
    pace = rng.uniform(*speed) * speed_factor**t
    heading = rng.uniform(0, 2 * np.pi) + turn * t
    steps = pace[:, None] * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    return np.cumsum(steps, axis=0), rng.uniform(60, 110) * growth**t


def _scale_change(rng: np.random.Generator) -> Motion:
    centers, sizes = _path(rng, (6, 12), growth=rng.uniform(1.03, 1.05))
    return centers, sizes if rng.random() < 0.5 else sizes[::-1].copy()


CLEAN_MOTIONS: dict[str, Callable[[np.random.Generator], Motion]] = {
    "constant_velocity": lambda rng: _path(rng, (6, 14)),
    "acceleration": lambda rng: _path(rng, (4, 7), speed_factor=1.05),
    "turning": lambda rng: _path(rng, (8, 14), turn=0.12 * rng.choice([-1, 1])),
    "scale_change": _scale_change,
}
