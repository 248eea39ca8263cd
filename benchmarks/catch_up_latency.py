"""How long new frames wait while targets selected in the past catch up: real processes.

    python benchmarks/catch_up_latency.py --rate 10 --rounds 5 --json catch_up_latency.json

A camera process plays a synthetic 640x480 scene to a tracker process that holds one target. Again
and again another one is selected in a frame that is 500 ms or 2 s old. A frame's wait is the time
from its stamp to its answer's arrival, less the seconds that the tracker says it worked on it: the
transport both ways, and the time for which the tracker did something else, such as catching up.
The tracker promises to spend no more than `catch_up_limit` per new frame on that, or the time of
one past frame where a single one takes longer.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import rclpy
from numpy.typing import NDArray
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from mosam_ros.demo import DemoError, DemoProcess, demo_environment
from mosam_ros.msg import TargetSelection, TrackedTargetArray
from mosam_ros.nodes.conversions import header_seconds, labels_from_image

ANSWERS = QoSProfile(depth=1000)
AGES = (0.5, 2.0)
"""Seconds by which the selections are late."""

BUFFER_SECONDS = 4.0
"""Of the tracker: enough for the oldest selection on a slow machine, too."""

PAUSE_FRAMES = 8
"""Frames in peace before each late selection."""

MOST_FRAMES = 100
"""New frames after which a target that is still not there will never be."""

HELD = 1
"""Id of the target that is tracked all the time."""


@dataclass
class Late:
    """What was seen of the selections of one age; seconds.

    Attributes:
        waits: of each new frame while the target caught up.
        frames: new frames from the selection to the target's first appearance.
        seconds: likewise.
    """

    waits: list[float] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Probe(Node):
    """Selects in frames of the past, one target after the other, and notes each frame's wait."""

    def __init__(self, ages: Sequence[float]) -> None:
        super().__init__("probe")
        self.plan = deque(ages)
        self.peace: list[float] = []
        self.work: list[float] = []
        self.late = {age: Late() for age in sorted(set(ages))}
        self.done = False
        self.problem = ""
        self._truth: deque[tuple[Header, list[float]]] = deque(maxlen=1000)
        self._pause = 2 * PAUSE_FRAMES
        self._next_id = HELD + 1
        self._wanted = 0
        self._frames = 0
        self._since = 0.0
        self._select = self.create_publisher(TargetSelection, "select", ANSWERS)
        self.create_subscription(Image, "camera/ground_truth", self._on_truth, ANSWERS)
        self.create_subscription(
            TrackedTargetArray, "mosam_tracker/targets", self._on_targets, ANSWERS
        )
        self.create_subscription(Image, "mosam_tracker/masks", lambda message: None, ANSWERS)

    def _now(self) -> float:
        return self.get_clock().now().nanoseconds / 1e9

    def _on_truth(self, message: Image) -> None:
        box = cv2.boundingRect((labels_from_image(message) == 1).astype(np.uint8))
        self._truth.append((message.header, [float(value) for value in box]))

    def _on_targets(self, message: TrackedTargetArray) -> None:
        wait = self._now() - header_seconds(message.header) - message.seconds_total
        ids = {target.id for target in message.targets}
        if self.done:
            return
        if HELD not in ids:
            self._hold(message.header)
        elif self._wanted:
            self._note_late(wait, ids)
        else:
            self._note_peace(wait, message.seconds_total)

    def _hold(self, header: Header) -> None:
        """Select the target that is tracked all the time, until it is."""
        box = next((box for seen, box in self._truth if seen.stamp == header.stamp), None)
        if box and box[2]:
            self._select.publish(TargetSelection(target_id=HELD, box=box))

    def _note_peace(self, wait: float, work: float) -> None:
        self._pause -= 1
        if self._pause < PAUSE_FRAMES:  # the first ones clear away what was
            self.peace.append(wait)
            self.work.append(work)
        if self._pause <= 0:
            self._select_late()

    def _select_late(self) -> None:
        age, now = self.plan[0], self._now()
        header, box = min(self._truth, key=lambda e: abs(now - header_seconds(e[0]) - age))
        if not box[2] or abs(now - header_seconds(header) - age) > 0.25:
            return  # hidden, or not played for so long yet: with a later frame
        self._wanted, self._next_id = self._next_id, self._next_id + 1
        self._frames, self._since = 0, now
        self._select.publish(TargetSelection(header=header, target_id=self._wanted, box=box))

    def _note_late(self, wait: float, ids: set[int]) -> None:
        late = self.late[self.plan[0]]
        late.waits.append(wait)
        self._frames += 1
        if self._wanted in ids:
            late.frames.append(self._frames)
            late.seconds.append(self._now() - self._since)
            self._select.publish(
                TargetSelection(action=TargetSelection.REMOVE, target_id=self._wanted)
            )
            self._wanted, self._pause = 0, PAUSE_FRAMES + 2
            self.plan.popleft()
            self.done = not self.plan
        elif self._frames > MOST_FRAMES:
            self.problem = f"target {self._wanted} never came, see the tracker's log above"
            self.done = True


