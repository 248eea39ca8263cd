"""A scene in which one object follows another: where the first was, the second comes later."""

from __future__ import annotations

import numpy as np

from mosam_ros.synthetic.textures import random_background, random_texture

HEIGHT, WIDTH = 240, 320
RADIUS = 30
SPEED = 6
"""Pixels per frame, to the right."""

GAP_FRAMES = 15
"""Frames after which the second object is where the first one was."""

FIRST_START = 130
"""Column of the first object's center in frame 0."""

_rng = np.random.default_rng(5)
_BACKGROUND = random_background(_rng, WIDTH, 6)[:HEIGHT].astype(np.uint8) // 2 + 60
_TEXTURES = [random_texture(_rng, 2 * RADIUS + 1).astype(np.uint8) for _ in range(2)]


def center(which: int, index: int) -> tuple[int, int]:
    """x, y of object 0 or 1 in a frame, pixels."""
    return FIRST_START + SPEED * (index - GAP_FRAMES * which), HEIGHT // 2


def mask(which: int, index: int) -> np.ndarray:
    """(HEIGHT, WIDTH) bool: the object."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    column, row = center(which, index)
    return np.hypot(x - column, y - row) <= RADIUS


def frame(index: int) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) uint8 RGB."""
    image = _BACKGROUND.copy()
    for which, texture in enumerate(_TEXTURES):
        column, row = center(which, index)
        ys, xs = np.nonzero(mask(which, index))
        image[ys, xs] = texture[ys - row + RADIUS, xs - column + RADIUS]
    return image
