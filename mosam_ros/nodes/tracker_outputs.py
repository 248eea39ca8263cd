"""What the tracker node publishes about each frame."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rosidl_generator_py.import_type_support_impl import UnsupportedTypeSupport
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mosam_ros.mosam.results import FrameResult
from mosam_ros.msg import TrackedTargetArray
from mosam_ros.nodes.conversions import color_to_image, labels_to_image, targets_message
from mosam_ros.nodes.detections import detections_message
from mosam_ros.nodes.overlay import draw_overlay
from mosam_ros.nodes.qos import output_options, reliable


class TrackerOutputs:
    """The publishers; each message is made only while somebody subscribes to it.

    Args:
        node: whose `~/targets`, `~/masks`, `~/overlay` and, where vision_msgs is installed,
            `~/detections` they are.

    Raises:
        RCLError: a publisher cannot be made; those made before it are given back.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._publishers: list[LifecyclePublisher] = []
        try:
            self._targets = self._publisher(TrackedTargetArray, "targets")
            self._masks = self._publisher(Image, "masks")
            self._overlay = self._publisher(Image, "overlay")
            self._detections = self._detection_publisher()
        except Exception:
            self.destroy()
            raise

    def _publisher(self, kind: type, name: str) -> LifecyclePublisher:
        options = output_options(self._node, self._node.resolve_topic_name(f"~/{name}"))
        made = self._node.create_lifecycle_publisher(kind, f"~/{name}", reliable(), **options)
        self._publishers.append(made)
        return made

    def _detection_publisher(self) -> LifecyclePublisher | None:
        try:
            from vision_msgs.msg import Detection2DArray
        except ImportError as error:
            self._node.get_logger().debug(f"no ~/detections: vision_msgs is missing ({error})")
            return None
        try:
            return self._publisher(Detection2DArray, "detections")
        except UnsupportedTypeSupport as error:
            self._node.get_logger().warning(
                f"no ~/detections: vision_msgs is broken, install it again ({error})"
            )
            return None

    def destroy(self) -> None:
        """Give the publishers back."""
        while self._publishers:
            self._node.destroy_lifecycle_publisher(self._publishers.pop())

    def publish(
        self,
        result: FrameResult,
        frame: NDArray[np.uint8],
        header: Header,
        seconds_convert: float,
    ) -> None:
        """Publish what was found.

        Args:
            result: in the frame.
            frame: (height, width, 3) RGB.
            header: of the frame, for every message.
            seconds_convert: time that it took to turn the frame's message into an image.
        """
        targets, masks, overlay, detections = map(
            _wanted, (self._targets, self._masks, self._overlay, self._detections)
        )
        message = targets_message(result, header, seconds_convert) if targets or overlay else None
        labels = result.label_image() if masks or overlay else None
        if targets:
            self._targets.publish(message)
        if masks:
            self._masks.publish(labels_to_image(labels, header))
        if detections:
            self._detections.publish(detections_message(result, header))
        if overlay:
            bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
            drawn = draw_overlay(bgr, labels, message.targets)
            self._overlay.publish(color_to_image(drawn, "bgr8", header))


def _wanted(publisher: LifecyclePublisher | None) -> bool:
    return publisher is not None and publisher.get_subscription_count() > 0
