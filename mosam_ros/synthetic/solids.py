"""Solid objects of blocks, plates and rods, seen from any side: what turns shows other faces of
another outline, as a chair does that is walked around.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

UP = 2
"""Which of x (to the right), y (away from the viewer) and z points up."""

REACH = 0.46
"""How far a solid reaches from the middle of its picture, as a share of the side."""

Halves = np.ndarray
"""(3,): half of a part's extents."""


@dataclass(frozen=True)
class _Face:
    """A flat convex face: `corners` (N, 3) in order, `normal` (3,), `surface` its texture."""

    corners: np.ndarray
    normal: np.ndarray
    surface: int

    @cached_property
    def frame(self) -> np.ndarray:
        """(3, 2): two directions in the face at right angles, of length 1."""
        along = self.corners[1] - self.corners[0]
        along = along / np.linalg.norm(along)
        return np.stack([along, np.cross(self.normal, along)], axis=1)


@dataclass(frozen=True)
class Solid:
    """A rigid object around the origin that reaches at most 1 from its upright axis and in height.

    Attributes:
        faces: all of them; those turned away are not drawn.
        surfaces: textures (side, side, 3) uint8, 1 unit wide.
        tilt: how far it is seen from above, in radians.
        light: (3,) where light comes from, of length 1.
        ambient: brightness, 0..1, of a face that the light does not reach.
    """

    faces: tuple[_Face, ...]
    surfaces: tuple[np.ndarray, ...]
    tilt: float
    light: np.ndarray
    ambient: float

    def view(self, yaw: float, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Picture (size, size, 3) uint8 and outline (size, size) in 0..1 when turned by `yaw`
        radians about its upright axis.
        """
        turn = _tilted(self.tilt) @ _turned(yaw)
        picture = np.zeros((size, size, 3), np.uint8)
        outline = np.zeros((size, size), np.uint8)
        shown = [face for face in self.faces if (turn @ face.normal)[1] < -1e-3]
        for face in sorted(shown, key=lambda f: -(turn @ f.corners.mean(0))[1]):
            self._draw(face, turn, picture, outline)
        return picture, outline.astype(np.float32) / 255

    def _draw(
        self, face: _Face, turn: np.ndarray, picture: np.ndarray, outline: np.ndarray
    ) -> None:
        size = len(picture)
        project = np.stack([turn[0], -turn[UP]]) * size * REACH
        corners = face.corners @ project.T + size / 2
        first = np.floor(corners.min(0)).astype(int) - 1
        width, height = np.ceil(corners.max(0)).astype(int) + 2 - first
        region = slice(first[1], first[1] + height), slice(first[0], first[0] + width)
        corners = corners - first
        covered = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(covered, np.round(corners * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
        texture = self.surfaces[face.surface]
        to_picture = np.hstack([project @ face.frame / len(texture), corners[:1].T])
        painted = cv2.warpAffine(
            texture, to_picture, (width, height), borderMode=cv2.BORDER_REFLECT_101
        )
        lit = max(0.0, float(turn @ face.normal @ self.light))
        bright = self.ambient + (1 - self.ambient) * lit
        shown = covered > 0
        picture[region][shown] = cv2.convertScaleAbs(painted, alpha=bright)[shown]
        np.maximum(outline[region], covered, out=outline[region])


def random_solid(rng: np.random.Generator, surfaces: list[np.ndarray]) -> Solid:
    """Two to eight parts that grow from one another, often on a foot of rods, with the textures
    `surfaces` (side, side, 3) uint8.
    """
    parts = [(np.zeros(3), _random_halves(rng, int(rng.integers(3))))]
    for _ in range(int(rng.integers(1, 7))):
        parts.append(_attached(rng, *parts[int(rng.integers(len(parts)))]))
    faces: list[_Face] = []
    for center, halves in parts:
        faces += _random_prism(rng, center, halves, int(rng.integers(len(surfaces))))
    if rng.random() < 0.4:
        faces += _foot(rng, parts, int(rng.integers(len(surfaces))))
    if rng.random() < 0.3:
        lying = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        lying *= np.sign(np.linalg.det(lying))
        faces = [_Face(f.corners @ lying.T, lying @ f.normal, f.surface) for f in faces]
    light = rng.normal(size=3) * (1, 0.5, 0.5) + (0, -0.7, 0.7)
    return Solid(
        faces=_fitted(faces),
        surfaces=tuple(surfaces),
        tilt=float(rng.uniform(-0.05, 0.5)),
        light=light / np.linalg.norm(light),
        ambient=float(rng.uniform(0.35, 0.9)),
    )


def _turned(yaw: float) -> np.ndarray:
    cosine, sine = np.cos(yaw), np.sin(yaw)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _tilted(tilt: float) -> np.ndarray:
    """Look down by `tilt`: what is near comes down in the picture."""
    cosine, sine = np.cos(tilt), np.sin(tilt)
    return np.array([[1.0, 0.0, 0.0], [0.0, cosine, -sine], [0.0, sine, cosine]])


def _random_halves(rng: np.random.Generator, axis: int) -> Halves:
    """Of a block, a plate across `axis` or a rod along it."""
    kind = rng.choice(["block", "plate", "rod"], p=[0.3, 0.4, 0.3])
    thin = rng.uniform(0.02, 0.07, 3)
    wide = rng.uniform(0.15, 0.5, 3)
    along = np.arange(3) == axis
    if kind == "block":
        return 0.7 * wide
    return np.where(along, thin, wide) if kind == "plate" else np.where(along, wide, thin)


def _attached(
    rng: np.random.Generator, center: np.ndarray, halves: Halves
) -> tuple[np.ndarray, Halves]:
    """Center and halves of a part that touches the given one at any of its sides."""
    axis = int(rng.integers(3))
    grown = _random_halves(rng, axis if rng.random() < 0.6 else int(rng.integers(3)))
    offset = rng.uniform(-1, 1, 3) * halves
    offset[axis] = rng.choice([-1, 1]) * (halves[axis] + grown[axis])
    return center + offset, grown


def _random_prism(
    rng: np.random.Generator, center: np.ndarray, halves: Halves, surface: int
) -> list[_Face]:
    """A box, or a column with more sides, that fills the given extents."""
    axis = int(rng.integers(3))
    sides = 4 if rng.random() < 0.7 else int(rng.integers(6, 11))
    return _prism(center, halves, surface, axis, sides)


def _prism(
    center: np.ndarray, halves: Halves, surface: int, axis: int = UP, sides: int = 4
) -> list[_Face]:
    """A column along `axis` that fills the given extents."""
    angles = (np.arange(sides) + 0.5) * 2 * np.pi / sides
    ring = np.stack([np.cos(angles), np.sin(angles)], -1)
    ring /= np.abs(ring).max(0)
    first, second = (axis + 1) % 3, (axis + 2) % 3
    low = np.zeros((sides, 3))
    low[:, first], low[:, second] = ring[:, 0] * halves[first], ring[:, 1] * halves[second]
    high = low.copy()
    low[:, axis], high[:, axis] = -halves[axis], halves[axis]
    following = np.roll(np.arange(sides), -1)
    around = np.stack([low, low[following], high[following], high], axis=1)
    return [_face(outline, center, surface) for outline in (low, high, *around)]


def _face(outline: np.ndarray, center: np.ndarray, surface: int) -> _Face:
    """The face of a convex part around the origin, moved to `center`."""
    normal = np.cross(outline[1] - outline[0], outline[2] - outline[1])
    normal = normal / np.linalg.norm(normal)
    outwards = normal if normal @ outline.mean(0) > 0 else -normal
    return _Face(outline + center, outwards, surface)


def _foot(
    rng: np.random.Generator, parts: list[tuple[np.ndarray, Halves]], surface: int
) -> list[_Face]:
    """Three to six rods that spread from below the lowest part, on a post or straight from it."""
    center, halves = min(parts, key=lambda p: p[0][UP] - p[1][UP])
    post = np.array([*rng.uniform(0.02, 0.05, 2), rng.uniform(0.0, 0.3) + 0.02])
    top = center - (0, 0, halves[UP] + post[UP])
    faces = _random_prism(rng, top, post, surface)
    count, first = int(rng.integers(3, 7)), rng.uniform(0, 2 * np.pi)
    reach, drop = rng.uniform(0.2, 0.5), rng.uniform(-0.6, 0.1)
    rod = np.array([reach / 2, *rng.uniform(0.02, 0.04, 2)])
    for i in range(count):
        faces += _spoke(
            rng, rod, first + i * 2 * np.pi / count, drop, top - (0, 0, post[UP]), surface
        )
    return faces


def _spoke(
    rng: np.random.Generator,
    rod: Halves,
    yaw: float,
    drop: float,
    hub: np.ndarray,
    surface: int,
) -> list[_Face]:
    """A rod from `hub` in the direction `yaw`, downwards by `drop` radians."""
    cosine, sine = np.cos(drop), np.sin(drop)
    turn = _turned(yaw) @ np.array([[cosine, 0, -sine], [0, 1, 0], [sine, 0, cosine]])
    straight = _random_prism(rng, np.array([rod[0], 0.0, 0.0]), rod, surface)
    return [_Face(f.corners @ turn.T + hub, turn @ f.normal, f.surface) for f in straight]


def _fitted(faces: list[_Face]) -> tuple[_Face, ...]:
    """Moved to the origin and scaled so that no view of it is cut."""
    points = np.concatenate([f.corners for f in faces])
    middle = (points.min(0) + points.max(0)) / 2
    scale = np.linalg.norm(points - middle, axis=1).max()
    return tuple(_Face((f.corners - middle) / scale, f.normal, f.surface) for f in faces)
