"""From a target's past key points, boxes and flow to where it will be: a `MotionPrompt`.

The paper extrapolates linearly (sections 3.2.1, 3.2.2). Masks are noisy, and extrapolated noise is
worse than no motion, so every velocity is calibrated here: by how much earlier velocities of the
same target came true, coordinate by coordinate.
"""

from __future__ import annotations

from collections import deque
from statistics import median

import numpy as np
from numpy.typing import NDArray

from mosam_ros.mosam.motion.boxes import box_iou
from mosam_ros.mosam.motion.encoders import HISTORY
from mosam_ros.mosam.motion.flow import DenseMotion
from mosam_ros.mosam.results import MotionPrompt

Vector = NDArray[np.float64]

VELOCITIES = 3
"""The trend is the median of so many past velocities."""

MIN_OBSERVATIONS = 3
"""Reliable frames needed before a forecast is trusted."""

FORGETTING = 0.7
"""Weight of a calibration per later frame."""

TOLERANCE = 1.0
"""Pixels by which a motion may exceed its prediction before the excess counts as an outlier."""

MAX_FRAMES_AHEAD = 2.5
"""Forecasts further ahead are guesses."""

GAP_FRAMES = 30
"""A target not observed for longer starts a new history."""

PERSISTENCE = 0.9
"""While a target is hidden its speed is taken to fall by this factor per frame."""

MIN_UNCERTAINTY = 1.0
"""Pixels; masks are not more exact than that."""


class Calibration:
    """How far a kind of predicted velocity can be trusted, learnt from what became of earlier ones.

    The gain is the regression of what happened on what was predicted, per coordinate, with recent
    frames weighing more; motions far beyond their prediction are cut as outliers.
    """

    def __init__(self, size: int) -> None:
        self._products = np.full(size, 1e-3)
        self._squares = np.full(size, 1e-3)
        self.squared_error = np.zeros(size)

    @property
    def gain(self) -> Vector:
        """0 (its motion is noise) … 1 (it comes true), per coordinate."""
        return np.clip(self._products / self._squares, 0.0, 1.0)

    def learn(self, predicted: Vector, happened: Vector) -> None:
        """Take in a prediction and what happened, both in pixels of motion per coordinate."""
        error = np.square(self.gain * predicted - happened)
        self.squared_error += (1 - FORGETTING) * (error - self.squared_error)
        limit = np.abs(predicted) + TOLERANCE
        self._products *= FORGETTING
        self._products += predicted * np.clip(happened, -limit, limit)
        self._squares *= FORGETTING
        self._squares += np.square(predicted)


