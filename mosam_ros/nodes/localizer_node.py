"""Says where the tracked targets are in space: masks, registered depth and the camera's lens."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Sequence

import numpy as np
from geometry_msgs.msg import PoseArray
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, Image

from mosam_ros.localization.camera import Camera
from mosam_ros.localization.pairing import PairingWatch
from mosam_ros.localization.target_motion import TargetMotion, Velocity
from mosam_ros.localization.target_position import (
    LocalizationConfig,
    TargetPosition,
    depth_in_metres,
    locate,
)
from mosam_ros.mosam.stamps import TIME_JUMP, starts_anew
from mosam_ros.msg import TargetPositionArray, TrackedTarget, TrackedTargetArray
from mosam_ros.nodes.conversions import header_seconds, labels_from_image
from mosam_ros.nodes.image_input import ImageError
from mosam_ros.nodes.parameters import Change, Setting, declare_settings, setting_values
from mosam_ros.nodes.position_messages import (
    camera_from_info,
    depth_pixels,
    markers,
    poses,
    position_message,
)
from mosam_ros.nodes.running import StartError, run_node

RELIABLE = QoSProfile(depth=10)

TRACKER_INPUTS = {
    "mosam_tracker/masks": (Image, RELIABLE),
    "mosam_tracker/targets": (TrackedTargetArray, RELIABLE),
}
INPUTS = {
    **TRACKER_INPUTS,
    "depth": (Image, qos_profile_sensor_data),
    "camera_info": (CameraInfo, qos_profile_sensor_data),
}
"""By topic: the message's type and the QoS asked for."""

MARKER_SECONDS = 0.5
"""How long RViz shows a position that is not followed by another."""

SETTINGS = {
    "slop": Setting(
        0.017,
        "Seconds by which the stamps of masks, depth and camera_info may differ: half a frame.",
        0.0001,
        10.0,
        change=Change.FIXED,
    ),
    "queue_size": Setting(
        30,
        "Messages kept per topic; depth images wait in it until the tracker has answered.",
        1,
        1000,
        change=Change.FIXED,
    ),
    "patience": Setting(
        3.0,
        "Seconds without a position after which the log says why.",
        0.1,
        3600.0,
        change=Change.FIXED,
    ),
    "rectified": Setting(
        False, "The images are rectified: P of camera_info counts, not K and the distortion."
    ),
    "min_pixels": Setting(
        LocalizationConfig.min_pixels,
        "Fewer pixels with a usable depth make no position.",
        1,
        1000000,
    ),
    "depth_error": Setting(
        LocalizationConfig.depth_error,
        "Expected error of the depth as a share of it (standard deviation).",
        0.0001,
        1.0,
    ),
    "pixel_error": Setting(
        LocalizationConfig.pixel_error,
        "Expected error of a mask's center in pixels (standard deviation).",
        0.01,
        100.0,
    ),
    "acceleration": Setting(
        1.0,
        "Expected change of a target's velocity in m/s per second; less is smoother and slower.",
        0.001,
        1000.0,
    ),
    "max_gap": Setting(
        1.0, "Seconds without a position after which a velocity starts anew.", 0.01, 60.0
    ),
}


