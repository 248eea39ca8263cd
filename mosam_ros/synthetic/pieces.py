"""Pieces of a picture that can stand for objects: without an edge of their own, as a reflection or
a thing on a cluttered table has none, so that only the prompt says what belongs to them.
"""

from __future__ import annotations

import cv2
import numpy as np

from mosam_ros.synthetic.textures import random_outline, random_wire

MARGIN = 0.12
"""Pieces start within the picture but for this share of it at every side."""

SHARES = (0.004, 0.2)
"""Smallest and largest share of a picture that one piece takes up."""

ATTEMPTS = 60


def random_pieces(rng: np.random.Generator, picture: np.ndarray, count: int) -> list[np.ndarray]:
    """Up to `count` pieces of a picture (size, size, 3): masks (size, size) bool that do not
    overlap. A third have an outline that the picture does not show, the others join one to four
    neighboring surfaces of one color.
    """
    pieces: list[np.ndarray] = []
    if not count:
        return pieces
    size = len(picture)
    colors = _color_classes(rng, picture)
    taken = np.zeros((size, size), bool)
    for _ in range(ATTEMPTS):
        place = rng.integers(int(size * MARGIN), int(size * (1 - MARGIN)), 2)
        hidden = rng.random() < 0.35
        piece = _outlined(rng, size, place) if hidden else _joined(rng, colors, place)
        piece &= ~taken
        if SHARES[0] < piece.mean() < SHARES[1]:
            taken |= piece
            pieces.append(piece)
        if len(pieces) == count:
            break
    return pieces


def _color_classes(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """(size, size) integers, equal where the smoothed colors are alike."""
    smooth = cv2.GaussianBlur(picture, (0, 0), rng.uniform(1, 4))
    lab = cv2.cvtColor(smooth, cv2.COLOR_RGB2LAB).astype(np.float32)
    step = rng.uniform(14, 50) * np.array([1.0, 0.6, 0.6])
    levels = ((lab + rng.uniform(0, 1, 3) * step) / step).astype(np.int64)
    return levels @ np.array([1, 1000, 1000_000])


def _outlined(rng: np.random.Generator, size: int, place: np.ndarray) -> np.ndarray:
    """A random outline around `place` (row, column)."""
    extent = int(size * rng.uniform(0.12, 0.4))
    outline = random_wire if rng.random() < 0.3 else random_outline
    top, left = np.clip(place - extent // 2, 0, size - extent)
    piece = np.zeros((size, size), bool)
    piece[top : top + extent, left : left + extent] = outline(rng, extent) > 0.5
    return piece


def _joined(rng: np.random.Generator, colors: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The surface at `place` (row, column) with up to three of its neighbors, smoothed."""
    piece = _surface(rng, colors, place)
    for _ in range(int(rng.integers(0, 4))):
        grown = cv2.dilate(piece.astype(np.uint8), np.ones((5, 5)))
        border = np.argwhere((grown > 0) & ~piece)
        if not len(border):
            break
        piece |= _surface(rng, colors, border[int(rng.integers(len(border)))])
    closed = cv2.morphologyEx(piece.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5)))
    return cv2.morphologyEx(closed, cv2.MORPH_OPEN, np.ones((3, 3))) > 0


def _surface(rng: np.random.Generator, colors: np.ndarray, place: np.ndarray) -> np.ndarray:
    """What hangs together with `place` (row, column) in its color, not far away."""
    row, column = map(int, place)
    near = np.zeros(colors.shape, np.uint8)
    reach = int(len(colors) * rng.uniform(0.1, 0.25))
    cv2.circle(near, (column, row), reach, 1, -1)
    _, parts = cv2.connectedComponents(near * (colors == colors[row, column]).astype(np.uint8))
    return parts == parts[row, column]
