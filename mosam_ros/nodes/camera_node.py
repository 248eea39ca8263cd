"""The demo's camera: plays a scene, a video file or a folder of images at a rate, with stamps."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mosam_ros.frame_sources import (
    SYNTHETIC,
    CameraFrame,
    path_frames,
    scene_frames,
)
from mosam_ros.nodes.conversions import color_to_image, labels_to_image
from mosam_ros.nodes.running import StartError, run_node

FRAMES_AHEAD = 32
"""Frames decoded before they are due."""

RENDERED_AHEAD = 200
"""Frames of a scene rendered before the first is played: a camera leaves the cores to others."""

CONNECT_SECONDS = 3.0
"""Between the last subscriber's arrival and the first frame: both sides have to know each other,
and the slower one may need 2 s (measured)."""

FLUSH_SECONDS = 2.0
"""How long the node lives on after the last frame, so that the last messages get through."""


class _FramesAhead:
    """Iterates over frames that a thread prepares in advance.

    Args:
        frames: the frames; an error that they raise is kept in `error`.
        wanted: frames that have to be there before the first is taken.
    """

    def __init__(self, frames: Iterator[CameraFrame], wanted: int = 1) -> None:
        self.error: Exception | None = None
        self._wanted = wanted
        self._ended = False
        self._queue: queue.Queue[CameraFrame | None] = queue.Queue(max(wanted, FRAMES_AHEAD))
        self._thread = threading.Thread(target=self._fill, args=(frames,), daemon=True)
        self._thread.start()

    def _fill(self, frames: Iterator[CameraFrame]) -> None:
        try:
            for frame in frames:
                self._queue.put(frame)
        except Exception as error:  # handed to the node
            self.error = error
        self._queue.put(None)
        self._ended = True

    @property
    def ready(self) -> bool:
        """Whether the wanted frames, or all there are, are there."""
        return self._ended or self._queue.qsize() >= self._wanted

    def next(self) -> CameraFrame | None:
        """The next frame, None at the end. Raises queue.Empty while it is not ready."""
        return self._queue.get_nowait()


class CameraNode(Node):
    """`image` out, and `~/ground_truth` (mono16: 1 the target, 2 … other objects) for a scene."""

    def __init__(self) -> None:
        super().__init__("camera")
        self.done = Future()
        self._declare_parameters()
        rate = self._value("rate")
        if rate <= 0:
            raise StartError(f"rate is {rate}: give the frames per second, more than 0")
        self._images = self.create_publisher(Image, "image", qos_profile_sensor_data)
        self._ground_truth = self.create_publisher(Image, "~/ground_truth", QoSProfile(depth=1000))
        rendered = self._value("source") == SYNTHETIC
        self._frames = _FramesAhead(self._make_frames(), RENDERED_AHEAD if rendered else 1)
        if rendered:
            self.get_logger().info("rendering the scene's first frames")
        self._published = 0
        self._connected_at: float | None = None
        self._timer = self.create_timer(1.0 / rate, self._tick)

    def _declare_parameters(self) -> None:
        for name, default, description in (
            ("source", SYNTHETIC, "synthetic, a video file, or a folder of images"),
            ("rate", 10.0, "frames per second"),
            ("seed", 0, "which scene (synthetic)"),
            ("num_frames", 160, "length of the scene (synthetic)"),
            ("width", 640, "pixels (synthetic)"),
            ("height", 480, "pixels (synthetic)"),
            ("frame_id", "camera_optical_frame", "frame_id of the images"),
            ("loop", False, "start again at the end"),
            ("wait_for_subscribers", 1, "play once so many nodes subscribe to the images"),
        ):
            descriptor = ParameterDescriptor(description=description, read_only=True)
            self.declare_parameter(name, default, descriptor)

    def _value(self, name: str):
        return self.get_parameter(name).value

    def _make_frames(self) -> Iterator[CameraFrame]:
        while True:
            yield from self._play_once()
            if not self._value("loop"):
                return

    def _play_once(self) -> Iterator[CameraFrame]:
        source = self._value("source")
        if source != SYNTHETIC:
            return path_frames(Path(source).expanduser())
        return scene_frames(*map(self._value, ("seed", "width", "height", "num_frames")))

    def _tick(self) -> None:
        if not (self._published or self._frames.ready) or not self._connected():
            return
        try:
            frame = self._frames.next()
        except queue.Empty:
            self.get_logger().warning(
                "the frames are not ready in time: the rate is not held", throttle_duration_sec=5.0
            )
            return
        if frame is None:
            self._end()
        else:
            self._publish(frame)

    def _connected(self) -> bool:
        """Whether the subscribers are there and have had the time to connect."""
        if self._frames.error is not None or self._published:
            return True
        wanted = self._value("wait_for_subscribers")
        if self._images.get_subscription_count() < wanted:
            self._connected_at = None
            return False
        if self._connected_at is None:
            self._connected_at = time.monotonic()
        return time.monotonic() - self._connected_at >= CONNECT_SECONDS

    def _publish(self, frame: CameraFrame) -> None:
        if not self._published:
            height, width = frame.pixels.shape[:2]
            self.get_logger().info(
                f"playing {self._value('source')}: {width}x{height} at {self._value('rate'):g} Hz"
            )
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._value("frame_id"))
        if frame.labels is not None:
            self._ground_truth.publish(labels_to_image(frame.labels, header))
        self._images.publish(color_to_image(frame.pixels, frame.encoding, header))
        self._published += 1

    def _end(self) -> None:
        self._timer.cancel()
        error = self._frames.error
        if error is None:
            self.get_logger().info(f"the end: {self._published} frames")
            self.create_timer(FLUSH_SECONDS, lambda: self._finish(0))
        else:
            text = str(error) if isinstance(error, ValueError) else repr(error)
            self.get_logger().error(f"no frames: {text}")
            self._finish(1)

    def _finish(self, status: int) -> None:
        if not self.done.done():
            self.done.set_result(status)


def main(args: Sequence[str] | None = None) -> int:
    return run_node(CameraNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
