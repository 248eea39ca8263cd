"""What the tracker node says about itself."""

import time

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
    statistics = FrameStatistics(window=3, clock=lambda: 1.5)
    for index, latency in enumerate([9.0, 0.01, 0.02, 0.03]):
        statistics.add_answer(0.5 * index, latency, latency / 10)
    summary = statistics.summary()
    assert summary["frames answered"] == "4"
    assert summary["rate (Hz)"] == "2.00"
    assert summary["latency p50 (ms)"] == "20.00"
    assert float(summary["latency p99 (ms)"]) == pytest.approx(29.8)
    assert summary["own overhead p50 (ms)"] == "2.00"


def rate(statistics: FrameStatistics) -> float:
    return float(statistics.summary()["rate (Hz)"])


def test_the_rate_is_that_of_the_last_seconds_up_to_now():
    now = 100.0
    statistics = FrameStatistics(clock=lambda: now)
    for index in range(101):
        statistics.add_answer(90.0 + 0.1 * index, 0.01, 0.001)
    assert rate(statistics) == pytest.approx(10.0)
    now = 105.0
    assert rate(statistics) == pytest.approx(5.0, abs=0.11)
    now = 111.0
    assert rate(statistics) == 0.0
    for index in range(101):
        statistics.add_answer(160.0 + 0.1 * index, 0.01, 0.001)
    now = 170.0
    assert rate(statistics) == pytest.approx(10.0, abs=0.11)


def test_the_rate_of_a_fast_camera_is_that_of_the_answers_kept():
    now = 10.0
    statistics = FrameStatistics(window=300, clock=lambda: now)
    for index in range(1001):
        statistics.add_answer(0.01 * index, 0.01, 0.001)
    assert rate(statistics) == pytest.approx(100.0)
    now = 16.01
    assert rate(statistics) < 50.0
    now = 20.01
    assert rate(statistics) == 0.0


def test_without_a_clock_given_it_is_the_one_that_the_node_takes_the_times_of():
    statistics = FrameStatistics()
    now = time.perf_counter()
    for index in range(3):
        statistics.add_answer(now - 1.0 + 0.5 * index, 0.01, 0.001)
    assert 1.0 < rate(statistics) <= 2.0
