"""What the tracker node says about itself."""

import pytest

from mosam_ros.nodes.frame_statistics import FrameStatistics


def test_before_the_first_answer_there_are_only_counters():
    statistics = FrameStatistics()
    statistics.received += 2
    statistics.dropped += 1
    assert statistics.summary() == {
        "frames received": "2",
        "frames answered": "0",
        "frames dropped": "1",
    }


def test_times_and_rate_are_those_of_the_last_answers():
    statistics = FrameStatistics(window=3)
    for index, latency in enumerate([9.0, 0.01, 0.02, 0.03]):
        statistics.add_answer(0.5 * index, latency, latency / 10)
    summary = statistics.summary()
    assert summary["frames answered"] == "4"
    assert summary["rate (Hz)"] == "2.00"
    assert summary["latency p50 (ms)"] == "20.00"
    assert float(summary["latency p99 (ms)"]) == pytest.approx(29.8)
    assert summary["own overhead p50 (ms)"] == "2.00"
