"""Where will the target be in the next frame? Forecasts from past masks, and how good they are.

The simple rules and the Kalman filter stand beside `Forecaster`, the one that the tracker uses.
Boxes are (4,) float64 x_min, y_min, x_max, y_max in pixels, velocities pixels per frame.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from mosam_ros.mosam.motion.boxes import box_iou
from mosam_ros.mosam.motion.flow import DenseMotion, FlowEstimator, dense_motion, target_region
from mosam_ros.mosam.motion.forecast import Forecaster
from mosam_ros.mosam.motion.keypoints import MaskGeometry, key_points
from mosam_ros.mosam.results import MotionPrompt
from mosam_ros.mosam.sam2_model import ImageFeatures

BoxArray = NDArray[np.float64]
KeyPoints = NDArray[np.float64]
Vector = NDArray[np.float64]

NUM_KEY_POINTS = 5

PAST_MASKS = 4
"""A forecast is scored after so many masks in a row, so that every method has its history."""

FRAME_SECONDS = 1 / 30


@dataclass(frozen=True)
class SeenMask:
    """A mask in which the target is seen, measured once for all methods.

    Attributes:
        mask: (height, width).
        box: tight; the maximum is the first pixel outside.
        key_points: (K, 2) x, y in pixels.
    """

    mask: NDArray[np.bool_]
    box: BoxArray
    key_points: KeyPoints

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> SeenMask | None:
        """Measure a mask; None for an empty one."""
        geometry = MaskGeometry.of(mask[None])
        if geometry.areas[0] == 0:
            return None
        points = key_points(mask[None], geometry.centroids, NUM_KEY_POINTS)[0]
        return cls(mask, geometry.boxes[0], points.astype(np.float64))


class BoxForecaster(ABC):
    """Sees one target frame by frame and says where its box will be in the next one."""

    def __init__(self) -> None:
        self._last: SeenMask | None = None

    def observe(self, seen: SeenMask | None, image: NDArray[np.uint8] | None = None) -> None:
        """Take in a frame.

        Args:
            seen: the target's mask; None for a frame without it, which ends its history.
            image: (height, width, 3) uint8 RGB, for methods that look at it.
        """
        self._last = seen

    @abstractmethod
    def predict(self) -> BoxArray:
        """The box in the frame after the last one, in which the target must have been seen."""

    def predict_key_points(self) -> KeyPoints:
        """(K, 2) in that frame: here they move and stretch with the box."""
        last = self._require_last()
        box, forecast = last.box, self.predict()
        stretch = (forecast[2:] - forecast[:2]) / (box[2:] - box[:2])
        return forecast[:2] + (last.key_points - box[:2]) * stretch

    def _require_last(self) -> SeenMask:
        if self._last is None:
            raise ValueError("a forecast needs the target in the last frame")
        return self._last


class LastBox(BoxForecaster):
    """The target stays where it is."""

    def predict(self) -> BoxArray:
        """See `BoxForecaster`."""
        return self._require_last().box


class BoxVelocity(BoxForecaster):
    """The last box, each edge moved on by its own velocity.

    Args:
        steps: number of last frame-to-frame velocities that count.
        average: of velocities (n, 4) along the first axis: `np.mean` or `np.median`.
        share: of the velocity that is believed.
    """

    def __init__(
        self, steps: int, average: Callable[..., Vector] = np.mean, share: float = 1.0
    ) -> None:
        super().__init__()
        self._boxes: deque[BoxArray] = deque(maxlen=steps + 1)
        self._average = average
        self._share = share

    def observe(self, seen: SeenMask | None, image: NDArray[np.uint8] | None = None) -> None:
        """See `BoxForecaster`."""
        super().observe(seen, image)
        if seen is None:
            self._boxes.clear()
        else:
            self._boxes.append(seen.box)

    def predict(self) -> BoxArray:
        """See `BoxForecaster`."""
        box = self._require_last().box
        if len(self._boxes) < 2:
            return box
        velocity = self._average(np.diff(np.array(self._boxes), axis=0), axis=0)
        return box + self._share * velocity


class BoxKalman(BoxForecaster):
    """The constant-velocity Kalman filter of SAMURAI, on center, aspect ratio and height.

    All noise is diagonal, so that the four coordinates are filtered side by side; its standard
    deviations follow the height of the box, those of the aspect ratio are fixed.
    """

    POSITION_WEIGHT = 1 / 20
    VELOCITY_WEIGHT = 1 / 160

    def __init__(self) -> None:
        super().__init__()
        self._state: _KalmanState | None = None

    def observe(self, seen: SeenMask | None, image: NDArray[np.uint8] | None = None) -> None:
        """See `BoxForecaster`."""
        super().observe(seen, image)
        self._state = None if seen is None else self._update(seen)

    def predict(self) -> BoxArray:
        """See `BoxForecaster`."""
        self._require_last()
        assert self._state is not None
        x, y, aspect, height = self._moved(self._state).position
        half = np.array([aspect * height, height]) / 2
        return np.concatenate([[x, y] - half, [x, y] + half])

    def _update(self, seen: SeenMask) -> _KalmanState:
        width, height = seen.box[2:] - seen.box[:2]
        x, y = (seen.box[:2] + seen.box[2:]) / 2
        measured = np.array([x, y, width / height, height])
        if self._state is None:
            return self._initial(measured)
        expected = self._moved(self._state)
        noise = self._spread(expected.position[3], self.POSITION_WEIGHT, 1e-1)
        return expected.corrected(measured, noise)

    def _initial(self, measured: Vector) -> _KalmanState:
        position = self._spread(measured[3], 2 * self.POSITION_WEIGHT, 1e-2)
        velocity = self._spread(measured[3], 10 * self.VELOCITY_WEIGHT, 1e-5)
        return _KalmanState(measured, np.zeros(4), position, np.zeros(4), velocity)

    def _moved(self, state: _KalmanState) -> _KalmanState:
        height = state.position[3]
        return _KalmanState(
            state.position + state.velocity,
            state.velocity,
            state.var_position
            + 2 * state.covariance
            + state.var_velocity
            + self._spread(height, self.POSITION_WEIGHT, 1e-2),
            state.covariance + state.var_velocity,
            state.var_velocity + self._spread(height, self.VELOCITY_WEIGHT, 1e-5),
        )

    @staticmethod
    def _spread(height: float, weight: float, aspect: float) -> Vector:
        """(4,) variances of x, y, aspect ratio and height."""
        length = weight * height
        return np.square([length, length, aspect, length])


@dataclass(frozen=True)
class _KalmanState:
    """Mean and (co)variance of four positions and their velocities, each (4,)."""

    position: Vector
    velocity: Vector
    var_position: Vector
    covariance: Vector
    var_velocity: Vector

    def corrected(self, measured: Vector, noise: Vector) -> _KalmanState:
        """After a measurement of the positions with variances `noise`."""
        total = self.var_position + noise
        gain, velocity_gain = self.var_position / total, self.covariance / total
        error = measured - self.position
        return _KalmanState(
            self.position + gain * error,
            self.velocity + velocity_gain * error,
            (1 - gain) * self.var_position,
            (1 - gain) * self.covariance,
            self.var_velocity - velocity_gain * self.covariance,
        )


class MosamForecast(BoxForecaster):
    """The tracker's own `Forecaster`, fed as the tracker does it.

    Args:
        flow: for the dense motion; None for the key points and boxes alone.
    """

    def __init__(self, flow: FlowEstimator | None = None) -> None:
        super().__init__()
        self._forecaster = Forecaster(NUM_KEY_POINTS)
        self._flow = flow
        self._past_image: object = None
        self._time = 0.0

    def observe(self, seen: SeenMask | None, image: NDArray[np.uint8] | None = None) -> None:
        """See `BoxForecaster`; after a gap the history goes on."""
        self._time += FRAME_SECONDS
        flow = self._dense_motion(seen, image)
        if seen is not None:
            points = seen.key_points.astype(np.float32)
            self._forecaster.observe(self._time, seen.box, points, flow)
        super().observe(seen, image)

    def predict(self) -> BoxArray:
        """See `BoxForecaster`."""
        return self._motion_prompt().box.astype(np.float64)

    def predict_key_points(self) -> KeyPoints:
        """(K, 2) in the next frame."""
        return self._motion_prompt().key_points.astype(np.float64)

    def _motion_prompt(self) -> MotionPrompt:
        size = self._require_last().mask.shape
        prompt = self._forecaster.predict(self._time + FRAME_SECONDS, (size[0], size[1]))
        assert prompt is not None
        return prompt

    def _dense_motion(
        self, seen: SeenMask | None, image: NDArray[np.uint8] | None
    ) -> DenseMotion | None:
        """By the flow since the last frame; None without an image or where that is broken."""
        if self._flow is None or image is None:
            return None
        past, self._past_image = self._past_image, self._flow.prepare(image, _NO_FEATURES)
        if past is None or seen is None:
            return None
        region = target_region(seen.box, (image.shape[0], image.shape[1]))
        field = self._flow.estimate(past, self._past_image, region)
        return dense_motion(seen.mask, field, FRAME_SECONDS)


_NO_FEATURES = ImageFeatures(*[torch.zeros(1, 1, 1, 1)] * 4)
"""For flow methods that look at the image alone."""

METHODS: dict[str, Callable[[], BoxForecaster]] = {
    "last_box": LastBox,
    "velocity_1": lambda: BoxVelocity(1),
    "velocity_3": lambda: BoxVelocity(3),
    "median_3": lambda: BoxVelocity(3, np.median),
    "half_median_3": lambda: BoxVelocity(3, np.median, 0.5),
    "kalman": BoxKalman,
    "mosam": MosamForecast,
}
"""All methods that need nothing but masks; `mosam` is ours."""


@dataclass(frozen=True)
class ForecastScore:
    """One forecast beside what came.

    Attributes:
        iou: of the forecast box and the next mask's tight box.
        key_point_error: mean distance of forecast and next key points, pixels.
    """

    iou: float
    key_point_error: float


def measure(masks: Iterable[NDArray[np.bool_]]) -> list[SeenMask | None]:
    """All masks (height, width) of one target, measured."""
    return [SeenMask.of(mask) for mask in masks]


def score_forecasts(
    forecaster: BoxForecaster,
    clip: Sequence[SeenMask | None],
    images: Sequence[NDArray[np.uint8]] | None = None,
) -> list[ForecastScore]:
    """Forecast every frame of a clip that comes after `PAST_MASKS` masks and has one itself.

    Args:
        forecaster: new.
        clip: one target's masks in time order.
        images: of the same frames, (height, width, 3) uint8 RGB, for methods that look at them.
    """
    scores = []
    in_a_row = 0
    for t, seen in enumerate(clip[:-1]):
        forecaster.observe(seen, None if images is None else images[t])
        in_a_row = 0 if seen is None else in_a_row + 1
        following = clip[t + 1]
        if in_a_row >= PAST_MASKS and following is not None:
            distances = forecaster.predict_key_points() - following.key_points
            scores.append(
                ForecastScore(
                    box_iou(forecaster.predict(), following.box),
                    float(np.linalg.norm(distances, axis=1).mean()),
                )
            )
    return scores


def summarize(scores: Mapping[str, Sequence[ForecastScore]]) -> dict[str, dict[str, float]]:
    """By method: `mean`, `median` and `p10` (a tenth is worse) of the box IoU, `n` forecasts, and
    `key_point_error`, `key_point_error_median` in pixels. Methods without forecasts are left out.
    """
    rows: dict[str, dict[str, float]] = {}
    for name, method_scores in scores.items():
        if not method_scores:
            continue
        ious = np.array([s.iou for s in method_scores])
        errors = np.array([s.key_point_error for s in method_scores])
        rows[name] = {
            "mean": round(float(ious.mean()), 6),
            "median": round(float(np.median(ious)), 6),
            "p10": round(float(np.percentile(ious, 10)), 6),
            "n": len(ious),
            "key_point_error": round(float(errors.mean()), 3),
            "key_point_error_median": round(float(np.median(errors)), 3),
        }
    return rows
