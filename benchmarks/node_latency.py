"""How the tracker node keeps up with a camera: real processes, one target, masks subscribed.

    python benchmarks/node_latency.py --rate 10 --frames 100 --json node_latency.json
    python benchmarks/node_latency.py --whole --json whole.json

A camera process plays a synthetic 640x480 scene to a tracker process. Nobody subscribes to the
overlay, unless with --whole: then the overlay is watched and a localizer process measures where the
target is, by depth images of the camera's size and rate (it needs message_filters). The node's own
overhead is its time from taking a frame to having published the answer, less the tracker's.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image

from mosam_ros.demo import DemoError, DemoProcess, demo_environment
from mosam_ros.msg import TargetPositionArray, TargetSelection, TrackedTargetArray
from mosam_ros.nodes.conversions import labels_from_image

ANSWERS = QoSProfile(depth=1000)


DEPTH_MM = 2000
FOCAL_PIXELS = 550.0


class Probe(Node):
    """Selects the target once and notes what the camera sent and the tracker answered.

    Args:
        whole: also watch the overlay and give the localizer depth.
    """

    def __init__(self, whole: bool) -> None:
        super().__init__("probe")
        self.located = 0
        self.tracked: list[tuple[float, float]] = []  # seconds: tracker node's total, latency
        self.answered = 0
        self.diagnostics: dict[str, str] = {}
        self._selected = False
        self._select = self.create_publisher(TargetSelection, "select", ANSWERS)
        topics = [
            (Image, "camera/ground_truth", self._on_truth),
            (TrackedTargetArray, "mosam_tracker/targets", self._on_targets),
            (Image, "mosam_tracker/masks", lambda message: None),
            (DiagnosticArray, "/diagnostics", self._on_diagnostics),
        ]
        self._whole = whole
        if whole:
            self._depth = self.create_publisher(Image, "depth", ANSWERS)
            self._info = self.create_publisher(CameraInfo, "camera_info", ANSWERS)
            topics += [
                (Image, "mosam_tracker/overlay", lambda message: None),
                (TargetPositionArray, "mosam_localizer/positions", self._on_positions),
            ]
        for kind, topic, callback in topics:
            self.create_subscription(kind, topic, callback, ANSWERS)

    def _on_truth(self, message: Image) -> None:
        if self._whole:
            self._publish_depth(message)
        if not self._selected and self._select.get_subscription_count():
            self._selected = True
            mask = (labels_from_image(message) == 1).astype(np.uint8)
            box = [float(value) for value in cv2.boundingRect(mask)]
            self._select.publish(TargetSelection(header=message.header, target_id=1, box=box))

    def _publish_depth(self, frame: Image) -> None:
        width, height = frame.width, frame.height
        pixels = array.array("B", np.full(width * height, DEPTH_MM, "<u2").tobytes())
        depth = Image(header=frame.header, width=width, height=height, encoding="16UC1")
        depth.step, depth.data = 2 * width, pixels
        info = CameraInfo(header=frame.header, width=width, height=height)
        info.k = [FOCAL_PIXELS, 0.0, width / 2, 0.0, FOCAL_PIXELS, height / 2, 0.0, 0.0, 1.0]
        info.distortion_model, info.d = "plumb_bob", [0.0] * 5
        self._info.publish(info)
        self._depth.publish(depth)

    def _on_positions(self, message: TargetPositionArray) -> None:
        self.located += bool(message.positions)

    def _on_targets(self, message: TrackedTargetArray) -> None:
        self.answered += 1
        if message.targets:
            latency = self.get_clock().now() - Time.from_msg(message.header.stamp)
            self.tracked.append((message.seconds_total, latency.nanoseconds / 1e9))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        status = message.status[0]
        if "tracker" in status.name:
            self.diagnostics = {value.key: value.value for value in status.values}


def measure(rate: float, frames: int, whole: bool = False) -> dict[str, float | int | str]:
    """Play `frames` frames at `rate` Hz and return the figures; `whole`: see above."""
    environment = demo_environment()
    os.environ.update(environment)
    rclpy.init()
    probe = Probe(whole)
    threading.Thread(target=_spin, args=(probe,), daemon=True).start()
    tracker = DemoProcess.start("tracker_node", environment)
    others = [DemoProcess.start("localizer_node", environment)] if whole else []
    camera = DemoProcess.start("camera_node", environment, rate=rate, num_frames=frames)
    try:
        while camera.process.poll() is None:
            if any(node.process.poll() is not None for node in (tracker, *others)):
                raise DemoError("a node ended before its time, see above")
            time.sleep(0.1)
        time.sleep(1.5)  # one more round of diagnostics
    finally:
        for process in (tracker, camera, *others):
            process.stop()
        rclpy.try_shutdown()
    if not probe.tracked:
        raise DemoError("the tracker answered no frame with the target in it")
    return figures(probe, frames)


def _spin(node: Node) -> None:
    try:
        rclpy.spin(node)
    except ExternalShutdownException:
        pass


def figures(probe: Probe, sent: int) -> dict[str, float | int | str]:
    """The measured figures by name; times in milliseconds."""
    total, latency = 1000 * np.array(probe.tracked).T
    return {
        "frames_sent": sent,
        "frames_answered": probe.answered,
        "frames_located": probe.located,
        "share_answered": probe.answered / sent,
        "node_total_ms_p50": float(np.percentile(total, 50)),
        "node_total_ms_p99": float(np.percentile(total, 99)),
        "latency_ms_p50": float(np.percentile(latency, 50)),
        "latency_ms_p99": float(np.percentile(latency, 99)),
        "latency_p99_over_p50": float(np.percentile(latency, 99) / np.percentile(latency, 50)),
        "own_overhead_ms_p50": float(probe.diagnostics["own overhead p50 (ms)"]),
        "own_overhead_ms_p99": float(probe.diagnostics["own overhead p99 (ms)"]),
        "device": probe.diagnostics["device"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=10.0, help="Hz")
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--whole", action="store_true", help="with overlay and localizer")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    try:
        result = measure(arguments.rate, arguments.frames, arguments.whole)
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    for name, value in result.items():
        print(f"  {name:<22} {value if not isinstance(value, float) else round(value, 3)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
