"""The velocity of targets whose motion is known."""

import numpy as np
import pytest

from mosam_ros.localization.target_motion import FIRST_SPEED, TargetMotion

COVARIANCE = np.diag([0.01, 0.01, 0.02]) ** 2


def follow(motion: TargetMotion, velocity: np.ndarray, seconds: float, start: float = 100.0):
    """Give positions with noise on a straight line at 10 Hz; returns the last velocity."""
    rng = np.random.default_rng(0)
    for time in np.arange(0.0, seconds, 0.1):
        noise = rng.multivariate_normal(np.zeros(3), COVARIANCE)
        answer = motion.update(
            start + time, np.array([0, 0, 3]) + velocity * time + noise, COVARIANCE
        )
    return answer


def test_a_steady_motion_is_learnt():
    velocity = np.array([0.5, -0.2, 0.3])
    answer = follow(TargetMotion(acceleration=0.5), velocity, 4.0)
    deviation = np.sqrt(np.diag(answer.covariance))
    assert np.abs(answer.velocity - velocity).max() < 0.15
    assert (np.abs(answer.velocity - velocity) < 4 * deviation).all()
    assert deviation.max() < 0.2


def test_a_target_just_found_may_move_any_way():
    answer = TargetMotion().update(5.0, np.array([0, 0, 2.0]), COVARIANCE)
    assert answer.velocity == pytest.approx(np.zeros(3))
    assert answer.covariance == pytest.approx(np.eye(3) * FIRST_SPEED**2)


@pytest.mark.parametrize("pause", [1.5, 0.0, -20.0])
def test_a_gap_or_a_jump_in_time_starts_anew(pause):
    motion = TargetMotion(max_gap=1.0)
    follow(motion, np.array([1.0, 0, 0]), 2.0)
    last = 100.0 + 1.9
    answer = motion.update(last + pause, np.array([0, 0, 2.0]), COVARIANCE)
    assert answer.velocity == pytest.approx(np.zeros(3))


def test_a_short_gap_is_bridged():
    motion = TargetMotion(max_gap=1.0)
    velocity = np.array([1.0, 0, 0])
    follow(motion, velocity, 2.0)
    answer = motion.update(102.4, np.array([0, 0, 3]) + velocity * 2.4, COVARIANCE)
    assert answer.velocity == pytest.approx(velocity, abs=0.2)
