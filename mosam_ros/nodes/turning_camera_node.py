"""A simulated robot that turns as `cmd_vel` says: its camera, and the clock of its world."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from geometry_msgs.msg import Twist
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.task import Future
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from mosam_ros.msg import TrackedTargetArray
from mosam_ros.nodes.conversions import color_to_image, labels_to_image
from mosam_ros.nodes.running import StartError, run_node
from mosam_ros.synthetic.turning_scene import DURATION, TurningRobot, TurningScene

STEP = 0.025
"""Seconds that the clock goes on at once."""

LISTENERS = 2
"""Subscribers to the images that the scene waits for: the tracker and the recorder."""

CONNECT_SECONDS = 0.5
"""Between the last node's arrival and the first frame: both sides have to know each other."""

ANSWER_SECONDS = 2.0
"""How long the clock stands at most for a frame that is not answered: it may be lost."""

FLUSH_SECONDS = 2.0
"""How long the node lives on after the last frame, so that the last messages get through."""


class TurningCameraNode(Node):
    """`cmd_vel` in; `image`, `camera_info`, `~/ground_truth` (mono16: 1 the target), `/clock` out.

    The clock goes as fast as the real one. It stands when the next frame is due and the tracker has
    not answered the last one, so that a slow machine shows the same as a fast one, later.
    """

    def __init__(self) -> None:
        super().__init__("camera")
        self.done = Future()
        for name, default, description in (
            ("rate", 10.0, "frames per second"),
            ("seed", 0, "of the scene's textures"),
            ("frame_id", "camera_optical_frame", "frame_id of the images"),
        ):
            descriptor = ParameterDescriptor(description=description, read_only=True)
            self.declare_parameter(name, default, descriptor)
        rate, seed = self._value("rate"), self._value("seed")
        if not 0 < rate <= 1 / STEP:
            raise StartError(f"rate is {rate}: give the frames per second, up to {1 / STEP:g}")
        if seed < 0:
            raise StartError(f"seed is {seed}: give 0 or more")
        self._scene = TurningScene(seed)
        self._robot = TurningRobot()
        self._ticks = 0
        self._scene_start = self._next_frame = math.inf
        self._connected_since = self._sent_at = math.inf
        self._unanswered = 0
        self._connect()

    def _connect(self) -> None:
        self._time = self.create_publisher(Clock, "/clock", 10)
        self._images = self.create_publisher(Image, "image", qos_profile_sensor_data)
        self._infos = self.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
        self._ground_truth = self.create_publisher(Image, "~/ground_truth", QoSProfile(depth=1000))
        self._commands = self.create_subscription(Twist, "cmd_vel", self._on_command, 10)
        self.create_subscription(TrackedTargetArray, "mosam_tracker/targets", self._on_answer, 10)
        self._timer = self.create_timer(STEP, self._tick)

    def _value(self, name: str):
        return self.get_parameter(name).value

    @property
    def _now(self) -> float:
        """The time of the simulated world in seconds."""
        return self._ticks * STEP

    # Callbacks

    def _on_command(self, message: Twist) -> None:
        if math.isfinite(message.angular.z):
            self._robot.command(self._now, message.angular.z)

    def _on_answer(self, message: TrackedTargetArray) -> None:
        if Time.from_msg(message.header.stamp).nanoseconds == self._unanswered:
            self._unanswered = 0

    def _tick(self) -> None:
        due = self._now >= self._next_frame
        if due and self._unanswered and time.monotonic() - self._sent_at < ANSWER_SECONDS:
            return
        self._ticks += 1
        self._time.publish(Clock(clock=Time(seconds=self._now).to_msg()))
        if self._scene_start == math.inf:
            self._start_when_connected()
        elif self._now - self._scene_start > DURATION:
            self._end()
        elif due:
            self._publish_frame()

    # What is done about it

    def _start_when_connected(self) -> None:
        """Start the scene once everybody is there and had the time to connect."""
        connected = (
            self._images.get_subscription_count() >= LISTENERS
            and self.count_publishers(self._commands.topic_name) > 0
        )
        self._connected_since = min(self._connected_since, self._now) if connected else math.inf
        if self._now - self._connected_since >= CONNECT_SECONDS:
            self._scene_start = self._next_frame = self._now
            self.get_logger().info(f"the scene starts, at {self._value('rate'):g} Hz")

    def _publish_frame(self) -> None:
        self._next_frame += 1.0 / self._value("rate")
        stamp = Time(seconds=self._now)
        header = Header(stamp=stamp.to_msg(), frame_id=self._value("frame_id"))
        frame = self._scene.frame(self._now - self._scene_start, self._robot.move(self._now))
        self._infos.publish(camera_info(self._scene, header))
        self._ground_truth.publish(labels_to_image(frame.mask.astype("uint16"), header))
        self._images.publish(color_to_image(frame.image, "rgb8", header))
        self._unanswered, self._sent_at = stamp.nanoseconds, time.monotonic()

    def _end(self) -> None:
        self._timer.cancel()
        self.get_logger().info(f"the end, after {DURATION:g} s")
        self.create_timer(FLUSH_SECONDS, self._finish)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(0)


def camera_info(scene: TurningScene, header: Header) -> CameraInfo:
    """The lens of a scene's camera, without distortion."""
    focal, cx, cy = scene.focal, (scene.width - 1) / 2, (scene.height - 1) / 2
    return CameraInfo(
        header=header,
        width=scene.width,
        height=scene.height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[focal, 0.0, cx, 0.0, focal, cy, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[focal, 0.0, cx, 0.0, 0.0, focal, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def main(args: Sequence[str] | None = None) -> int:
    return run_node(TurningCameraNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
