"""Selects the demo's target, records what the tracker answers, and reports at the end."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from lifecycle_msgs.msg import TransitionEvent
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from rclpy.time import Time
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from tqdm import tqdm

from mosam_ros.demo_report import (
    Answer,
    FrameRecord,
    PackedMask,
    contact_sheet,
    format_table,
    parse_box,
    spread,
    summarize,
)
from mosam_ros.msg import TargetSelection, TrackedTargetArray
from mosam_ros.nodes.conversions import forecast_box, labels_from_image
from mosam_ros.nodes.image_input import image_to_rgb
from mosam_ros.nodes.overlay import draw_overlay
from mosam_ros.nodes.running import StartError, run_node
from mosam_ros.synthetic import VISIBLE_PIXELS

TARGET_ID = 1
TRUE_TARGET = 1
"""The target's value in the camera's ground truth."""

START_SECONDS = 300.0
"""How long to wait for the first image."""

QUIET_SECONDS = 3.0
"""A camera that is gone has ended when no image has come for so long."""

STALLED_SECONDS = 30.0
"""One that is there, on a machine that is slow or was asleep, not before so long."""

ANSWER_SECONDS = 2.0
"""The selection is sent again when the target has not been answered for so long."""

CONTACT_SHEET_PICTURES = 12

IMAGES = QoSProfile(depth=30, reliability=ReliabilityPolicy.BEST_EFFORT)
ANSWERS = QoSProfile(depth=100)
GROUND_TRUTH = QoSProfile(depth=1000)


class DemoRecorder(Node):
    """Listens to the camera and the tracker by their default names; `done` is the exit status."""

    summary_file = "summary.json"
    video_file = "overlay.mp4"
    contact_sheet_file = "contact_sheet.png"

    def __init__(self) -> None:
        super().__init__("demo_recorder")
        self.done = Future()
        for name, default, description in (
            ("box", "", "the target in the first image, 'x y width height'; empty: ground truth"),
            ("output_dir", "demo_output", "folder for what is written"),
            ("source", "synthetic", "the camera's source, for the summary"),
            ("seed", 0, "the camera's seed, for the summary"),
            ("expected_frames", 0, "for the progress bar; 0: not known"),
        ):
            self.declare_parameter(name, default, ParameterDescriptor(description=description))
        try:
            self._box = parse_box(self._value("box"))
        except ValueError as error:
            raise StartError(str(error)) from error
        self._pictures: dict[int, bytes] = {}
        self._truths: dict[int, PackedMask] = {}
        self._masks: dict[int, PackedMask] = {}
        self._answers: dict[int, tuple[TrackedTargetArray, float]] = {}
        self._started = self._last_frame = time.monotonic()
        self._selected: float | None = None
        self._bar = _progress(total=self._value("expected_frames") or None, desc="answered")
        self._connect()

    def _connect(self) -> None:
        self._select = self.create_publisher(TargetSelection, "select", ANSWERS)
        for kind, topic, callback, qos in (
            (TransitionEvent, "mosam_tracker/transition_event", self._on_transition, ANSWERS),
            (TrackedTargetArray, "mosam_tracker/targets", self._on_targets, ANSWERS),
            (Image, "mosam_tracker/masks", self._on_mask, ANSWERS),
            (Image, "camera/ground_truth", self._on_truth, GROUND_TRUTH),
            (Image, "image", self._on_image, IMAGES),
        ):
            self.create_subscription(kind, topic, callback, qos)
        # A simulated clock may end with the camera.
        self.create_timer(0.25, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _value(self, name: str):
        return self.get_parameter(name).value

    # What arrives

    def _on_image(self, message: Image) -> None:
        self._last_frame = time.monotonic()
        bgr = cv2.cvtColor(image_to_rgb(message), cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        self._pictures[_stamp(message.header)] = jpeg.tobytes()
        if self._box is not None:
            self._consider_selecting(message.header, self._box)

    def _on_truth(self, message: Image) -> None:
        self._last_frame = time.monotonic()
        mask = labels_from_image(message) == TRUE_TARGET
        self._truths[_stamp(message.header)] = PackedMask.pack(mask)
        if self._box is None and np.count_nonzero(mask) >= VISIBLE_PIXELS:
            self._consider_selecting(message.header, cv2.boundingRect(mask.astype(np.uint8)))

    def _on_mask(self, message: Image) -> None:
        mask = labels_from_image(message) == TARGET_ID
        self._masks[_stamp(message.header)] = PackedMask.pack(mask)

    def _on_targets(self, message: TrackedTargetArray) -> None:
        latency = self.get_clock().now() - Time.from_msg(message.header.stamp)
        self._answers[_stamp(message.header)] = message, latency.nanoseconds / 1e9
        self._bar.update()

    def _on_transition(self, message: TransitionEvent) -> None:
        if message.start_state.label == "configuring" and message.goal_state.label != "inactive":
            self._fail("the tracker could not be configured, its message is above")

    # What is done about it

    def _consider_selecting(self, header: Header, box: Sequence[float]) -> None:
        """Send the box unless the target is tracked, or a selection may still be on its way."""
        now = time.monotonic()
        waiting = self._selected is not None and now - self._selected < ANSWER_SECONDS
        if waiting or self._tracked_once() or self._select.get_subscription_count() == 0:
            return
        self._selected = now
        self._select.publish(
            TargetSelection(
                header=header,
                action=TargetSelection.SELECT,
                target_id=TARGET_ID,
                label="demo",
                box=[float(value) for value in box],
            )
        )

    def _tracked_once(self) -> bool:
        return any(message.targets for message, _ in self._answers.values())

    def _watch(self) -> None:
        now = time.monotonic()
        if self._pictures or self._truths:
            is_there = self.count_publishers(self.resolve_topic_name("image")) > 0
            if now - self._last_frame > (STALLED_SECONDS if is_there else QUIET_SECONDS):
                self._finish()
        elif now - self._started > START_SECONDS:
            topic = self.resolve_topic_name("image")
            self._fail(
                f"no image on {topic} within {START_SECONDS:.0f} s: is the camera running, and "
                "the tracker active?"
            )

    def _fail(self, reason: str) -> None:
        if not self.done.done():
            self._bar.close()
            self.get_logger().error(f"nothing was tracked: {reason}")
            self.done.set_result(1)

    def _finish(self) -> None:
        if self.done.done():
            return
        if not self._tracked_once():
            no_box = self._box is None and not self._truths
            self._fail(
                "there is no ground truth to take the target from, give its `box`"
                if no_box
                else "the tracker answered no frame with the target in it, see its messages above"
            )
            return
        self._bar.close()
        self._report()
        self.done.set_result(0)

    # The report

    def _report(self) -> None:
        folder = Path(self._value("output_dir")).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        summary, table = self._summary({stamp: self._record(stamp) for stamp in self._stamps()})
        (folder / self.summary_file).write_text(json.dumps(summary, indent=2) + "\n")
        self._draw(folder)
        print(f"\n{table}\n\n  pictures and {self.summary_file} in {folder}", flush=True)

    def _summary(self, records: Mapping[int, FrameRecord]) -> tuple[dict, str]:
        """The figures by name, and for people.

        Args:
            records: of every frame, by its stamp in nanoseconds, in time order.
        """
        summary = {
            "source": self._value("source"),
            "seed": self._value("seed") if self._value("source") == "synthetic" else None,
            **summarize(list(records.values())),
        }
        return summary, format_table(summary)

    def _stamps(self) -> list[int]:
        """Every frame that the camera is known to have sent, in time order."""
        return sorted(self._pictures.keys() | self._truths.keys() | self._answers.keys())

    def _record(self, stamp: int) -> FrameRecord:
        """A frame counts as answered when both its targets and its masks have come."""
        truth = self._truths.get(stamp)
        if stamp not in self._answers or stamp not in self._masks:
            return FrameRecord(truth)
        message, latency = self._answers[stamp]
        target = next((t for t in message.targets if t.id == TARGET_ID), None)
        if target is None:
            return FrameRecord(truth, Answer(message.seconds_total, latency))
        answer = Answer(
            message.seconds_total,
            latency,
            target.presence,
            self._masks[stamp],
            forecast_box(target.motion_prompt),
        )
        return FrameRecord(truth, answer)

    def _draw(self, folder: Path) -> None:
        """Write a video with every recorded picture and a contact sheet with a few."""
        stamps = [stamp for stamp in self._stamps() if stamp in self._pictures]
        rate = (len(stamps) - 1) * 1e9 / max(stamps[-1] - stamps[0], 1) if len(stamps) > 1 else 10.0
        answered = [stamp for stamp in stamps if stamp in self._answers]
        chosen = {answered[index] for index in spread(len(answered), CONTACT_SHEET_PICTURES)}
        pictures, video = [], None
        for stamp in _progress(stamps, desc=self.video_file):
            drawn = self._overlay(stamp)
            if video is None:
                size = drawn.shape[1::-1]
                code = cv2.VideoWriter_fourcc(*"mp4v")
                video = cv2.VideoWriter(str(folder / self.video_file), code, rate, size)
            video.write(drawn)
            if stamp in chosen:
                pictures.append(drawn)
        video.release()
        cv2.imwrite(str(folder / self.contact_sheet_file), contact_sheet(pictures))

    def _overlay(self, stamp: int) -> np.ndarray:
        jpeg = np.frombuffer(self._pictures[stamp], np.uint8)
        picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        if stamp not in self._answers or stamp not in self._masks:
            return picture
        labels = self._masks[stamp].unpack().astype(np.uint16) * TARGET_ID
        targets = [t for t in self._answers[stamp][0].targets if t.id == TARGET_ID]
        return draw_overlay(picture, labels, targets)


def _progress(*args, **kwargs) -> tqdm:
    """A progress bar, without a line for every frame where the output goes to a file."""
    return tqdm(*args, unit="frame", mininterval=0.2 if sys.stderr.isatty() else 5.0, **kwargs)


def _stamp(header: Header) -> int:
    return header.stamp.sec * 10**9 + header.stamp.nanosec


def main(args: Sequence[str] | None = None) -> int:
    return run_node(DemoRecorder, args)


if __name__ == "__main__":
    raise SystemExit(main())
