"""The control law of the follower: from where a target was seen to how the robot should move."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

NEAREST_RANGE_RATIO = 0.05
"""Of the wanted distance: nothing is taken to be nearer, nor more than 1 / this away."""

COMMANDS_KEPT = 400
"""Commands remembered, to know how the robot turned when a frame was taken."""

FRAMES_KEPT = 32
"""Times of frames remembered; no rate is averaged over more."""


@dataclass(frozen=True)
class Sight:
    """A target as one frame showed it.

    Attributes:
        time: of the frame, in seconds.
        bearing: how far the target is to the left of where the camera looks, in radians.
        elevation: how far it is below that, in radians.
        rates: how fast these two grow in the image, in radians per second; None where unknown.
        distance_ratio: its distance over the wanted one; None where unknown, then nothing drives.
    """

    time: float
    bearing: float
    elevation: float = 0.0
    rates: tuple[float, float] | None = None
    distance_ratio: float | None = None


@dataclass(frozen=True)
class Motion:
    """A command for the robot; the axes are those of REP 103: x forward, y left, z up.

    Attributes:
        forward: in metres per second.
        turn: to the left, in radians per second.
        tilt: of the camera, downwards, in radians per second.
    """

    forward: float = 0.0
    turn: float = 0.0
    tilt: float = 0.0


STOP = Motion()


@dataclass(frozen=True)
class FollowerConfig:
    """How eagerly the robot follows, and when it stops.

    Attributes:
        turn_gain: turn in rad/s per radian that the target is off the center.
        rate_gain: share of the target's own angular rate that the robot turns with.
        rate_frames: frames over which the sights' rates were averaged where they come from.
        rate_smoothing: seconds over which the target's angular rate is smoothed.
        max_turn: rad/s.
        tilt: whether the camera is tilted too, by the same gains.
        forward_gain: speed in m/s per doubling of the distance.
        max_speed, max_reverse: m/s.
        drive_within: radians off the center at which the robot stops driving and only turns.
        delay: seconds from a command to the movement.
        max_lead: seconds that the target is led by at most.
        occluded_limit: seconds that a hidden target is waited for before the robot stops.
        stale_after: age in seconds from which a frame says nothing any more.
    """

    turn_gain: float = 2.0
    rate_gain: float = 0.9
    rate_frames: int = 3
    rate_smoothing: float = 0.1
    max_turn: float = 1.5
    tilt: bool = False
    forward_gain: float = 0.8
    max_speed: float = 0.5
    max_reverse: float = 0.0
    drive_within: float = 0.4
    delay: float = 0.05
    max_lead: float = 0.5
    occluded_limit: float = 0.5
    stale_after: float = 0.5


class Follower:
    """Turns towards a target and keeps its distance.

    Call `see`, `hidden` or `reset` for every frame, and `motion` as often as the robot wants a
    command. The robot turns at the target's own angular rate, which is what the image shows plus
    what the robot turned itself, and corrects the offset that the target will have by the time
    the command works.

    Args:
        config: how to follow; may be replaced at any time.
    """

    def __init__(self, config: FollowerConfig | None = None) -> None:
        self.config = config or FollowerConfig()
        self._commands: deque[tuple[float, Motion]] = deque(maxlen=COMMANDS_KEPT)
        self.reset()

    def reset(self) -> None:
        """Forget the target; the robot stops."""
        self._sight: Sight | None = None
        self._newest = -math.inf
        self._times: deque[float] = deque(maxlen=FRAMES_KEPT)
        self._rates = (0.0, 0.0)

    def see(self, sight: Sight) -> None:
        """The target was tracked in a frame; numbers that are not finite count as not seen."""
        numbers = (sight.bearing, sight.elevation, *(sight.rates or ()), sight.distance_ratio or 0)
        if not all(map(math.isfinite, numbers)):
            self.hidden(sight.time)
            return
        if sight.time < self._newest:
            self.reset()
        self._learn_rates(sight)
        self._sight = sight
        self._newest = sight.time

    def hidden(self, time: float) -> None:
        """The target was occluded in a frame."""
        if time < self._newest:
            self.reset()
        self._newest = time

    def motion(self, now: float) -> Motion:
        """The command for this moment, in seconds of the same clock as the frames' times."""
        command = self._command(now)
        self._commands.append((now, command))
        return command

    def _command(self, now: float) -> Motion:
        sight, config = self._sight, self.config
        if sight is None or not -config.stale_after <= now - self._newest <= config.stale_after:
            return STOP
        waiting = self._newest > sight.time
        if waiting and now - sight.time > config.occluded_limit:
            return STOP
        turned = self._turned(sight.time, now)
        turn = self._chase(sight.bearing, self._rates[0], turned[0], now, waiting)
        tilt = self._chase(sight.elevation, self._rates[1], turned[1], now, waiting)
        return Motion(
            forward=0.0 if waiting else self._drive(sight),
            turn=turn,
            tilt=tilt if config.tilt else 0.0,
        )

    def _chase(
        self, angle: float, target_rate: float, turned: float, now: float, waiting: bool
    ) -> float:
        """The angular rate that keeps one of the two angles small."""
        config = self.config
        lead = min(max(now - self._newest, 0.0) + config.delay, config.max_lead)
        # A hidden target is only expected to go on: where it is now nobody knows.
        correction = 0.0 if waiting else config.turn_gain * (angle + target_rate * lead - turned)
        return _limited(correction + config.rate_gain * target_rate, config.max_turn)

    def _drive(self, sight: Sight) -> float:
        config = self.config
        if sight.distance_ratio is None:
            return 0.0
        ratio = min(max(sight.distance_ratio, NEAREST_RANGE_RATIO), 1 / NEAREST_RANGE_RATIO)
        speed = config.forward_gain * math.log2(ratio)
        speed *= max(0.0, 1.0 - abs(sight.bearing) / config.drive_within)
        return min(max(speed, -config.max_reverse), config.max_speed)

    def _learn_rates(self, sight: Sight) -> None:
        """Smooth the target's own rates; where they are unknown the last ones fade."""
        times = list(self._times)[-self.config.rate_frames :]
        self._times.append(sight.time)
        if not times or times[0] >= sight.time:
            return
        seen = self._own_rates(sight, times[0])
        elapsed = sight.time - times[-1]
        share = elapsed / (elapsed + self.config.rate_smoothing)
        bearing, elevation = (
            old + share * (new - old) for old, new in zip(self._rates, seen, strict=True)
        )
        self._rates = bearing, elevation

    def _own_rates(self, sight: Sight, since: float) -> tuple[float, float]:
        """The rates that the image shows, averaged since a time, without the robot's turning."""
        if sight.rates is None:
            return 0.0, 0.0
        turned, tilted = self._turned(since, sight.time - self.config.delay)
        seconds = sight.time - since
        return sight.rates[0] + turned / seconds, sight.rates[1] + tilted / seconds

    def _turned(self, start: float, now: float) -> tuple[float, float]:
        """The angles that commands until `now` turn and tilt the robot by after `start`."""
        start -= self.config.delay
        turned = tilted = 0.0
        end = now
        for given, command in reversed(self._commands):
            if given < end:
                seconds = end - max(given, start)
                turned += command.turn * seconds
                tilted += command.tilt * seconds
                end = given
            if given <= start:
                break
        return turned, tilted


def _limited(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)
