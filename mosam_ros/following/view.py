"""From pixels of a camera to the angles that a robot turns by."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class View:
    """What a camera on the robot sees, without distortion.

    Attributes:
        width, height: of the image in pixels.
        fx, fy: focal lengths in pixels.
        cx, cy: the pixel that the robot wants its target at.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float

    @classmethod
    def from_field_of_view(cls, width: int, height: int, horizontal: float) -> View:
        """A camera with square pixels.

        Args:
            width: of the image in pixels.
            height: of the image in pixels.
            horizontal: angle from the left to the right edge in radians.
        """
        focal = width / 2 / math.tan(horizontal / 2)
        return cls(width, height, focal, focal, width / 2, height / 2)

    def angles(self, x: float, y: float) -> tuple[float, float]:
        """How far a pixel lies to the left and below of the wanted one, in radians."""
        return math.atan((self.cx - x) / self.fx), math.atan((y - self.cy) / self.fy)

    def rates(
        self, x: float, y: float, velocity_x: float, velocity_y: float
    ) -> tuple[float, float]:
        """How fast the two angles of a pixel grow that moves, velocities in pixels per second."""
        bearing, elevation = self.angles(x, y)
        return (
            -velocity_x / self.fx * math.cos(bearing) ** 2,
            velocity_y / self.fy * math.cos(elevation) ** 2,
        )
