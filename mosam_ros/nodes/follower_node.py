"""An example of a planner: turns a robot towards a tracked target and keeps its distance."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from geometry_msgs.msg import Twist, Vector3
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo

from mosam_ros.following.controller import Follower, FollowerConfig, Motion, Sight
from mosam_ros.following.view import View
from mosam_ros.msg import TargetPositionArray, TrackedTarget, TrackedTargetArray
from mosam_ros.nodes.conversions import header_seconds
from mosam_ros.nodes.parameters import Change, Setting, declare_settings, setting_values
from mosam_ros.nodes.running import run_node
from mosam_ros.nodes.stall_watch import StallWatch

RELIABLE = QoSProfile(depth=10)
NEWEST = QoSProfile(depth=1)

CLOCK_PATIENCE = 3.0
"""Seconds of real time that ROS time may stand still before the robot stops.

By a clock that stands no frame gets old. A simulation that waits for a slow tracker has to get away
with it: the demo's waits for up to two seconds.
"""

DEFAULTS = FollowerConfig()

CONTROL_SETTINGS = {
    "turn_gain": Setting(
        DEFAULTS.turn_gain, "Turn in rad/s per radian that the target is off the center.", 0.0, 20.0
    ),
    "rate_gain": Setting(
        DEFAULTS.rate_gain, "Share of the target's own angular rate to turn with.", 0.0, 1.0
    ),
    "rate_frames": Setting(
        DEFAULTS.rate_frames, "Frames that the tracker takes a velocity from.", 1, 30
    ),
    "rate_smoothing": Setting(
        DEFAULTS.rate_smoothing,
        "Seconds over which the target's angular rate is smoothed.",
        0.0,
        10.0,
    ),
    "max_turn": Setting(DEFAULTS.max_turn, "Fastest turn in rad/s.", 0.0, 20.0),
    "tilt": Setting(DEFAULTS.tilt, "Tilt the camera too, by angular.y."),
    "forward_gain": Setting(
        DEFAULTS.forward_gain, "Speed in m/s per doubling of the wanted distance.", 0.0, 20.0
    ),
    "max_speed": Setting(DEFAULTS.max_speed, "Fastest speed forward in m/s.", 0.0, 20.0),
    "max_reverse": Setting(
        DEFAULTS.max_reverse, "Fastest speed backward in m/s; 0: never back up.", 0.0, 20.0
    ),
    "drive_within": Setting(
        DEFAULTS.drive_within,
        "Radians off the center at which the robot only turns.",
        0.01,
        3.14,
    ),
    "delay": Setting(DEFAULTS.delay, "Seconds from a command to the robot's movement.", 0.0, 5.0),
    "max_lead": Setting(DEFAULTS.max_lead, "Seconds that the target is led by at most.", 0.0, 5.0),
    "occluded_limit": Setting(
        DEFAULTS.occluded_limit,
        "Seconds that a hidden target is waited for before the robot stops.",
        0.0,
        60.0,
    ),
    "stale_after": Setting(
        DEFAULTS.stale_after, "Age in seconds from which a frame is no more followed.", 0.01, 60.0
    ),
}
"""Those of FollowerConfig, by the same names."""

SETTINGS = {
    "rate": Setting(20.0, "Commands per second.", 1.0, 200.0, change=Change.FIXED),
    "target_id": Setting(
        0, "The target to follow; 0: the first one seen, as long as it is there.", 0, 65535
    ),
    "distance": Setting(
        0.0, "Wanted distance in metres, by the localizer's positions; 0: by box_height.", 0.0, 1e3
    ),
    "box_height": Setting(
        0.0,
        "Wanted height of the target's box as a share of the image's; 0: only turn.",
        0.0,
        1.0,
    ),
    "image_width": Setting(640, "Pixels; as long as no camera_info comes.", 1, 100000),
    "image_height": Setting(480, "Pixels; as long as no camera_info comes.", 1, 100000),
    "horizontal_fov": Setting(
        1.05, "Angle of the image's width in radians; as long as no camera_info comes.", 0.01, 3.0
    ),
    **CONTROL_SETTINGS,
}


def choose(
    targets: Sequence[TrackedTarget], wanted: int, current: int | None
) -> TrackedTarget | None:
    """The target to follow.

    Args:
        targets: all that there are.
        wanted: the id of the only one to follow; 0: any.
        current: the id of the one followed so far, which is kept while it is there.
    """
    by_id = {target.id: target for target in targets}
    if wanted:
        return by_id.get(wanted)
    if current in by_id:
        return by_id[current]
    return next((t for t in targets if t.state == TrackedTarget.TRACKED), None)


class FollowerNode(Node):
    """Targets, and positions if there are any, in; `cmd_vel` out, at a fixed rate."""

    def __init__(self) -> None:
        super().__init__("mosam_follower")
        declare_settings(self, SETTINGS)
        self._follower = Follower()
        self._target_id: int | None = None
        self._info: CameraInfo | None = None
        self._distances: dict[int, tuple[float, float]] = {}
        self._newest: float | None = None
        self._commands = self.create_publisher(Twist, "cmd_vel", NEWEST)
        self.create_subscription(
            TrackedTargetArray, "mosam_tracker/targets", self._on_targets, RELIABLE
        )
        self.create_subscription(
            TargetPositionArray, "mosam_localizer/positions", self._on_positions, RELIABLE
        )
        self.create_subscription(
            CameraInfo, "camera_info", self._on_camera_info, qos_profile_sensor_data
        )
        period = 1.0 / self.get_parameter("rate").value
        self.create_timer(period, self._command)
        self._clock_watch = StallWatch(time.monotonic())
        self._clock_seen = self.get_clock().now().nanoseconds
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(period, self._watch_clock, clock=steady)
        self.get_logger().info(f"commands on {self._commands.topic_name}")

    def _on_camera_info(self, message: CameraInfo) -> None:
        calibrated = 0 < message.k[0] < math.inf and 0 < message.k[4] < math.inf
        if calibrated and message.width and message.height:
            self._info = message

    def _on_positions(self, message: TargetPositionArray) -> None:
        stamp = header_seconds(message.header)
        self._distances = {
            item.id: (stamp, item.position.z) for item in message.positions if item.valid
        }

    def _on_targets(self, message: TrackedTargetArray) -> None:
        values = setting_values(self, SETTINGS)
        target = choose(message.targets, values["target_id"], self._target_id)
        target_id = target.id if target else None
        if target_id != self._target_id:
            self._follower.reset()
            self._target_id = target_id
            self.get_logger().info(f"following target {target_id}" if target else "no target")
        self._newest = header_seconds(message.header)
        if target is None or target.state == TrackedTarget.LOST:
            self._follower.reset()
        elif target.state == TrackedTarget.OCCLUDED:
            self._follower.hidden(self._newest)
        else:
            self._follower.see(self._sight(target, self._newest, values))

    def _sight(self, target: TrackedTarget, stamp: float, values: dict) -> Sight:
        view = self._view(values)
        x, y = target.centroid.x, target.centroid.y
        bearing, elevation = view.angles(x, y)
        prompt = target.motion_prompt
        rates = view.rates(x, y, prompt.velocity.x, prompt.velocity.y) if prompt.valid else None
        ratio = self._distance_ratio(target, stamp, view, values)
        return Sight(stamp, bearing, elevation, rates, ratio)

    def _view(self, values: dict) -> View:
        if self._info is None:
            return View.from_field_of_view(
                values["image_width"], values["image_height"], values["horizontal_fov"]
            )
        info = self._info
        center = info.width / 2, info.height / 2
        return View(info.width, info.height, info.k[0], info.k[4], *center)

    def _distance_ratio(
        self, target: TrackedTarget, stamp: float, view: View, values: dict
    ) -> float | None:
        """The target's distance over the wanted one, None where it is not known or not wanted."""
        if values["distance"] > 0:
            measured, distance = self._distances.get(target.id, (stamp, None))
            if distance is not None and abs(stamp - measured) <= values["stale_after"]:
                return distance / values["distance"]
            self.get_logger().warning(
                f"the robot only turns: distance is set, but no position of target {target.id} "
                "comes; is the localizer running, and does it get depth?",
                throttle_duration_sec=5.0,
                skip_first=True,
            )
            return None
        if values["box_height"] > 0 and target.box.height:
            return values["box_height"] * view.height / target.box.height
        return None

    def _command(self) -> None:
        values = setting_values(self, CONTROL_SETTINGS)
        self._follower.config = FollowerConfig(**values)
        now = self.get_clock().now().nanoseconds / 1e9
        self._say_if_stale(now, values["stale_after"])
        self._commands.publish(twist(self._follower.motion(now)))

    def _watch_clock(self) -> None:
        """Stop the robot while ROS time stands still: the commands stand still with it."""
        now, clock = time.monotonic(), self.get_clock().now().nanoseconds
        if clock != self._clock_seen:
            self._clock_seen = clock
            if silence := self._clock_watch.arrived(now):
                self.get_logger().info(f"ROS time goes on, after {silence:.1f} s")
        elif self._clock_watch.check(now, CLOCK_PATIENCE):
            self.get_logger().warning(
                "the robot stands: ROS time has stood still for "
                f"{self._clock_watch.silence(now):.1f} s; with use_sim_time somebody has to "
                "publish /clock"
            )
        if self._clock_watch.stalled:
            self._commands.publish(Twist())

    def _say_if_stale(self, now: float, limit: float) -> None:
        if self._newest is not None and abs(now - self._newest) > limit:
            self.get_logger().warning(
                f"the robot stands: the newest frame is {now - self._newest:.2f} s old, more than "
                "stale_after; is the tracker running, and on the same clock?",
                throttle_duration_sec=5.0,
            )


def twist(motion: Motion) -> Twist:
    """A command as a message."""
    return Twist(linear=Vector3(x=motion.forward), angular=Vector3(y=motion.tilt, z=motion.turn))


def main(args: Sequence[str] | None = None) -> int:
    return run_node(FollowerNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
