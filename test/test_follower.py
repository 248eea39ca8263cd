"""The follower's control law, alone and in a closed loop with a simulated camera."""

import math

import pytest
from following_world import World

from mosam_ros.following.controller import STOP, Follower, FollowerConfig, Sight
from mosam_ros.following.view import View

VIEW = View.from_field_of_view(640, 480, 1.05)


def follower(**config) -> Follower:
    return Follower(FollowerConfig(**config))


def command(sight: Sight, now: float = 0.1, **config):
    robot = follower(**config)
    robot.see(sight)
    return robot.motion(now)


def test_without_a_target_the_robot_stands():
    assert follower().motion(5.0) == STOP


def test_it_turns_towards_the_target():
    assert command(Sight(0.0, 0.2)).turn > 0
    assert command(Sight(0.0, -0.2)).turn < 0
    assert command(Sight(0.0, 0.0)).turn == 0


def test_it_tilts_only_where_told_to():
    assert command(Sight(0.0, 0.0, 0.2)).tilt == 0
    assert command(Sight(0.0, 0.0, 0.2), tilt=True).tilt > 0


@pytest.mark.parametrize(("ratio", "sign"), [(2.0, 1), (1.0, 0), (0.5, -1), (None, 0), (0.0, -1)])
def test_it_keeps_the_distance(ratio, sign):
    forward = command(Sight(0.0, 0.0, distance_ratio=ratio), max_reverse=0.3).forward
    assert (forward > 0) - (forward < 0) == sign


def test_it_backs_up_only_where_told_to():
    assert command(Sight(0.0, 0.0, distance_ratio=0.5)).forward == 0


def test_it_turns_before_it_drives():
    ahead, aside, behind = (
        command(Sight(0.0, bearing, distance_ratio=1.3)).forward for bearing in (0.0, 0.2, 0.5)
    )
    assert ahead > aside > behind == 0


def test_the_limits_hold():
    motion = command(
        Sight(0.0, 3.0, distance_ratio=50.0), max_turn=0.7, max_speed=0.2, drive_within=3.14
    )
    assert motion.turn == 0.7
    assert 0 < motion.forward <= 0.2


def test_a_moving_target_is_led_by_its_motion_times_the_latency():
    robot = follower(rate_gain=0.0, rate_smoothing=0.0, delay=0.05, turn_gain=1.0)
    for time in (0.0, 0.1):
        robot.see(Sight(time, 0.1, rates=(0.4, 0.0)))
    assert robot.motion(0.3).turn == pytest.approx(0.1 + 0.4 * (0.2 + 0.05))


def test_a_robot_that_turns_with_its_target_goes_on():
    robot = follower(rate_smoothing=0.0, rate_gain=1.0)
    for index in range(1, 12):
        robot.see(Sight(0.1 * index, 0.0, rates=(0.3, 0.0) if index < 3 else (0.0, 0.0)))
        turn = robot.motion(0.1 * index).turn
    assert turn > 0.1


def test_a_target_whose_motion_is_unknown_is_not_followed_by_the_old_one():
    robot, head = follower(), 0.0
    for index in range(200):
        time = 0.05 * index
        moves = time < 3.0
        turn = robot.motion(time).turn
        head += 0.05 * turn
        bearing = 0.5 * min(time, 3.0) - head
        robot.see(Sight(time, bearing, rates=(0.5 - turn, 0.0) if moves else None))
    assert abs(bearing) < 0.01


def test_a_stale_stream_stops_the_robot():
    robot = follower(stale_after=0.5)
    robot.see(Sight(10.0, 0.3))
    assert robot.motion(10.4) != STOP
    assert robot.motion(10.6) == STOP


def test_frames_from_another_clock_are_not_followed():
    assert command(Sight(100.0, 0.3), now=5.0) == STOP


def test_it_waits_for_a_hidden_target_then_stops():
    robot = follower(occluded_limit=0.5)
    robot.see(Sight(10.0, 0.3, distance_ratio=2.0))
    robot.hidden(10.1)
    assert robot.motion(10.2).forward == 0
    robot.hidden(10.5)
    assert robot.motion(10.55) == STOP
    robot.see(Sight(10.6, 0.3, distance_ratio=2.0))
    assert robot.motion(10.65) != STOP


