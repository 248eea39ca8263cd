"""The demo's input and what it recorded, as figures, a table and pictures. No ROS here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from mosam_ros.evaluation.metrics import mask_iou, tight_box
from mosam_ros.mosam.motion.boxes import box_iou
from mosam_ros.synthetic import VISIBLE_PIXELS

PRESENT = 0.5
"""From this presence on the tracker says that the target is in the frame."""


def parse_box(text: str) -> list[float] | None:
    """Four numbers x, y, width, height; None for an empty text.

    Raises:
        ValueError: anything else.
    """
    if not text.strip():
        return None
    try:
        box = [float(word) for word in text.replace(",", " ").split()]
    except ValueError:
        box = []
    if len(box) != 4 or not np.isfinite(box).all() or min(box[2:]) <= 0:
        raise ValueError(
            f"the box {text!r} is not 'x y width height' in pixels, width and height above 0"
        )
    return box


@dataclass(frozen=True)
class PackedMask:
    """A mask in an eighth of its memory."""

    bits: NDArray[np.uint8]
    shape: tuple[int, int]

    @classmethod
    def pack(cls, mask: NDArray[np.bool_]) -> PackedMask:
        """Pack a mask (height, width)."""
        return cls(np.packbits(mask), mask.shape)

    def unpack(self) -> NDArray[np.bool_]:
        """The mask (height, width)."""
        count = self.shape[0] * self.shape[1]
        return np.unpackbits(self.bits, count=count).view(bool).reshape(self.shape)


@dataclass(frozen=True)
class Answer:
    """What the tracker node published for one frame.

    Attributes:
        tracker_seconds: from the frame's arrival in the node to the result.
        latency_seconds: from the frame's stamp to the answer's arrival at the recorder.
        presence: of the target, 0..1; None before the target is selected.
        mask: of the target; None before the target is selected.
        forecast: box (4,) x_min, y_min, x_max, y_max in which the target is expected in the next
            frame; None where the tracker does not trust its forecast.
    """

    tracker_seconds: float
    latency_seconds: float
    presence: float | None = None
    mask: PackedMask | None = None
    forecast: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class FrameRecord:
    """One frame that the camera sent; `truth` and `answer` are None where there is none."""

    truth: PackedMask | None = None
    answer: Answer | None = None

    @property
    def tracked(self) -> bool:
        """Whether the answer is about the target."""
        return self.answer is not None and self.answer.mask is not None


def percentile(values: Sequence[float], q: float) -> float | None:
    """The q-th percentile (0..100), None of nothing."""
    return float(np.percentile(values, q)) if len(values) else None


def summarize(frames: Sequence[FrameRecord]) -> dict[str, float | int | None]:
    """The demo's figures.

    Times and IoU are over the frames that were answered with the target in them. Of these the
    target is visible in those with at least VISIBLE_PIXELS of it, and hidden in those with none.

    Forecasts are judged by the next frame that was answered, by the tight box of the target there:
    that of the ground truth if it is visible; where there is no ground truth, of the tracked mask.
    `last_box_iou` is that of the tracked box, taken to stay where it is, over the same frames.

    Args:
        frames: every frame that the camera sent, in time order.

    Returns:
        The keys of summary.json. None: there was nothing to measure it on.
    """
    answered = [frame for frame in frames if frame.answer is not None]
    tracked = [frame for frame in answered if frame.tracked]
    tracker_ms = [1000 * frame.answer.tracker_seconds for frame in tracked]
    latency_ms = [1000 * frame.answer.latency_seconds for frame in tracked]
    return {
        "frames_sent": len(frames),
        "frames_answered": len(answered),
        "frames_dropped": len(frames) - len(answered),
        "tracker_ms_p50": percentile(tracker_ms, 50),
        "tracker_ms_p99": percentile(tracker_ms, 99),
        "latency_ms_p50": percentile(latency_ms, 50),
        "latency_ms_p99": percentile(latency_ms, 99),
        **_accuracy([frame for frame in tracked if frame.truth is not None]),
        **_forecasts(tracked),
    }


def _accuracy(tracked: Sequence[FrameRecord]) -> dict[str, float | int | None]:
    first = tracked[0].truth.unpack() if tracked else None
    ious, repeated, hidden = [], [], []
    for frame in tracked:
        truth = frame.truth.unpack()
        pixels = np.count_nonzero(truth)
        if pixels >= VISIBLE_PIXELS:
            ious.append(mask_iou(frame.answer.mask.unpack(), truth))
            repeated.append(mask_iou(first, truth))
        elif pixels == 0:
            hidden.append(frame.answer.presence < PRESENT)
    return {
        "iou_visible": _mean(ious),
        "iou_first_mask_repeated": _mean(repeated),
        "hidden_frames": len(hidden),
        "hidden_presence_correct": _mean(hidden),
    }


def _forecasts(tracked: Sequence[FrameRecord]) -> dict[str, float | int | None]:
    forecast_ious, last_ious = [], []
    for frame, following in pairwise(tracked):
        forecast, last = frame.answer.forecast, tight_box(frame.answer.mask.unpack())
        came = _box_that_came(following)
        if forecast is not None and last is not None and came is not None:
            forecast_ious.append(box_iou(forecast, came))
            last_ious.append(box_iou(last, came))
    return {
        "forecasts": len(forecast_ious),
        "forecast_iou": _mean(forecast_ious),
        "last_box_iou": _mean(last_ious),
    }


def _box_that_came(frame: FrameRecord) -> NDArray[np.float64] | None:
    """Where the target was in a frame, None where it was not visible."""
    if frame.truth is None:
        return tight_box(frame.answer.mask.unpack())
    truth = frame.truth.unpack()
    return tight_box(truth) if np.count_nonzero(truth) >= VISIBLE_PIXELS else None


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def format_table(summary: dict) -> str:
    """The figures for people."""

    def number(key: str, digits: int) -> str:
        value = summary[key]
        return "-" if value is None else f"{value:.{digits}f}"

    correct = summary["hidden_presence_correct"]
    rows = [
        ("frames sent", summary["frames_sent"]),
        ("frames answered", summary["frames_answered"]),
        ("frames dropped", summary["frames_dropped"]),
        ("tracker, ms per frame p50", number("tracker_ms_p50", 1)),
        ("tracker, ms per frame p99", number("tracker_ms_p99", 1)),
        ("latency from the stamp, ms p50", number("latency_ms_p50", 1)),
        ("latency from the stamp, ms p99", number("latency_ms_p99", 1)),
        ("IoU with the truth, visible frames", number("iou_visible", 3)),
        ("IoU of the first mask repeated", number("iou_first_mask_repeated", 3)),
        ("frames with the target hidden", summary["hidden_frames"]),
        ("of these recognised as hidden", "-" if correct is None else f"{correct:.0%}"),
        ("forecasts of the next frame", summary["forecasts"]),
        ("their box IoU with the frame that came", number("forecast_iou", 3)),
        ("box IoU of the last box repeated", number("last_box_iou", 3)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value!s:>8}" for name, value in rows)


def contact_sheet(
    pictures: Sequence[NDArray[np.uint8]], columns: int = 4, width: int = 320
) -> NDArray[np.uint8]:
    """Pictures of one size (height, width, 3), row by row; each is scaled to `width` pixels."""
    height = round(width * pictures[0].shape[0] / pictures[0].shape[1])
    small = [cv2.resize(p, (width, height), interpolation=cv2.INTER_AREA) for p in pictures]
    small += [np.zeros_like(small[0])] * (-len(small) % columns)
    rows = [np.hstack(small[i : i + columns]) for i in range(0, len(small), columns)]
    return np.vstack(rows)


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the indices 0 … count - 1, evenly spread from the first to the last."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(wanted, count))})
