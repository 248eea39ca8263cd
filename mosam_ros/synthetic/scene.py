"""Procedural video with ground truth: a target, distractors, look-alikes, occluders, a camera.

A scene is a pure function of its seed and its configuration: every frame can be asked for in any
order and is the same each time. Positions are fractions of the image, times are frame indices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from mosam_ros.synthetic.pieces import random_pieces
from mosam_ros.synthetic.solids import Solid, random_solid
from mosam_ros.synthetic.textures import (
    random_background,
    random_compound,
    random_leaves,
    random_outline,
    random_texture,
    random_wire,
)

SPRITE_SIZE = 128
"""Side of the square on which every object's surface and outline are drawn, in texels."""

SOLID_SCALE = 1.4
"""How much larger the picture of a solid object is: it turns in it and fills less of it."""

OPACITIES = (0.2, 0.7)
"""Least and most opaque of the translucent objects."""

TARGET = 0
"""Row of the target in `SceneFrame.masks`."""

VISIBLE_PIXELS = 20
"""An object with fewer visible pixels does not count as visible; one with none is hidden."""

_BACKGROUND, _OCCLUDER = -1, -2
"""What a pixel shows that shows no object."""

FIRST_HELD_OUT_SEED = 1_000_000_000
"""Scenes with seeds from here on are never trained on: for validation, tests, demo, benchmarks."""


@dataclass(frozen=True)
class ObjectKinds:
    """What share of the objects, 0..1, is hard to make out.

    Attributes:
        solid: of blocks, plates and rods that turn in space and show their other sides.
        compound: of the others, made of parts with surfaces of their own.
        wiry: of those that are neither, made of strokes, thick and thin.
        camouflaged: of those that are not compound, and of the panels before them, with a surface
            cut from the backdrop.
        translucent: of all, letting what is behind them show through, as a reflection in glass.
        turning: of the flat ones, turning about their upright axis: they get narrower and wider,
            and what is in front moves to the side against what is behind.
    """

    solid: float = 0.0
    compound: float = 0.0
    wiry: float = 0.0
    camouflaged: float = 0.0
    translucent: float = 0.0
    turning: float = 0.0


@dataclass(frozen=True)
class SceneConfig:
    """What happens in a scene. Lengths and speeds are fractions of the shorter image side.

    Attributes:
        height, width: image size in pixels.
        num_frames: length of the video; occlusions and exits are planned within it.
        lead_in: frames at the start in which no object moves (time to click).
        num_objects: the target and its distractors.
        num_lookalikes: how many of the distractors look like the target.
        kinds: what share of the objects is hard to make out.
        size: smallest and largest diameter of an object.
        speed: mean travel per frame of the objects.
        spin: largest rotation per frame in radians.
        scale_change: how far an object's scale strays from 1 (0.3: between 0.77 and 1.3).
        deformation: amplitude of the bending of an object, as a fraction of its size.
        camera_motion: mean travel per frame of the camera.
        full_occlusions, partial_occlusions: how often an occluder hides (half of) the target.
        exits: how often the target leaves the image and comes back.
        passing_panels: how many large panels cross the image somewhere and hide what they pass.
        hidden_frames: shortest and longest time that the target is hidden or away.
        clutter: shapes painted on the background.
        leaves: sharp shapes of all sizes that the background and half of the other surfaces are of
            instead, if there are any.
        num_pieces: at most so many pieces of the background count as objects after the others: they
            move as it does and only the first mask says where they end.
        blur: largest sigma of the blur in pixels at 256 px.
        light_change: amplitude of the slow brightness change, as a fraction.
        noise: largest standard deviation of the sensor noise in gray levels.
    """

    height: int = 256
    width: int = 256
    num_frames: int = 40
    lead_in: int = 0
    num_objects: int = 3
    num_lookalikes: int = 1
    kinds: ObjectKinds = ObjectKinds()
    size: tuple[float, float] = (0.18, 0.42)
    speed: float = 0.015
    spin: float = 0.03
    scale_change: float = 0.25
    deformation: float = 0.05
    camera_motion: float = 0.004
    full_occlusions: int = 0
    partial_occlusions: int = 0
    exits: int = 0
    passing_panels: int = 0
    hidden_frames: tuple[int, int] = (6, 12)
    clutter: int = 8
    leaves: int = 0
    num_pieces: int = 0
    blur: float = 0.8
    light_change: float = 0.15
    noise: float = 6.0


