"""How fast a target moves: its positions, filtered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIRST_SPEED = 2.0
"""Expected speed along each axis of a target just found, in m/s (one standard deviation)."""


@dataclass(frozen=True)
class Velocity:
    """How fast a target moves relative to the camera, along the camera's axes.

    Attributes:
        velocity: (3,) in m/s.
        covariance: (3, 3) in (m/s)².
    """

    velocity: NDArray[np.float64]
    covariance: NDArray[np.float64]


class TargetMotion:
    """A Kalman filter over one target's positions; between them its velocity changes at random.

    Args:
        acceleration: expected change of the velocity, in m/s per second (one standard deviation).
        max_gap: after so many seconds without a position the filter starts anew.
    """

    def __init__(self, acceleration: float = 1.0, max_gap: float = 1.0) -> None:
        self.acceleration = acceleration
        self.max_gap = max_gap
        self._time: float | None = None
        self._state = np.zeros(6)
        self._covariance = np.zeros((6, 6))

    def update(
        self, time: float, position: NDArray[np.float64], covariance: NDArray[np.float64]
    ) -> Velocity:
        """Take in a position.

        Args:
            time: of the frame, in seconds; a time that is not later than the last starts anew.
            position: (3,) in metres.
            covariance: (3, 3) of the position.

        Returns:
            The velocity at that time.
        """
        if self._time is None or not 0 < time - self._time <= self.max_gap:
            self._start(position, covariance)
        else:
            self._predict(time - self._time)
            self._correct(position, covariance)
        self._time = time
        return Velocity(self._state[3:].copy(), self._covariance[3:, 3:].copy())

    def _start(self, position: NDArray[np.float64], covariance: NDArray[np.float64]) -> None:
        self._state = np.concatenate([position, np.zeros(3)])
        self._covariance = np.zeros((6, 6))
        self._covariance[:3, :3] = covariance
        self._covariance[3:, 3:] = np.eye(3) * FIRST_SPEED**2

    def _predict(self, seconds: float) -> None:
        step = np.eye(6)
        step[:3, 3:] = np.eye(3) * seconds
        push = np.concatenate([np.eye(3) * seconds**2 / 2, np.eye(3) * seconds])
        self._state = step @ self._state
        self._covariance = step @ self._covariance @ step.T
        self._covariance += push @ push.T * self.acceleration**2

    def _correct(self, position: NDArray[np.float64], covariance: NDArray[np.float64]) -> None:
        gain = self._covariance[:, :3] @ np.linalg.inv(self._covariance[:3, :3] + covariance)
        self._state = self._state + gain @ (position - self._state[:3])
        self._covariance = self._covariance - gain @ self._covariance[:3]
