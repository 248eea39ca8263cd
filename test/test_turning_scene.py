"""The scene around a turning robot is where its camera's geometry says."""

import math

import cv2
import numpy as np
import pytest

from mosam_ros.following.report import center_offset
from mosam_ros.following.view import View
from mosam_ros.synthetic.turning_scene import (
    COMMAND_SECONDS,
    DURATION,
    PANEL,
    TARGET_DIAMETER,
    TurningRobot,
    TurningScene,
)

FIELD_OF_VIEW = 1.05
SCENE = TurningScene(0, 320, 240, FIELD_OF_VIEW)
VIEW = View.from_field_of_view(320, 240, FIELD_OF_VIEW)


@pytest.mark.parametrize("heading", [-0.2, 0.0, 0.2, 0.55, 0.2 + 2 * math.pi, 0.2 - 4 * math.pi])
def test_the_target_is_seen_at_its_bearing(heading):
    mask = SCENE.frame(0.0, heading).mask
    x, y = np.argwhere(mask).mean(0)[::-1] + 0.5
    bearing, _ = VIEW.angles(x, y)
    offset = math.remainder(SCENE.bearing(0.0) - heading, 2 * math.pi)
    assert bearing == pytest.approx(offset, abs=0.01)


def test_the_target_has_its_size_and_its_color():
    frame = SCENE.frame(0.0, SCENE.bearing(0.0))
    _, _, width, height = cv2.boundingRect(frame.mask.astype(np.uint8))
    expected = TARGET_DIAMETER * SCENE.focal
    assert width == pytest.approx(expected, abs=6) and height == pytest.approx(expected, abs=6)
    red, _, blue = frame.image[frame.mask].mean(0)
    wall_red, _, wall_blue = frame.image[~frame.mask].mean(0)
    assert red - blue > 100 > abs(wall_red - wall_blue)


def test_the_wall_moves_to_the_right_when_the_robot_turns_to_the_left():
    scene = TurningScene(5, 320, 240, FIELD_OF_VIEW)
    before, after = (
        cv2.cvtColor(scene.frame(0.0, heading).image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        for heading in (1.0, 1.02)
    )
    window = cv2.createHanningWindow((320, 240), cv2.CV_32F)
    (moved, _), _ = cv2.phaseCorrelate(before, after, window)
    assert moved == pytest.approx(0.02 * scene.focal, abs=1.0)


def test_a_robot_that_stands_loses_the_target_and_one_that_follows_sees_it_vanish_once():
    times = np.arange(0.0, DURATION, 0.1)
    standing = [SCENE.frame(t, 0.0).mask.any() for t in times]
    assert np.mean(standing) < 0.9
    hidden = [not SCENE.frame(t, SCENE.bearing(t)).mask.any() for t in times]
    changes = np.flatnonzero(np.diff(hidden))
    assert len(changes) == 2
    assert 1.2 < (changes[1] - changes[0]) * 0.1 < 2.5
    assert abs(SCENE.bearing(times[changes[0] + 1]) - PANEL[0]) < PANEL[1] / 2


def test_a_seed_gives_the_same_pictures():
    first, second, other = (TurningScene(seed, 64, 48).frame(1.0, 0.1) for seed in (3, 3, 4))
    assert np.array_equal(first.image, second.image)
    assert not np.array_equal(first.image, other.image)


def test_the_target_rests_at_the_start():
    assert SCENE.bearing(-1.0) == SCENE.bearing(0.0) == SCENE.bearing(2.0)
    assert center_offset(SCENE.frame(0.0, 0.0).mask) < -0.15


def test_the_robot_turns_as_the_newest_command_says():
    robot = TurningRobot()
    assert robot.move(10.0) == 0.0
    robot.command(10.0, 1.0)
    assert robot.move(10.2) == pytest.approx(0.2)
    robot.command(10.3, -1.0)
    assert robot.move(10.4) == pytest.approx(0.2)


def test_the_robot_stands_when_the_commands_end():
    robot = TurningRobot()
    robot.command(5.0, 0.5)
    assert robot.move(5.1) == pytest.approx(0.05)
    assert robot.move(9.0) == pytest.approx(0.5 * COMMAND_SECONDS)
    robot.command(9.0, 0.5)
    assert robot.move(9.2) == pytest.approx(0.5 * COMMAND_SECONDS + 0.1)