_TYPICAL = SceneConfig(size=(0.22, 0.42), speed=0.0045, camera_motion=0.002)
"""Speeds as at some 30 frames per second: a target goes an eighth of the image in a second."""

SCENARIOS: dict[str, SceneConfig] = {
    "easy": replace(_TYPICAL, num_objects=2, num_lookalikes=0, speed=0.004, clutter=4),
    "fast": replace(_TYPICAL, num_lookalikes=0, speed=0.012, camera_motion=0.005),
    "deforming": replace(_TYPICAL, num_lookalikes=0, deformation=0.12, scale_change=0.5, spin=0.08),
    "lookalikes": replace(_TYPICAL, num_objects=4, num_lookalikes=3),
    "partial_occlusion": replace(_TYPICAL, partial_occlusions=2),
    "full_occlusion": replace(_TYPICAL, full_occlusions=1),
    "exit_reentry": replace(_TYPICAL, exits=1, speed=0.006),
}
"""The named scenarios of validation; the caller sets the image size."""

SUITE = (
    "easy",
    "lookalikes",
    "full_occlusion",
    "fast",
    "partial_occlusion",
    "lookalikes",
    "exit_reentry",
    "deforming",
)
"""The scenarios in the order of validation's clips: a quarter has look-alikes, a quarter hides."""


@dataclass(frozen=True)
class SceneFrame:
    """One rendered frame with its ground truth.

    Attributes:
        image: (height, width, 3) uint8 RGB.
        masks: (N, height, width) bool, the visible pixels of each object and then of each piece of
            the background; row 0 is the target.
        visibility: (N,) float32, visible pixels over the pixels of the whole object,
            parts outside the image included; 0 is hidden.
    """

    image: np.ndarray
    masks: np.ndarray
    visibility: np.ndarray


@dataclass(frozen=True)
class _Track:
    """A smooth path through `knots` (K, 2), one every `interval` frames, starting at `lead_in`."""

    knots: np.ndarray
    interval: float
    lead_in: int

    def __call__(self, t: float) -> np.ndarray:
        s = np.clip((t - self.lead_in) / self.interval, 0, len(self.knots) - 2 - 1e-6)
        i = int(s)
        u = s - i
        p0 = self.knots[max(i - 1, 0)]
        p1, p2 = self.knots[i], self.knots[i + 1]
        p3 = self.knots[min(i + 2, len(self.knots) - 1)]
        return 0.5 * (
            2 * p1
            + (p2 - p0) * u
            + (2 * p0 - 5 * p1 + 4 * p2 - p3) * u**2
            + (3 * p1 - p0 - 3 * p2 + p3) * u**3
        )


@dataclass(frozen=True)
class _Wave:
    """A sinusoid in time with its start subtracted: value 0 at `lead_in`, still before it."""

    amplitude: float
    frequency: float
    phase: float
    lead_in: int = 0

    def __call__(self, t: float) -> float:
        start = np.sin(self.phase)
        t = max(t - self.lead_in, 0.0)
        return self.amplitude * float(np.sin(self.frequency * t + self.phase) - start)


@dataclass(frozen=True)
class _Turn:
    """What turning about the upright axis does to a sprite: `log_width` narrows and widens it, and
    `shift` moves its levels, waves of `frequency` along its height, to the side.
    """

    log_width: _Wave
    shift: _Wave
    frequency: float
    phase: float


