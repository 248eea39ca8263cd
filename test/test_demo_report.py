"""The figures of the demo's report, on records made by hand."""

import json

import numpy as np
import pytest

from mosam_ros.demo_report import (
    Answer,
    FrameRecord,
    PackedMask,
    contact_sheet,
    format_table,
    parse_box,
    percentile,
    spread,
    summarize,
)
from mosam_ros.evaluation.metrics import tight_box


def square(x: int, size: int = 10) -> np.ndarray:
    mask = np.zeros((21, 47), bool)
    mask[5 : 5 + size, x : x + size] = True
    return mask


EMPTY = np.zeros((21, 47), bool)


def record(
    truth=None, mask=None, presence=0.9, seconds=0.02, latency=0.05, forecast=None
) -> FrameRecord:
    packed_truth = None if truth is None else PackedMask.pack(truth)
    box = None if forecast is None else tight_box(forecast)
    answer = Answer(seconds, latency, presence, PackedMask.pack(mask), box)
    return FrameRecord(packed_truth, answer)


def test_a_packed_mask_comes_back():
    mask = np.random.default_rng(0).random((13, 17)) > 0.5
    packed = PackedMask.pack(mask)
    assert packed.bits.nbytes == 28
    assert np.array_equal(packed.unpack(), mask)


def test_percentile():
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([], 50) is None


def test_frames_are_counted():
    frames = [record(square(0), square(0)), FrameRecord(PackedMask.pack(square(0))), FrameRecord()]
    summary = summarize(frames)
    assert summary["frames_sent"] == 3
    assert summary["frames_answered"] == 1
    assert summary["frames_dropped"] == 2


def test_times_are_those_of_frames_with_the_target():
    idle = FrameRecord(None, Answer(0.001, 0.002))
    frames = [idle] + [
        record(None, square(0), seconds=s, latency=2 * s) for s in (0.01, 0.02, 0.03)
    ]
    summary = summarize(frames)
    assert summary["frames_answered"] == 4
    assert summary["tracker_ms_p50"] == pytest.approx(20)
    assert summary["tracker_ms_p99"] == pytest.approx(29.8)
    assert summary["latency_ms_p50"] == pytest.approx(40)


def test_the_first_mask_is_repeated_over_the_same_frames():
    frames = [
        FrameRecord(PackedMask.pack(square(30)), Answer(0.001, 0.01)),  # before the selection
        record(square(0), square(0)),
        FrameRecord(PackedMask.pack(square(20))),  # dropped
        record(square(5), square(0)),
        record(square(20), square(20)),
    ]
    summary = summarize(frames)
    assert summary["iou_visible"] == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert summary["iou_first_mask_repeated"] == pytest.approx((1 + 1 / 3 + 0) / 3)


def test_hidden_frames_are_judged_by_the_presence():
    frames = [
        record(square(0), square(0)),
        record(EMPTY, EMPTY, presence=0.1),
        record(EMPTY, square(0), presence=0.5),
        record(EMPTY, EMPTY, presence=0.49),
        record(square(0, size=4), EMPTY, presence=0.1),  # 16 pixels: neither visible nor hidden
    ]
    summary = summarize(frames)
    assert summary["hidden_frames"] == 3
    assert summary["hidden_presence_correct"] == pytest.approx(2 / 3)
    assert summary["iou_visible"] == 1


def test_a_forecast_is_judged_by_the_true_box_of_the_next_answered_frame():
    frames = [
        record(square(0), square(0), forecast=square(5)),
        FrameRecord(PackedMask.pack(square(30))),  # dropped
        record(square(5), square(10), forecast=square(15)),
        record(square(20), square(20), forecast=square(0)),  # nothing comes after it
    ]
    summary = summarize(frames)
    assert summary["forecasts"] == 2
    assert summary["forecast_iou"] == pytest.approx((1 + 1 / 3) / 2)
    assert summary["last_box_iou"] == pytest.approx((1 / 3 + 0) / 2)


def test_only_forecasts_of_a_visible_target_count():
    frames = [
        record(square(0), square(0)),  # no forecast
        record(square(0), square(0), forecast=square(5)),
        record(EMPTY, square(5), forecast=square(5)),  # hidden
        record(square(9), EMPTY, forecast=square(9)),  # nothing was tracked that could be repeated
        record(square(9), square(9)),
    ]
    summary = summarize(frames)
    assert summary["forecasts"] == 1
    assert summary["forecast_iou"] == pytest.approx(6 / 14)
    assert summary["last_box_iou"] == pytest.approx(6 / 14)


def test_without_ground_truth_a_forecast_is_judged_by_the_tracked_box():
    frames = [
        record(None, square(0), forecast=square(5)),
        record(None, square(5), forecast=square(10)),
        record(None, EMPTY),
    ]
    summary = summarize(frames)
    assert summary["forecasts"] == 1
    assert summary["forecast_iou"] == 1
    assert summary["last_box_iou"] == pytest.approx(1 / 3)


def test_without_forecasts_there_is_nothing_to_judge():
    summary = summarize([record(square(0), square(0))] * 3)
    assert summary["forecasts"] == 0
    assert summary["forecast_iou"] is None and summary["last_box_iou"] is None


def test_without_ground_truth_there_is_no_accuracy():
    summary = summarize([record(None, square(0))])
    assert summary["tracker_ms_p50"] is not None
    assert summary["iou_visible"] is None
    assert summary["iou_first_mask_repeated"] is None
    assert summary["hidden_frames"] == 0
    assert summary["hidden_presence_correct"] is None


@pytest.mark.parametrize("frames", [[], [FrameRecord()], [record(square(0), square(0))]])
def test_every_summary_can_be_written_and_printed(frames):
    summary = summarize(frames)
    assert json.loads(json.dumps(summary)) == summary
    assert len(format_table(summary).splitlines()) == 14


@pytest.mark.parametrize(
    ("text", "box"), [("1 2 3 4", [1, 2, 3, 4]), (" 1,2.5, 3 4 ", [1, 2.5, 3, 4])]
)
def test_boxes(text, box):
    assert parse_box(text) == box


def test_no_box():
    assert parse_box("  ") is None


@pytest.mark.parametrize(
    "text", ["1 2 3", "1 2 3 4 5", "1 2 x 4", "1 2 0 4", "1 2 3 -4", "1 2 nan 4"]
)
def test_malformed_boxes_are_named(text):
    with pytest.raises(ValueError, match=f"'{text}' is not 'x y width height'"):
        parse_box(text)


def test_contact_sheet():
    pictures = [np.full((30, 40, 3), value, np.uint8) for value in (10, 20, 30)]
    sheet = contact_sheet(pictures, columns=2, width=20)
    assert sheet.shape == (30, 40, 3)
    assert (sheet[0, 0, 0], sheet[0, 39, 0], sheet[29, 0, 0], sheet[29, 39, 0]) == (10, 20, 30, 0)


def test_spread():
    assert spread(5, 12) == [0, 1, 2, 3, 4]
    assert spread(101, 3) == [0, 50, 100]
    assert spread(0, 3) == []
