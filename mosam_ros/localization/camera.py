"""The lens of a camera: which way a pixel looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

UNDISTORT_STEPS = 20
"""Each step brings a pixel of a usual lens about ten times closer to its ray."""


@dataclass(frozen=True)
class Camera:
    """A pinhole with a lens, in the optical frame: x right, y down, z forward.

    Attributes:
        fx, fy: focal lengths in pixels.
        cx, cy: the pixel that looks straight ahead.
        distortion: k1, k2, p1, p2, k3 and, of a rational lens, k4, k5, k6; empty: none.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    distortion: Sequence[float] = ()

    def rays(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Where pixels look to.

        Args:
            pixels: (n, 2) x, y.

        Returns:
            (n, 2) x / z and y / z of what is seen there.
        """
        centered = np.asarray(pixels, np.float64) - (self.cx, self.cy)
        distorted = centered / (self.fx, self.fy)
        if not any(self.distortion):
            return distorted
        rays = distorted
        for _ in range(UNDISTORT_STEPS):
            scale, shift = self._bend(rays)
            rays = (distorted - shift) / scale
        return rays

    def pixels(self, points: ArrayLike) -> NDArray[np.float64]:
        """Where points are seen.

        Args:
            points: (n, 3) x, y, z in metres, in front of the camera.

        Returns:
            (n, 2) x, y in pixels.
        """
        points = np.asarray(points, np.float64)
        rays = points[:, :2] / points[:, 2:]
        scale, shift = self._bend(rays)
        return (rays * scale + shift) * (self.fx, self.fy) + (self.cx, self.cy)

    def _bend(self, rays: NDArray[np.float64]) -> tuple[NDArray, NDArray]:
        """What the lens does to rays (n, 2): its scale (n, 1) and its shift (n, 2)."""
        coefficients = np.zeros(8)
        coefficients[: len(self.distortion)] = self.distortion
        k1, k2, p1, p2, k3, k4, k5, k6 = coefficients
        x, y = rays.T
        r2 = x * x + y * y
        scale = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        shift_x = 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        shift_y = 2 * p2 * x * y + p1 * (r2 + 2 * y * y)
        return scale[:, None], np.stack([shift_x, shift_y], axis=1)