class Forecaster:
    """The motion of one target.

    Coordinates are the four edges of the tight box, then x and y of the key points; times are in
    seconds, velocities in pixels per second.

    Args:
        num_key_points: K.
    """

    def __init__(self, num_key_points: int) -> None:
        self._size = 4 + 2 * num_key_points
        self.reset()

    def reset(self) -> None:
        """Forget all history."""
        self.num_observations = 0
        self._time = 0.0
        self._intervals: deque[float] = deque(maxlen=5)
        self._position = np.zeros(self._size)
        self._velocities: deque[Vector] = deque(maxlen=VELOCITIES)
        self._trend = np.zeros(self._size)
        self._trend_calibration = Calibration(self._size)
        self._flow: DenseMotion | None = None
        self._flow_calibration = Calibration(4)
        self._encoded: Vector | None = None
        self._encoded_calibration = Calibration(self._size - 4)

    @property
    def ready(self) -> bool:
        """Whether there is enough history for a forecast."""
        return self.num_observations >= MIN_OBSERVATIONS

    def overlap(self, forecast: MotionPrompt) -> float:
        """IoU of a forecast's box with the box last observed."""
        return box_iou(forecast.box, self._position[:4])

    def observe(
        self,
        time: float,
        box: NDArray[np.float64],
        key_points: NDArray[np.float32],
        flow: DenseMotion | None = None,
    ) -> None:
        """Take in a reliable frame.

        Args:
            time: of the frame; one not later than the last starts a new history.
            box: (4,) x_min, y_min, x_max, y_max in pixels.
            key_points: (K, 2) x, y in pixels.
            flow: the target's motion by optical flow, None where that is broken or missing.
        """
        position = np.concatenate([box, key_points.ravel()]).astype(np.float64)
        elapsed = time - self._time
        if self.num_observations and not 0 < elapsed <= GAP_FRAMES * (self._interval or elapsed):
            self.reset()
        if self.num_observations:
            self._take_step(position, elapsed)
        self._flow, self._encoded = flow, None
        self._position, self._time = position, time
        self.num_observations += 1

    def _take_step(self, position: Vector, elapsed: float) -> None:
        happened = position - self._position
        if self._velocities:
            self._trend_calibration.learn(self._trend * elapsed, happened)
        if self._flow is not None:
            self._flow_calibration.learn(self._flow.box_velocity * elapsed, happened[:4])
        if self._encoded is not None:
            self._encoded_calibration.learn(self._encoded * elapsed, happened[4:])
        self._velocities.append(happened / elapsed)
        recent = np.array(self._velocities)
        agreement = np.abs(np.sign(recent).sum(0)) / len(recent)
        self._trend = np.median(recent, axis=0) * agreement
        self._intervals.append(elapsed)

    @property
    def _interval(self) -> float:
        """Seconds between frames; 0 while unknown."""
        return median(self._intervals) if self._intervals else 0.0

    def key_point_history(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What the trained encoder needs once the forecaster is `ready`: the key points (K, 2) in
        pixels, and their past velocities (K, HISTORY, 2), the newest last, per frame, in sizes of
        the target.
        """
        velocities = np.array(self._velocities)[-HISTORY:, 4:].reshape(-1, self._size // 2 - 2, 2)
        velocities = np.concatenate([velocities[:1]] * (HISTORY - len(velocities)) + [velocities])
        per_frame = velocities.transpose(1, 0, 2) * (self._interval / self._target_size)
        return self._position[4:].reshape(-1, 2).astype(np.float32), per_frame.astype(np.float32)

    def expect_key_points(self, velocity: NDArray[np.float32]) -> None:
        """Take in the trained encoder's answer (K, 2), per frame, in sizes of the target."""
        scale = self._target_size / self._interval
        self._encoded = velocity.ravel().astype(np.float64) * scale

    @property
    def _target_size(self) -> float:
        """The square root of the box's area, pixels."""
        x_min, y_min, x_max, y_max = self._position[:4]
        return float(np.sqrt((x_max - x_min) * (y_max - y_min)))

    def predict(self, time: float, image_size: tuple[int, int]) -> MotionPrompt | None:
        """Where the target is expected; None before the first observation.

        Its box moves on, but changes its size for one frame only: an edge that moves for itself has
        come to that of something in front.

        It is valid with enough history, for the next frame or the one after, while its center is in
        the image.

        Args:
            time: that the forecast is for, later than the last observation.
            image_size: (height, width).
        """
        if not self.num_observations:
            return None
        frames = self._frames_to(time)
        interval = (time - self._time) / frames
        ahead = interval * (1 - PERSISTENCE**frames) / (1 - PERSISTENCE)
        velocity = self._velocity()
        position = self._position + velocity * ahead
        position[:4] -= _growth(velocity[:4]) * (ahead - interval)
        points = position[4:].reshape(-1, 2)
        height, width = image_size
        center_inside = 0 <= points[0, 0] < width and 0 <= points[0, 1] < height
        return MotionPrompt(
            time=time,
            valid=bool(self.ready and frames < MAX_FRAMES_AHEAD and center_inside),
            key_points=points.astype(np.float32),
            box=position[:4].astype(np.float32),
            velocity=velocity[4:6].astype(np.float32),
            uncertainty=float(self.one_frame_error() * frames),
        )

    def _frames_to(self, time: float) -> float:
        """Frames from the last observation to a time, at least one."""
        return max(1.0, (time - self._time) / self._interval) if self._interval else 1.0

    def _velocity(self) -> Vector:
        """The calibrated trend, blended with flow and encoder by their past errors; with the flow
        also by its confidence.
        """
        velocity = self._trend_calibration.gain * self._trend
        errors = self._trend_calibration.squared_error
        if self._flow is not None:
            flow = self._flow_calibration.gain * self._flow.box_velocity
            share = _share(errors[:4], self._flow_calibration.squared_error, self._flow.confidence)
            velocity[:4] += share * (flow - velocity[:4])
        if self._encoded is not None:
            encoded = self._encoded_calibration.gain * self._encoded
            share = _share(errors[4:], self._encoded_calibration.squared_error)
            velocity[4:] += share * (encoded - velocity[4:])
        return velocity

    def one_frame_error(self) -> float:
        """Expected distance between the forecast and the true center after one frame, in pixels."""
        return MIN_UNCERTAINTY + float(np.sqrt(self._trend_calibration.squared_error[4:6].sum()))


def _growth(edges: Vector) -> Vector:
    """The part of the velocity (4,) of a box's edges that does not move its center."""
    return (edges - np.roll(edges, 2)) / 2


def _share(error: Vector, other_error: Vector, confidence: float = 1.0) -> Vector:
    """The weight of the other of two forecasts, by the mean squared errors of both in pixels, and
    by the confidence in the other, 0..1.
    """
    floor = 0.25 * TOLERANCE**2
    weight = confidence * (error + floor)
    return weight / (weight + other_error + floor)