class LocalizerNode(Node):
    """Masks, targets, depth and camera_info in; `~/positions`, `~/poses` and `~/markers` out."""

    def __init__(self) -> None:
        super().__init__("mosam_localizer")
        declare_settings(self, SETTINGS)
        self._motions: dict[int, TargetMotion] = {}
        self._frames_compared = False
        self._last_stamps: dict[str, float] = {}
        self._started = time.monotonic()
        self._tracker_topics = [self.resolve_topic_name(topic) for topic in TRACKER_INPUTS]
        self._watch: PairingWatch | None = None  # until the tracker publishes nothing can pair
        values = setting_values(self, SETTINGS)
        self._synchronize(values)
        self._positions = self.create_publisher(TargetPositionArray, "~/positions", RELIABLE)
        self._poses = self.create_publisher(PoseArray, "~/poses", RELIABLE)
        self._markers = self._marker_publisher()
        # Not on ROS time, which stands still where nobody publishes /clock.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._watch_timer = self.create_timer(0.5, self._look_for_trouble, clock=steady)
        names = ", ".join(map(self.resolve_topic_name, INPUTS))
        self.get_logger().info(f"waiting for {names}")

    def _synchronize(self, values: dict) -> None:
        try:
            import message_filters
        except ImportError as error:
            distribution = os.environ.get("ROS_DISTRO") or "<distro>"
            raise StartError(
                "the localizer needs message_filters, which is not installed: "
                f"sudo apt install ros-{distribution}-message-filters"
            ) from error
        inputs = []
        for topic, (kind, qos) in INPUTS.items():
            subscriber = message_filters.Subscriber(
                self,
                kind,
                topic,
                qos_profile=copy.copy(qos),  # overrides change it
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
            stamped = message_filters.SimpleFilter()
            subscriber.registerCallback(self._pass_on, self.resolve_topic_name(topic), stamped)
            inputs.append(stamped)
        self._synchronizer = message_filters.ApproximateTimeSynchronizer(
            inputs, values["queue_size"], values["slop"]
        )
        self._synchronizer.registerCallback(self._on_set)

    def _marker_publisher(self):
        try:
            from visualization_msgs.msg import MarkerArray
        except ImportError:
            self.get_logger().info("no markers for RViz: visualization_msgs is not installed")
            return None
        return self.create_publisher(MarkerArray, "~/markers", RELIABLE)

    # Callbacks

    def _pass_on(self, message, topic: str, stamped) -> None:
        """Hand a message to the synchronizer, which meets empty queues after a jump in time and
        cannot read a stamp before 1970.
        """
        if message.header.stamp.sec < 0:
            self.get_logger().warning(
                f"a message on {topic} is ignored: its stamp is negative; is the clock set?",
                throttle_duration_sec=5.0,
            )
            return
        self._note_arrival(header_seconds(message.header), topic)
        stamped.signalMessage(message)

    def _note_arrival(self, stamp: float, topic: str) -> None:
        if starts_anew(stamp, self._last_stamps.get(topic, stamp)):
            self._forget_after(stamp + TIME_JUMP)
        self._last_stamps[topic] = stamp
        if self._watch is None and topic in self._tracker_topics:
            self._watch = self._new_watch()
        if self._watch is not None:
            self._watch.arrived(topic, stamp)

    def _new_watch(self) -> PairingWatch:
        topics = [self.resolve_topic_name(name) for name in INPUTS]
        values = setting_values(self, SETTINGS)
        return PairingWatch(topics, values["slop"], values["patience"], time.monotonic())

    def _forget_after(self, stamp: float) -> None:
        """Drop waiting messages that a jump back in time has left in the future.

        The synchronizer would keep them, for it drops the smallest stamps first: the new ones.
        """
        for queue in self._synchronizer.queues:
            for nanoseconds in [key for key in queue if key > stamp * 1e9]:
                del queue[nanoseconds]

    def _look_for_trouble(self) -> None:
        now = time.monotonic()
        if self._watch is None:
            if now - self._started > self.get_parameter("patience").value:
                self._tell_of_waiting()
        elif text := self._watch.trouble(now):
            self.get_logger().error(text)

    def _tell_of_waiting(self) -> None:
        """Once: the tracker has not published yet, as while it loads its model."""
        publishers = sum(map(self.count_publishers, self._tracker_topics))
        self.get_logger().warning(
            f"the tracker has published nothing on {' and '.join(self._tracker_topics)} yet, where "
            f"{publishers} publisher(s) are: waiting until its model is loaded, it is active, and "
            "images come to it",
            once=True,
        )

    def _on_set(
        self, masks: Image, targets: TrackedTargetArray, depth: Image, info: CameraInfo
    ) -> None:
        if self._watch.paired(time.monotonic()):
            self.get_logger().info("the topics pair")
        try:
            self._localize(masks, targets, depth, info)
        except ImageError as error:
            self.get_logger().warning(f"no positions: {error}", throttle_duration_sec=5.0)
        except Exception as error:  # message_filters holds a lock here: it would never open again
            self.get_logger().error(
                f"no positions: {type(error).__name__}: {error}", throttle_duration_sec=5.0
            )

    # The work

    def _localize(
        self, masks: Image, targets: TrackedTargetArray, depth: Image, info: CameraInfo
    ) -> None:
        if masks.header.stamp != targets.header.stamp:
            raise ImageError("masks and targets of two frames were paired: lower slop")
        self._compare_frames(masks, depth)
        labels, pixels = labels_from_image(masks), depth_pixels(depth)
        if labels.shape != pixels.shape:
            raise ImageError(
                "the depth is {1}x{0}, the masks are {3}x{2}: register the depth to the "
                "tracked camera".format(*pixels.shape, *labels.shape)
            )
        values = setting_values(self, SETTINGS)
        camera = camera_from_info(info, labels.shape, values["rectified"])
        config = LocalizationConfig(
            values["min_pixels"], values["depth_error"], values["pixel_error"]
        )
        self._motions = {
            target.id: self._motions.get(target.id, TargetMotion()) for target in targets.targets
        }
        found = [self._measure(t, labels, pixels, camera, config) for t in targets.targets]
        motions = [
            self._move(target.id, position, header_seconds(masks.header), values)
            for target, position in zip(targets.targets, found, strict=True)
        ]
        self._publish(
            TargetPositionArray(
                header=masks.header,
                positions=list(map(position_message, targets.targets, found, motions)),
            )
        )

    def _compare_frames(self, masks: Image, depth: Image) -> None:
        if self._frames_compared:
            return
        self._frames_compared = True
        ours, theirs = masks.header.frame_id, depth.header.frame_id
        if ours != theirs:
            self.get_logger().warning(
                f"the depth is in the frame {theirs!r}, the masks are in {ours!r}: positions are "
                "wrong unless the depth is registered to the tracked camera"
            )

    def _measure(
        self,
        target: TrackedTarget,
        labels: NDArray[np.uint16],
        depth: NDArray,
        camera: Camera,
        config: LocalizationConfig,
    ) -> TargetPosition | None:
        box = target.box
        x, y = box.x_offset, box.y_offset
        cut = (slice(y, y + box.height), slice(x, x + box.width))
        mask = labels[cut] == target.id
        return locate(mask, depth_in_metres(depth[cut]), camera, config, (x, y))

    def _move(
        self, target_id: int, found: TargetPosition | None, stamp: float, values: dict
    ) -> Velocity | None:
        if found is None:
            return None
        motion = self._motions[target_id]
        motion.acceleration, motion.max_gap = values["acceleration"], values["max_gap"]
        return motion.update(stamp, found.position, found.covariance)

    def _publish(self, positions: TargetPositionArray) -> None:
        self._positions.publish(positions)
        if self._poses.get_subscription_count():
            self._poses.publish(poses(positions))
        if self._markers is not None and self._markers.get_subscription_count():
            self._markers.publish(markers(positions, MARKER_SECONDS))


def main(args: Sequence[str] | None = None) -> int:
    return run_node(LocalizerNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
