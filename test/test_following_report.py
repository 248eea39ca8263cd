"""How well a target was followed, told from frames and commands with known answers."""

import numpy as np
import pytest

from mosam_ros.following.report import (
    FollowedFrame,
    center_offset,
    format_following,
    summarize_following,
)

LIMIT = 0.5


def frames(offsets: list[float | None], answered: bool = True) -> list[FollowedFrame]:
    """Ten frames a second."""
    return [FollowedFrame(index / 10, offset, answered) for index, offset in enumerate(offsets)]


def test_the_offset_of_a_mask_is_that_of_its_centroid():
    mask = np.zeros((4, 100), bool)
    assert center_offset(mask) is None
    mask[:, 49:51] = True
    assert center_offset(mask) == pytest.approx(0.0)
    mask[:] = False
    mask[1, 70:80] = True
    assert center_offset(mask) == pytest.approx(0.5)
    assert center_offset(mask[:, ::-1]) == pytest.approx(-0.5)


def test_only_frames_after_the_settling_count():
    summary = summarize_following(frames([0.9] * 30 + [0.1] * 15 + [-0.3] * 5), [], LIMIT)
    assert summary["frames_sent"] == summary["frames_answered"] == 50
    assert summary["frames_judged"] == 20
    assert summary["near_center"] == pytest.approx(0.75)
    assert summary["mean_offset"] == pytest.approx(0.15)
    assert summary["stood_still"] is None


def test_nothing_is_judged_of_a_target_that_was_never_answered():
    summary = summarize_following(frames([0.0] * 50, answered=False), [], LIMIT)
    assert summary["frames_answered"] == summary["frames_judged"] == 0
    assert summary["near_center"] is None and summary["mean_offset"] is None
    assert "-" in format_following(summary)


@pytest.mark.parametrize(
    ("turns", "still"),
    [
        ({1.3: 0.4, 2.2: 0.0, 2.8: 0.0}, True),
        ({1.3: 0.4, 2.2: 0.0, 2.8: 0.1}, False),
        ({1.3: 0.4, 3.2: 0.4}, None),
    ],
)
def test_the_robot_must_stand_once_the_target_is_hidden_for_longer_than_the_limit(turns, still):
    run = frames([0.0] * 10 + [None] * 20 + [0.0] * 10)
    summary = summarize_following(run, sorted(turns.items()), LIMIT)
    assert summary["hidden_seconds"] == pytest.approx(1.9)
    assert summary["stood_still"] is still


def test_the_angle_swept_is_between_the_outermost_headings():
    commands = [(0.0, 1.0), (0.25, -1.0), (0.75, 0.0), (9.0, 0.0)]
    summary = summarize_following(frames([0.0]), commands, LIMIT)
    assert summary["swept_degrees"] == pytest.approx(np.degrees(0.5))
