"""A scene around a robot that turns: what its camera sees depends on where the robot looks."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mosam_ros.synthetic.textures import random_background, random_texture

PATH = (
    (0.0, 0.2),
    (2.5, 0.2),
    (7.5, 0.9),
    (8.0, 0.9),
    (14.0, -0.4),
    (20.0, 0.5),
    (24.0, 0.1),
)
"""When, in seconds, the target is where, in radians to the left; it turns back behind the panel."""

DURATION = PATH[-1][0]
"""Seconds that the target's path takes."""

PANEL = (-0.4, 0.28)
"""Bearing of the panel's middle and its width, in radians; it hides the target completely."""

TARGET_DIAMETER = 0.2
"""Radians."""

BOB = 0.03
"""How far the target goes up and down, in radians."""

NOISE = 2.0
"""Standard deviation of the sensor noise in gray levels."""

COMMAND_SECONDS = 0.5
"""The robot stands when it has had no command for so long, as a real base does."""

TARGET_COLOR = (235, 60, 30)
WALL_COLOR = (120, 130, 125)
PANEL_COLOR = (70, 75, 95)


@dataclass(frozen=True)
class TurningFrame:
    """One picture.

    Attributes:
        image: (height, width, 3) uint8 RGB.
        mask: (height, width) bool, the visible pixels of the target.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]


class TurningScene:
    """A target that goes around a robot in front of a wall; once it hides behind a panel.

    Angles are in radians, bearings to the left of where the robot looked at the start. The camera
    is a pinhole without distortion whose principal point is the image's middle.

    Args:
        seed: of the textures; the same seed gives the same pictures.
        width, height: of the image in pixels.
        horizontal_fov: the angle from the left to the right edge of the image.
    """

    def __init__(
        self, seed: int = 0, width: int = 640, height: int = 480, horizontal_fov: float = 1.05
    ) -> None:
        self.width, self.height = width, height
        self.focal = width / 2 / math.tan(horizontal_fov / 2)
        self._noise = np.random.default_rng([seed, 2])
        rng = np.random.default_rng([seed, 1])
        self._wall = self._make_wall(rng)
        diameter = round(TARGET_DIAMETER * self.focal)
        self._target = _toward(random_texture(rng, diameter), TARGET_COLOR, 1.0)
        self._disk = np.zeros((diameter, diameter), np.float32)
        middle = (diameter // 2, diameter // 2)
        cv2.circle(self._disk, middle, diameter // 2 - 1, 1.0, cv2.FILLED, cv2.LINE_AA)
        panel = random_texture(rng, height)[:, : round(PANEL[1] * self.focal)]
        self._panel = _toward(panel, PANEL_COLOR, 0.15)
        self._to_cylinder = self._cylinder_maps(horizontal_fov)

    def bearing(self, time: float) -> float:
        """Where the target's middle is, `time` seconds after the start."""
        return _eased(PATH, time)

    def frame(self, time: float, heading: float) -> TurningFrame:
        """What the camera sees.

        Args:
            time: seconds since the start.
            heading: where the robot looks, to the left.
        """
        strip, mask = self._strip(time, heading)
        image = cv2.remap(strip, *self._to_cylinder, cv2.INTER_LINEAR)
        noise = self._noise.normal(0.0, NOISE, image.shape[:2])[..., None]
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
        seen = cv2.remap(mask, *self._to_cylinder, cv2.INTER_NEAREST)
        return TurningFrame(image, seen.astype(bool))

    def _make_wall(self, rng: np.random.Generator) -> NDArray[np.uint8]:
        """The wall all around, unrolled: (height, one turn, 3) at `focal` pixels per radian."""
        half = random_background(rng, math.ceil(math.pi * self.focal), clutter=10)[: self.height]
        return _toward(np.hstack([half, half[:, ::-1]]), WALL_COLOR, 0.35)

    def _cylinder_maps(self, horizontal_fov: float) -> tuple[NDArray, NDArray]:
        """Where on the unrolled strip each pixel of the image lies: x and y, (height, width)."""
        x, y = np.meshgrid(np.arange(self.width), np.arange(self.height))
        x, y = x - (self.width - 1) / 2, y - (self.height - 1) / 2
        self._strip_width = math.ceil(horizontal_fov * self.focal) + 4
        across = self.focal * np.arctan(x / self.focal) + (self._strip_width - 1) / 2
        down = y * self.focal / np.hypot(x, self.focal) + (self.height - 1) / 2
        return across.astype(np.float32), down.astype(np.float32)

    def _strip(self, time: float, heading: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The part of the unrolled scene in view, and the target's visible pixels there."""
        turn = self._wall.shape[1]
        left = -heading * self.focal - self._strip_width / 2
        columns = (math.floor(left) + np.arange(self._strip_width)) % turn
        strip = np.ascontiguousarray(self._wall[:, columns])
        mask = self._draw_target(strip, time, heading)
        self._draw_panel(strip, mask, heading)
        return strip, mask

    def _column(self, bearing: float, heading: float) -> float:
        """Where on the strip a bearing lies, in pixels; the nearer way around."""
        to_the_right = math.remainder(heading - bearing, 2 * math.pi)
        return self._strip_width / 2 + to_the_right * self.focal

    def _draw_target(
        self, strip: NDArray[np.uint8], time: float, heading: float
    ) -> NDArray[np.uint8]:
        radius = self._disk.shape[0] / 2
        across = self._column(self.bearing(time), heading)
        down = self.height / 2 + BOB * math.sin(1.3 * time) * self.focal
        turned = cv2.getRotationMatrix2D((radius, radius), 20 * math.sin(0.7 * time), 1.0)
        turned[:, 2] += across - radius, down - radius
        size = strip.shape[1::-1]
        alpha = cv2.warpAffine(self._disk, turned, size)
        color = cv2.warpAffine(self._target, turned, size, borderMode=cv2.BORDER_REPLICATE)
        blend = strip + (color.astype(np.float32) - strip) * alpha[..., None]
        strip[...] = blend.astype(np.uint8)
        return (alpha > 0.5).astype(np.uint8)

    def _draw_panel(
        self, strip: NDArray[np.uint8], mask: NDArray[np.uint8], heading: float
    ) -> None:
        width = self._panel.shape[1]
        start = round(self._column(PANEL[0], heading) - width / 2)
        first, last = max(start, 0), min(start + width, strip.shape[1])
        if first < last:
            strip[:, first:last] = self._panel[:, first - start : last - start]
            mask[:, first:last] = 0


class TurningRobot:
    """Where a robot looks that executes the newest command at once.

    Attributes:
        heading: radians to the left of where it looked at the start.
    """

    def __init__(self) -> None:
        self.heading = 0.0
        self._turn = 0.0
        self._commanded = self._moved = -math.inf

    def command(self, now: float, turn: float) -> None:
        """From now on, in seconds, turn to the left so fast, in radians per second."""
        self.move(now)
        self._turn, self._commanded = turn, now

    def move(self, now: float) -> float:
        """Turn until now and return the heading."""
        end = min(now, self._commanded + COMMAND_SECONDS)
        if end > self._moved:
            self.heading += self._turn * (end - max(self._moved, self._commanded))
        self._moved = max(self._moved, now)
        return self.heading


def _toward(
    texture: NDArray[np.uint8], color: tuple[int, int, int], contrast: float
) -> NDArray[np.uint8]:
    """A texture of a given mean color, with a share of its own contrast."""
    own = texture.astype(np.float32)
    mean = own.mean((0, 1), keepdims=True)
    return np.clip(np.array(color) + contrast * (own - mean), 0, 255).astype(np.uint8)


def _eased(path: tuple[tuple[float, float], ...], time: float) -> float:
    """A value at a time between (time, value) pairs, at rest at each of them."""
    index = bisect_right(path, time, key=lambda pair: pair[0])
    if index == 0 or index == len(path):
        return path[min(index, len(path) - 1)][1]
    (start, first), (end, last) = path[index - 1], path[index]
    share = (1 - math.cos(math.pi * (time - start) / (end - start))) / 2
    return first + share * (last - first)