def measure(rate: float, rounds: int, limit: float) -> dict[str, float | int]:
    """Select `rounds` targets of each age at `rate` Hz and return the figures."""
    environment = demo_environment()
    os.environ.update(environment)
    rclpy.init()
    probe = Probe(rounds * AGES)
    threading.Thread(target=_spin, args=(probe,), daemon=True).start()
    parameters = {"catch_up_limit": limit, "selection_buffer": BUFFER_SECONDS}
    tracker = DemoProcess.start("tracker_node", environment, **parameters)
    frames = round(len(probe.plan) * (3 * PAUSE_FRAMES + 2 * rate)) + 100
    camera = DemoProcess.start("camera_node", environment, rate=rate, num_frames=frames)
    try:
        while not probe.done:
            if tracker.process.poll() is not None or camera.process.poll() is not None:
                raise DemoError("the tracker or the camera ended before its time, see above")
            time.sleep(0.1)
    finally:
        tracker.stop()
        camera.stop()
        rclpy.try_shutdown()
    if probe.problem:
        raise DemoError(probe.problem)
    return figures(probe, limit)


def _spin(node: Node) -> None:
    try:
        rclpy.spin(node)
    except ExternalShutdownException:
        pass


def figures(probe: Probe, limit: float) -> dict[str, float | int]:
    """The measured figures by name; times in milliseconds where the name says so."""
    peace = 1000 * np.array(probe.peace)
    result: dict[str, float | int] = {
        "catch_up_limit_ms": 1000 * limit,
        "node_total_ms_p50": 1000 * float(np.median(probe.work)),
        "peace_frames": len(peace),
        **_spread("peace_wait_ms", peace),
    }
    for age, late in probe.late.items():
        name, waits = f"late_{1000 * age:.0f}ms", 1000 * np.array(late.waits)
        result |= {
            f"{name}_selections": len(late.frames),
            f"{name}_new_frames_p50": float(np.median(late.frames)),
            f"{name}_new_frames_max": max(late.frames),
            f"{name}_seconds_p50": float(np.median(late.seconds)),
            **_spread(f"{name}_wait_ms", waits),
            f"{name}_added_wait_ms_p50": float(np.median(waits) - np.median(peace)),
        }
    return result


def _spread(name: str, values: NDArray[np.float64]) -> dict[str, float]:
    shares = {"p50": 50, "p90": 90, "max": 100}
    return {f"{name}_{key}": float(np.percentile(values, q)) for key, q in shares.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=10.0, help="Hz")
    parser.add_argument("--rounds", type=int, default=5, help="selections of each age")
    parser.add_argument("--limit", type=float, default=0.1, help="the tracker's catch_up_limit")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    arguments = parser.parse_args()
    try:
        result = measure(arguments.rate, arguments.rounds, arguments.limit)
    except DemoError as error:
        print(error, file=sys.stderr)
        return 1
    for name, value in result.items():
        print(f"  {name:<28} {value if not isinstance(value, float) else round(value, 3)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