@pytest.mark.parametrize(
    "sight",
    [
        Sight(10.1, math.nan),
        Sight(10.1, 0.1, math.inf),
        Sight(10.1, 0.1, rates=(math.nan, 0.0)),
        Sight(10.1, 0.1, distance_ratio=math.inf),
    ],
)
def test_numbers_that_are_not_finite_count_as_not_seen(sight):
    robot = follower()
    robot.see(Sight(10.0, 0.3))
    robot.see(sight)
    assert robot.motion(10.2).forward == 0
    assert math.isfinite(robot.motion(10.2).turn)
    robot.see(Sight(10.3, 0.3))
    assert robot.motion(10.35).turn > 0


def test_after_a_jump_back_in_time_it_follows_the_new_frames():
    robot = follower()
    robot.see(Sight(100.0, 0.3))
    robot.motion(100.1)
    robot.see(Sight(2.0, -0.3))
    assert robot.motion(2.1).turn < 0


PATHS = {
    "still": lambda time: 0.2,
    "steady": lambda time: 0.3 * time,
    "faster": lambda time: 0.5 * time,
    "swaying": lambda time: 0.5 * math.sin(2 * math.pi * time / 12),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("latency", [0.05, 0.12, 0.2])
@pytest.mark.parametrize("obedience", [0.85, 1.0, 1.15])
def test_the_target_stays_within_15_percent_of_the_center(path, latency, obedience):
    world = World(PATHS[path], latency=latency, obedience=obedience)
    world.run(Follower(), 20.0)
    settled = [abs(offset) for time, offset in world.offsets if time > 2.0]
    assert max(settled) <= 0.15


@pytest.mark.parametrize("gain", [0.4, 0.7])
def test_a_tracker_that_trusts_velocities_little_is_followed_too(gain):
    world = World(PATHS["steady"], velocity_gain=gain)
    world.run(Follower(), 20.0)
    assert max(abs(offset) for time, offset in world.offsets if time > 2.0) <= 0.15


def test_leading_pays():
    errors = []
    for lead in (0.0, 0.5):
        world = World(PATHS["faster"], latency=0.2)
        world.run(Follower(FollowerConfig(max_lead=lead)), 20.0)
        errors.append(max(abs(offset) for time, offset in world.offsets if time > 2.0))
    assert errors[1] < 0.5 * errors[0]


def test_the_robot_stops_when_the_target_is_hidden_and_goes_on_when_it_is_back():
    world = World(lambda time: 0.3 * min(time, 6.0), visible=lambda time: not 5.0 <= time < 8.0)
    world.run(Follower(FollowerConfig(occluded_limit=0.5)), 12.0)
    hidden = [motion for time, motion in world.commands if 5.6 <= time < 8.0]
    assert set(hidden) == {STOP}
    assert any(motion != STOP for time, motion in world.commands if 8.2 < time < 9.0)
    assert abs(world.offsets[-1][1]) <= 0.15


def test_the_wanted_distance_is_reached_and_kept():
    world = World(lambda time: 0.0, distance=lambda time: 4.0 + 0.2 * time)
    world.run(Follower(), 30.0)
    assert world.distances[-1] == pytest.approx(2.0, rel=0.25)
    assert min(world.distances) > 1.9


def test_a_pixel_s_angles_are_those_of_the_field_of_view():
    assert VIEW.angles(0, 240) == pytest.approx((1.05 / 2, 0))
    assert VIEW.angles(640, 240) == pytest.approx((-1.05 / 2, 0))
    assert VIEW.angles(320, 480)[1] > 0


@pytest.mark.parametrize(("x", "y"), [(320, 240), (50, 400), (600, 10)])
def test_rates_are_the_change_of_the_angles(x, y):
    step = 1e-4
    before, after = VIEW.angles(x, y), VIEW.angles(x + 30 * step, y - 50 * step)
    changes = [(new - old) / step for old, new in zip(before, after, strict=True)]
    assert VIEW.rates(x, y, 30, -50) == pytest.approx(changes, rel=1e-3)
