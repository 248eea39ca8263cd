"""A world of one target on a circle around a robot, as a tracked camera on the robot sees it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mosam_ros.following.controller import Follower, Motion, Sight

FIELD_OF_VIEW = 1.05
"""Radians, from the left to the right edge of the image."""


@dataclass
class World:
    """The robot executes what it is told after a delay; frames reach it after a latency.

    Attributes:
        bearing: of the target in the world, radians to the left, by the time.
        distance: of the target, metres, by the time; measured from where the robot started.
        visible: whether the target can be seen, by the time.
        frame_interval, latency: of the camera and the tracker, in seconds.
        delay: of the robot, in seconds.
        obedience: share of a command that the robot really does.
        velocity_frames: intervals over which the tracker averages a velocity.
        velocity_gain: share of the velocity that the tracker trusts.
        noise: of a measured bearing, in radians.
    """

    bearing: Callable[[float], float]
    distance: Callable[[float], float] = lambda time: 2.0
    visible: Callable[[float], bool] = lambda time: True
    frame_interval: float = 0.1
    latency: float = 0.12
    delay: float = 0.05
    obedience: float = 1.0
    velocity_frames: int = 3
    velocity_gain: float = 1.0
    noise: float = 0.003
    wanted_distance: float = 2.0
    heading: float = 0.0
    driven: float = 0.0
    offsets: list[tuple[float, float]] = field(default_factory=list)
    commands: list[tuple[float, Motion]] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)

    def run(self, follower: Follower, seconds: float, step: float = 0.01) -> None:
        """Simulate; `offsets` holds (time, offset of the target over half the image's width)."""
        rng = np.random.default_rng(0)
        seen: deque[tuple[float, float]] = deque(maxlen=self.velocity_frames + 1)
        on_the_way: deque[tuple[float, Sight | None]] = deque()
        for index in range(round(seconds / step)):
            time = index * step
            offset = self.bearing(time) - self.heading
            self.offsets.append((time, math.tan(offset) / math.tan(FIELD_OF_VIEW / 2)))
            self.distances.append(self.distance(time) - self.driven)
            if index % round(self.frame_interval / step) == 0:
                in_view = self.visible(time) and abs(offset) < FIELD_OF_VIEW / 2
                measured = offset + rng.normal(0, self.noise)
                on_the_way.append((time, self._sight(time, measured, seen) if in_view else None))
            while on_the_way and on_the_way[0][0] + self.latency <= time:
                taken, sight = on_the_way.popleft()
                follower.see(sight) if sight else follower.hidden(taken)
            if index % round(0.05 / step) == 0:
                self.commands.append((time, follower.motion(time)))
            self._move(time, step)

    def _sight(self, time: float, bearing: float, seen: deque) -> Sight:
        seen.append((time, bearing))
        (first_time, first), (last_time, last) = seen[0], seen[-1]
        rate = (last - first) / max(last_time - first_time, 1e-9)
        ratio = self.distances[-1] / self.wanted_distance
        rates = (self.velocity_gain * rate, 0.0)
        return Sight(time, bearing, rates=rates, distance_ratio=ratio)

    def _move(self, time: float, step: float) -> None:
        done = [motion for given, motion in self.commands if given + self.delay <= time]
        if done:
            self.heading += self.obedience * done[-1].turn * step
            self.driven += self.obedience * done[-1].forward * step