@dataclass(frozen=True)
class _Body:
    """A solid object and how far it is turned, in radians, at a time."""

    solid: Solid
    start: float
    turn: _Wave

    def view(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Texture and outline at time t."""
        return self.solid.view(self.start + self.turn(t), SPRITE_SIZE)


@dataclass(frozen=True)
class _Layer:
    """One moving, bending sprite. `diameter` is in pixels, `track` in fractions of the image."""

    texture: np.ndarray
    alpha: np.ndarray
    diameter: float
    stretch: tuple[float, float]
    track: _Track
    angle: _Wave
    log_scale: _Wave
    bend: _Wave
    bend_frequency: float
    opacity: float = 1.0
    turn: _Turn | None = None
    body: _Body | None = None

    def sprite(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Texture and outline at time t."""
        return self.body.view(t) if self.body else (self.texture, self.alpha)

    @property
    def margin(self) -> float:
        """Side of the square around the sprite that it can reach into, its own being 1."""
        return 1.2 + (4 * self.turn.shift.amplitude if self.turn else 0.0)

    def affine(self, t: float, image_size: tuple[int, int]) -> np.ndarray:
        """(2, 3) map from sprite coordinates (-0.5..0.5) to image pixels at time t."""
        height, width = image_size
        center = self.track(t) * (width, height)
        scale = self.diameter * np.exp(self.log_scale(t))
        angle = self.angle(t)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = rotation @ np.diag(self.stretch) * scale
        if self.turn:
            matrix[:, 0] *= np.exp(self.turn.log_width(t))
        return np.hstack([matrix, center[:, None]]).astype(np.float32)

    def displacement(self, v: np.ndarray, t: float) -> np.ndarray:
        """Bending at sprite coordinates v (..., 2): the offset to the surface point shown there."""
        amplitude = np.float32(self.bend(t))
        offset = amplitude * np.sin(np.float32(self.bend_frequency) * v[..., ::-1])
        if self.turn:
            level = np.float32(self.turn.frequency) * v[..., 1] + np.float32(self.turn.phase)
            offset[..., 0] += np.float32(self.turn.shift(t)) * np.sin(level)
        return offset

    def surface_points(self, pixels: np.ndarray, t: float, image_size: tuple[int, int]):
        """Surface coordinates (..., 2) seen at image pixels (..., 2) at time t."""
        v = _apply(_invert(self.affine(t, image_size)), pixels)
        return v + self.displacement(v, t)

    def image_points(self, surface: np.ndarray, t: float, image_size: tuple[int, int]):
        """Inverse of `surface_points`, by fixed-point iteration (the bending is a contraction)."""
        v = surface
        for _ in range(8):
            v = surface - self.displacement(v, t)
        return _apply(self.affine(t, image_size), v)


def _apply(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    x, y = points[..., 0], points[..., 1]
    (a, b, c), (d, e, f) = affine
    return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)


def _happens(rng: np.random.Generator, share: float) -> bool:
    """Draw with this probability; nothing is drawn at 0, so that old scenes stay as they are."""
    return share > 0 and rng.random() < share


def _invert(affine: np.ndarray) -> np.ndarray:
    return cv2.invertAffineTransform(affine)


class SyntheticScene:
    """A video that is computed, with everything about it known.

    Args:
        seed: any non-negative integer; the same seed gives the same video.
        config: what happens in it.
    """

    def __init__(self, seed: int, config: SceneConfig | None = None) -> None:
        self.seed = seed
        self.config = config = config or SceneConfig()
        rng = np.random.default_rng([seed, 2024])
        self._short_side = min(config.height, config.width)
        self._background = self._make_background(rng)
        self._camera = self._make_track(rng, np.zeros(2), config.camera_motion, limit=0.12)
        self._zoom = _Wave(rng.uniform(0, 0.06), rng.uniform(0.02, 0.08), rng.uniform(0, 6))
        objects = self._make_objects(rng)
        occluders = self._make_occluders(rng, objects[TARGET]) + self._make_panels(rng)
        order = rng.permutation(len(objects))
        self._objects = objects
        self._layers = [(int(i), objects[i]) for i in order] + [(_OCCLUDER, o) for o in occluders]
        self._light = _Wave(config.light_change, rng.uniform(0.05, 0.3), rng.uniform(0, 6))
        self._blur = rng.uniform(0, config.blur) * self._short_side / 256
        self._noise = rng.uniform(0, config.noise)
        self._pieces = random_pieces(rng, self._background, config.num_pieces)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.config.height, self.config.width

    def __len__(self) -> int:
        return self.config.num_frames

    def frame(self, t: int) -> SceneFrame:
        """Render frame `t` (0 … num_frames - 1)."""
        image, owner, areas = self._composite(t)
        masks = np.stack([owner == i for i in range(len(self._objects))])
        if self._pieces:
            pieces, piece_areas = self._show_pieces(t)
            masks = np.concatenate([masks, pieces & (owner == _BACKGROUND)])
            areas = np.concatenate([areas, piece_areas])
        visible = masks.reshape(len(masks), -1).sum(1)
        visibility = (visible / np.maximum(areas, 1.0)).clip(0, 1).astype(np.float32)
        return SceneFrame(self._expose(image, t), masks, visibility)

    def _show_pieces(self, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Where the pieces of the background are, covered or not, and their whole areas."""
        affine = self._camera_affine(t)
        size = self.image_size[::-1]
        shown = [cv2.warpAffine(p.astype(np.float32), affine, size) > 0.5 for p in self._pieces]
        areas = [p.sum() * np.linalg.det(affine[:, :2]) for p in self._pieces]
        return np.stack(shown), np.array(areas)

    def flow(self, t: int) -> np.ndarray:
        """Dense optical flow from frame t to t + 1: (height, width, 2) float32, pixels (dx, dy).

        Where a surface point is covered at t + 1 the flow still says where it went.

        Raises:
            ValueError: there are solid objects, whose surface points come and go.
        """
        if any(layer.body for layer in self._objects):
            raise ValueError("no flow is known of solid objects: take scenes without them")
        pixels = self._pixel_grid
        flow = _apply(self._camera_affine(t + 1), _apply(_invert(self._camera_affine(t)), pixels))
        flow -= pixels
        _, _, _, parts = self._render_layers(t)
        for layer, region, alpha in parts:
            at = pixels[region]
            moved = layer.image_points(
                layer.surface_points(at, t, self.image_size), t + 1, self.image_size
            )
            flow[region] = np.where((alpha > 0.5)[..., None], moved - at, flow[region])
        return flow

    @cached_property
    def _pixel_grid(self) -> np.ndarray:
        y, x = np.mgrid[0 : self.config.height, 0 : self.config.width].astype(np.float32)
        return np.stack([x, y], axis=-1)

    @cached_property
    def _grain(self) -> np.ndarray:
        rng = np.random.default_rng([self.seed, 7])
        shape = (self.config.height + 64, self.config.width + 64, 3)
        return (rng.standard_normal(shape, dtype=np.float32) * self._noise).astype(np.int16)

    def _composite(self, t: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        image, owner, areas, _ = self._render_layers(t)
        return image, owner, areas

    def _render_layers(self, t: float):
        height, width = self.image_size
        image = cv2.warpAffine(
            self._background,
            self._camera_affine(t),
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )
        owner = np.full((height, width), _BACKGROUND, np.int8)
        areas = np.zeros(len(self._objects))
        parts = []
        for index, layer in self._layers:
            affine = layer.affine(t, self.image_size)
            texture, outline = layer.sprite(t)
            if index >= 0:
                texels = SPRITE_SIZE**2
                areas[index] = abs(np.linalg.det(affine[:, :2])) * (outline.sum() / texels)
            region = self._region(affine, layer.margin)
            if region is None:
                continue
            surface = layer.surface_points(self._pixel_grid[region], t, self.image_size)
            texels = (surface + 0.5) * SPRITE_SIZE - 0.5
            texels = texels.astype(np.float32)
            alpha = cv2.remap(outline, texels, None, cv2.INTER_LINEAR, borderValue=0)
            color = cv2.remap(
                texture, texels, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            patch = image[region]
            blend = layer.opacity * alpha[..., None]
            patch[...] = (patch + (color.astype(np.float32) - patch) * blend).astype(np.uint8)
            owner[region][alpha > 0.5] = index
            parts.append((layer, region, alpha))
        return image, owner, areas, parts

    def _region(self, affine: np.ndarray, margin: float) -> tuple[slice, slice] | None:
        """Rows and columns of the image that a sprite can touch, or None where it is outside."""
        height, width = self.image_size
        half = 0.5 * np.abs(affine[:, :2]).sum(1) * margin
        left, top = np.floor(affine[:, 2] - half).astype(int)
        right, bottom = np.ceil(affine[:, 2] + half).astype(int) + 1
        left, top = max(left, 0), max(top, 0)
        right, bottom = min(right, width), min(bottom, height)
        if left >= right or top >= bottom:
            return None
        return slice(top, bottom), slice(left, right)

    def _expose(self, image: np.ndarray, t: int) -> np.ndarray:
        if self._blur > 0.3:
            image = cv2.GaussianBlur(image, (0, 0), self._blur)
        gain = 1.0 + self._light(t)
        image = cv2.convertScaleAbs(image, alpha=gain)
        if self._noise < 0.5:
            return image
        dy, dx = np.random.default_rng([self.seed, 11, t]).integers(0, 64, 2)
        height, width = self.image_size
        grain = self._grain[dy : dy + height, dx : dx + width]
        return cv2.add(image, grain, dtype=cv2.CV_8U)

    def _make_background(self, rng: np.random.Generator) -> np.ndarray:
        extent = int(max(self.image_size) * 1.3)
        if self.config.leaves:
            return random_leaves(rng, extent, self.config.leaves)
        side = int(self._short_side * 0.75)
        image = random_background(rng, side, self.config.clutter)
        return cv2.resize(image, (extent, extent), interpolation=cv2.INTER_CUBIC)

    def _make_surface(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Texture and outline of an object."""
        if _happens(rng, self.config.kinds.compound):
            return random_compound(rng, SPRITE_SIZE)
        outline = random_wire if _happens(rng, self.config.kinds.wiry) else random_outline
        return self._make_texture(rng), outline(rng, SPRITE_SIZE)

    def _make_texture(self, rng: np.random.Generator) -> np.ndarray:
        if _happens(rng, self.config.kinds.camouflaged):
            return self._cut_texture(rng)
        leaves = self.config.leaves
        if leaves and rng.random() < 0.5:
            return random_leaves(rng, SPRITE_SIZE, max(8, leaves // 6))
        return random_texture(rng, SPRITE_SIZE)

    def _make_plain(self, rng: np.random.Generator) -> np.ndarray:
        """A surface of one color that is not far from the backdrop's."""
        color = self._background.mean((0, 1)) + rng.normal(0, 45) + rng.normal(0, 12, 3)
        plain = np.empty((SPRITE_SIZE, SPRITE_SIZE, 3), np.uint8)
        plain[:] = color.clip(0, 255)
        return plain

    def _cut_texture(self, rng: np.random.Generator) -> np.ndarray:
        """A piece of the backdrop."""
        side = min(SPRITE_SIZE, len(self._background))
        left, top = rng.integers(0, len(self._background) - side + 1, 2)
        piece = self._background[top : top + side, left : left + side]
        return cv2.resize(piece, (SPRITE_SIZE, SPRITE_SIZE))

    def _camera_affine(self, t: float) -> np.ndarray:
        height, width = self.image_size
        extent = self._background.shape[0]
        scale = np.exp(self._zoom(t))
        shift = self._camera(t) * self._short_side
        offset = np.array([width, height]) / 2 - scale * extent / 2 + shift
        return np.array([[scale, 0, offset[0]], [0, scale, offset[1]]], np.float32)

    def _make_track(
        self, rng: np.random.Generator, start: np.ndarray, speed: float, limit: float | None = None
    ) -> _Track:
        """A wandering path from `start`, within ± `limit` of 0, or in view if None."""
        config = self.config
        interval = float(rng.uniform(7, 14))
        count = int(np.ceil(config.num_frames / interval)) + 3
        low, high = (-limit, limit) if limit is not None else (0.12, 0.88)
        knots = [np.asarray(start, float)]
        heading = rng.uniform(0, 2 * np.pi)
        aspect = self._short_side / np.array([config.width, config.height])
        for _ in range(count - 1):
            heading += rng.normal(0, 0.9)
            step = speed * interval * rng.uniform(0.4, 1.6)
            following = knots[-1] + step * aspect * (np.cos(heading), np.sin(heading))
            if np.any(following < low) or np.any(following > high):
                inwards = (low + high) / 2 - knots[-1]
                heading = float(np.arctan2(inwards[1], inwards[0]) + rng.normal(0, 0.5))
                following = knots[-1] + step * aspect * (np.cos(heading), np.sin(heading))
            knots.append(np.clip(following, low, high))
        return _Track(np.array(knots), interval, config.lead_in)

    def _make_objects(self, rng: np.random.Generator) -> list[_Layer]:
        config = self.config
        target = self._make_object(rng, rng.uniform(0.25, 0.75, 2))
        layers = [self._with_exits(rng, target)]
        starts = [target.track(0)]
        for index in range(1, config.num_objects):
            start = self._free_start(rng, starts)
            starts.append(start)
            layer = self._make_object(rng, start)
            if index <= config.num_lookalikes:
                layer = self._look_like(rng, layer, target)
            layers.append(layer)
        return layers

    def _look_like(self, rng: np.random.Generator, layer: _Layer, target: _Layer) -> _Layer:
        """The layer with the target's surface and size, often with its outline too."""
        layer = replace(
            layer, texture=target.texture, diameter=target.diameter, opacity=target.opacity
        )
        if target.body:
            body = replace(target.body, start=float(rng.uniform(0, 2 * np.pi)))
            return replace(layer, body=body, bend=target.bend, turn=None, stretch=target.stretch)
        # The surface of a compound object fits no other outline.
        if self.config.kinds.compound or layer.body or rng.random() < 0.5:
            layer = replace(layer, alpha=target.alpha, stretch=target.stretch)
        return replace(layer, body=None)

    @staticmethod
    def _free_start(rng: np.random.Generator, taken: list[np.ndarray]) -> np.ndarray:
        """Of a few random places in view the one that is farthest from those taken."""
        places = rng.uniform(0.12, 0.88, (8, 2))
        distances = np.linalg.norm(places[:, None] - np.array(taken)[None], axis=-1).min(1)
        return places[int(distances.argmax())]

    def _make_object(self, rng: np.random.Generator, start: np.ndarray) -> _Layer:
        config = self.config
        lead_in = config.lead_in
        wave = rng.uniform(0.05, 0.25)
        spin_frequency = rng.uniform(0.02, 0.1)
        body = self._make_body(rng) if _happens(rng, config.kinds.solid) else None
        texture, alpha = body.view(lead_in) if body else self._make_surface(rng)
        bending = 0.0 if body else config.deformation / 2
        fill = SOLID_SCALE if body else 1.0
        speed = 0.0 if body and rng.random() < 0.5 else config.speed
        return _Layer(
            texture=texture,
            alpha=alpha,
            diameter=float(rng.uniform(*config.size)) * self._short_side * fill,
            stretch=(1.0, float(rng.uniform(0.75, 1.0))),
            track=self._make_track(rng, start, speed * rng.uniform(0.6, 1.4)),
            angle=_Wave(
                rng.uniform(0, config.spin) / spin_frequency,
                spin_frequency,
                rng.uniform(0, 6),
                lead_in,
            ),
            log_scale=_Wave(
                np.log1p(config.scale_change) / 2 * rng.uniform(0.3, 1),
                wave,
                rng.uniform(0, 6),
                lead_in,
            ),
            bend=_Wave(bending, rng.uniform(0.1, 0.5), rng.uniform(0, 6), lead_in),
            bend_frequency=float(rng.uniform(4, 7)),
            opacity=rng.uniform(*OPACITIES) if _happens(rng, config.kinds.translucent) else 1.0,
            turn=None if body or not _happens(rng, config.kinds.turning) else self._make_turn(rng),
            body=body,
        )

    def _make_body(self, rng: np.random.Generator) -> _Body:
        """A solid object of one to three surfaces, often plain ones, that turns to and fro."""
        make_surface = self._make_plain if rng.random() < 0.4 else self._make_texture
        surfaces = [make_surface(rng) for _ in range(int(rng.integers(1, 4)))]
        reach = rng.uniform(0.3, 2.5)
        speed = rng.uniform(0.01, 0.12)
        turn = _Wave(reach, speed / reach, rng.uniform(0, 6), self.config.lead_in)
        return _Body(random_solid(rng, surfaces), float(rng.uniform(0, 2 * np.pi)), turn)

    def _make_turn(self, rng: np.random.Generator) -> _Turn:
        speed = rng.uniform(0.04, 0.3)
        lead_in = self.config.lead_in
        return _Turn(
            log_width=_Wave(rng.uniform(0.05, 0.35), speed, rng.uniform(0, 6), lead_in),
            shift=_Wave(rng.uniform(0.03, 0.18), speed, rng.uniform(0, 6), lead_in),
            frequency=float(rng.uniform(3, 8)),
            phase=float(rng.uniform(0, 6)),
        )

    def _windows(self, rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
        """`count` time spans (middle, half length), spread evenly, none in the first frames."""
        config = self.config
        first = config.lead_in + 0.2 * (config.num_frames - config.lead_in)
        edges = np.linspace(first, config.num_frames - 2, count + 1)
        spans = []
        for begin, end in zip(edges[:-1], edges[1:], strict=True):
            half = rng.uniform(*config.hidden_frames) / 2
            middle = rng.uniform(begin + half, max(end - half, begin + half + 1e-3))
            spans.append((float(middle), float(half)))
        return spans

    def _with_exits(self, rng: np.random.Generator, layer: _Layer) -> _Layer:
        if not self.config.exits:
            return layer
        track = layer.track
        knots = track.knots.copy()
        margin = layer.diameter / np.array([self.config.width, self.config.height])
        for middle, _ in self._windows(rng, self.config.exits):
            index = int(round((middle - track.lead_in) / track.interval))
            index = int(np.clip(index, 1, len(knots) - 2))
            axis = int(rng.integers(2))
            outside = -margin[axis] if knots[index, axis] < 0.5 else 1 + margin[axis]
            knots[index, axis] = outside
        return replace(layer, track=replace(track, knots=knots))

    def _make_occluders(self, rng: np.random.Generator, target: _Layer) -> list[_Layer]:
        config = self.config
        count = config.full_occlusions + config.partial_occlusions
        spans = self._windows(rng, count)
        full = rng.permutation(count) < config.full_occlusions
        return [
            self._make_occluder(rng, target, middle, half, bool(hides))
            for (middle, half), hides in zip(spans, full, strict=True)
        ]

    def _make_occluder(
        self, rng: np.random.Generator, target: _Layer, middle: float, half: float, hides: bool
    ) -> _Layer:
        """A panel that crosses the target's path around `middle`.

        It stands over the place where the target is then, as wide as the target's way during the
        time it is to be hidden, and slides in from the side and out again.
        """
        config = self.config
        size = np.array([config.width, config.height])
        times = np.linspace(middle - half, middle + half, 7)
        path = np.array([target.track(t) for t in times])
        center = (path.min(0) + path.max(0)) / 2
        reach = np.exp(max(target.log_scale(t) for t in times)) * target.diameter * 1.1
        extent = np.ptp(path, axis=0) * size + reach
        if not hides:
            axis = int(rng.integers(2))
            extent[axis] *= 0.5
            center[axis] += rng.choice([-0.3, 0.3]) * extent[axis] / size[axis]
        return self._make_panel(rng, center, extent, middle, half)

    def _make_panels(self, rng: np.random.Generator) -> list[_Layer]:
        config = self.config
        size = np.array([config.width, config.height])
        return [
            self._make_panel(
                rng,
                center=rng.uniform(0.15, 0.85, 2),
                extent=rng.uniform(0.25, 0.75, 2) * size,
                middle=float(rng.uniform(0.2, 1.0)) * config.num_frames,
                half=float(rng.uniform(*config.hidden_frames)) / 2,
            )
            for _ in range(config.passing_panels)
        ]

    def _make_panel(
        self,
        rng: np.random.Generator,
        center: np.ndarray,
        extent: np.ndarray,
        middle: float,
        half: float,
    ) -> _Layer:
        """A rectangle of `extent` pixels that stands at `center` around the time `middle`."""
        config = self.config
        size = np.array([config.width, config.height])
        return _Layer(
            texture=self._make_texture(rng),
            alpha=np.ones((SPRITE_SIZE, SPRITE_SIZE), np.float32),
            diameter=float(extent[0]),
            stretch=(1.0, float(extent[1] / extent[0])),
            track=self._passing_track(rng, center, middle, half, extent / size),
            angle=_Wave(0.0, 0.0, 0.0),
            log_scale=_Wave(0.0, 0.0, 0.0),
            bend=_Wave(0.0, 0.0, 0.0),
            bend_frequency=1.0,
        )

    def _passing_track(
        self, rng: np.random.Generator, center: np.ndarray, middle: float, half: float, extent
    ) -> _Track:
        """From outside the image to `center`, a stay of 2 · half frames, and out again."""
        config = self.config
        axis = int(rng.integers(2))
        side = -1.0 if rng.random() < 0.5 else 1.0
        travel = np.zeros(2)
        travel[axis] = side * (1.0 + extent[axis])
        approach = rng.uniform(5, 10)
        times = np.arange(config.num_frames + 2, dtype=float)
        progress = np.clip((np.abs(times - middle) - half) / approach, 0, 1.5)
        knots = center + np.sign(times - middle)[:, None] * progress[:, None] * travel
        return _Track(knots, 1.0, 0)
