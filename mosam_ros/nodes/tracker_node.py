"""Tracks the selected targets in a camera's stream: MosamTracker as a managed lifecycle node."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from mosam_ros.mosam.checkpoints import load_model, load_motion_encoders
from mosam_ros.mosam.prompts import Prompt, PromptError
from mosam_ros.mosam.results import FrameResult
from mosam_ros.mosam.tracker import MosamTracker
from mosam_ros.msg import TargetSelection, TrackedTargetArray
from mosam_ros.nodes.conversions import (
    color_to_image,
    labels_to_image,
    prompt_from_selection,
    targets_message,
)
from mosam_ros.nodes.frame_statistics import FrameStatistics
from mosam_ros.nodes.image_input import ImageConverter, ImageError, image_transport
from mosam_ros.nodes.overlay import draw_overlay
from mosam_ros.nodes.parameters import declarations, tracker_config
from mosam_ros.nodes.running import run_node

NEWEST_IMAGE = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=10)

TIME_JUMP = 1.0
"""Seconds by which a stamp must lie before the last one to count as a new start of time."""


class _LatestFrame:
    """One place in which the newest frame waits; it replaces an older one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._frame: Image | CompressedImage | None = None
        self._closed = False

    def put(self, frame: Image | CompressedImage) -> bool:
        """Returns whether an older frame was replaced."""
        with self._condition:
            replaced = self._frame is not None
            self._frame = frame
            self._condition.notify()
            return replaced

    def take(self) -> Image | CompressedImage | None:
        """Waits for a frame; None once closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._frame is not None)
            frame, self._frame = self._frame, None
            return None if self._closed else frame

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()


class TrackerNode(LifecycleNode):
    """`image` and `select` in; `~/targets`, `~/masks`, `~/overlay` and `/diagnostics` out.

    The callbacks only store what arrives. One worker thread, alive while the node is active, owns
    the tracker: it applies the waiting selections, then answers the newest frame.
    """

    def __init__(self) -> None:
        super().__init__("mosam_tracker")
        self._declare_parameters()
        self._tracker: MosamTracker | None = None
        self._device = ""
        self._converter = ImageConverter(self.get_logger().info)
        self._worker: threading.Thread | None = None
        self._frames = _LatestFrame()
        self._selections: deque[TargetSelection] = deque()
        self._inputs: list = []
        self._statistics = FrameStatistics()
        self._last_size: tuple[int, int] | None = None
        self._last_stamp: Time | None = None
        if self._value("autostart"):
            self._autostart_timer = self.create_timer(0.01, self._autostart)

    def _declare_parameters(self) -> None:
        for name, (default, descriptor) in declarations().items():
            self.declare_parameter(name, default, descriptor)

    def _value(self, name: str):
        return self.get_parameter(name).value

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Transitions

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            self._image_type, self._topic_end = image_transport(self._value("image_transport"))
            self._tracker = self._make_tracker()
        except Exception as error:  # whatever is wrong, the node stays up to be configured again
            self.get_logger().error(f"not configured: {error}")
            return TransitionCallbackReturn.FAILURE
        self._last_size = self._last_stamp = None
        self._selections.clear()
        self._statistics = FrameStatistics()
        self._targets = self.create_lifecycle_publisher(TrackedTargetArray, "~/targets", RELIABLE)
        self._masks = self.create_lifecycle_publisher(Image, "~/masks", RELIABLE)
        self._overlay = self.create_lifecycle_publisher(Image, "~/overlay", RELIABLE)
        self._diagnostics = self.create_lifecycle_publisher(
            DiagnosticArray, "/diagnostics", RELIABLE
        )
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._frames = _LatestFrame()
        self._worker = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._worker.start()
        self._inputs = [
            self.create_subscription(
                self._image_type,
                # Resolved first, so that a remapping of `image` moves `image/compressed` too.
                self.resolve_topic_name("image") + self._topic_end,
                self._on_image,
                NEWEST_IMAGE,
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            ),
            self.create_subscription(TargetSelection, "select", self._on_selection, RELIABLE),
        ]
        self._diagnostics_timer = self.create_timer(1.0, self._publish_diagnostics)
        self.get_logger().info(f"active: waiting for images on {self._inputs[0].topic_name}")
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self.get_logger().info("inactive: targets are kept")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._free()
        self.get_logger().info("unconfigured: model and targets are freed")
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._free()
        return super().on_shutdown(state)

    def destroy_node(self) -> None:
        self._stop()
        super().destroy_node()

    def _stop(self) -> None:
        """Stop taking input and wait until the worker has finished its frame."""
        if self._worker is None:
            return
        self.destroy_timer(self._diagnostics_timer)
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        self._frames.close()
        self._worker.join()
        self._worker = None

    def _free(self) -> None:
        if self._tracker is None:
            return
        self._tracker = None
        for publisher in (self._targets, self._masks, self._overlay, self._diagnostics):
            self.destroy_lifecycle_publisher(publisher)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _make_tracker(self) -> MosamTracker:
        """Load the model and run it once, so that the first frame is as fast as the others."""
        config = tracker_config(self._value)
        if self._value("num_threads"):
            torch.set_num_threads(self._value("num_threads"))
        loaded = load_model(
            self._value("model"),
            self._value("checkpoint") or None,
            self._value("device"),
            self._value("precision"),
            self._value("image_size") or None,
        )
        encoders = None
        if config.motion.trained:
            encoders = load_motion_encoders(loaded, self._value("motion_checkpoint") or None)
        rehearsal = MosamTracker(loaded, config, encoders)
        rehearsal.add(Prompt.from_box(200, 150, 400, 300))
        for _ in range(2):
            rehearsal.track(np.zeros((480, 640, 3), np.uint8))
        self._device = str(loaded.device)
        self.get_logger().info(
            f"configured: model {loaded.name} at {loaded.model.image_size} px on {loaded.device}"
        )
        return MosamTracker(loaded, config, encoders)

    # Callbacks

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._statistics.received += 1
        self._statistics.dropped += self._frames.put(message)

    def _on_selection(self, message: TargetSelection) -> None:
        self._selections.append(message)

    def _publish_diagnostics(self) -> None:
        values = {"device": self._device, **self._statistics.summary()}
        status = DiagnosticStatus(
            level=DiagnosticStatus.OK,
            name=f"{self.get_fully_qualified_name()}: frames",
            message="tracking" if self._statistics.answered else "waiting for images",
            hardware_id=self._device,
            values=[KeyValue(key=key, value=text) for key, text in values.items()],
        )
        header = Header(stamp=self.get_clock().now().to_msg())
        self._diagnostics.publish(DiagnosticArray(header=header, status=[status]))

    # The worker

    def _work(self) -> None:
        while (message := self._frames.take()) is not None:
            try:
                self._answer(message)
            except ImageError as error:
                self.get_logger().warning(f"frame ignored: {error}", throttle_duration_sec=5.0)
            except Exception as error:  # one bad frame must not end the tracking
                if not self.context.ok():
                    return
                self.get_logger().error(
                    f"frame ignored: {type(error).__name__}: {error}", throttle_duration_sec=5.0
                )

    def _answer(self, message: Image | CompressedImage) -> None:
        started = time.perf_counter()
        frame = self._converter.to_rgb(message)
        converted = time.perf_counter()
        self._notice_changes(message.header, frame.shape[:2])
        while self._selections:
            self._select(self._selections.popleft())
        stamp = Time.from_msg(message.header.stamp)
        result = self._tracker.track(frame, stamp.nanoseconds / 1e9)
        for rejected in result.rejected:
            self._warn_ignored(rejected.target_id, rejected.reason)
        self._publish(result, frame, message.header, converted - started)
        now = time.perf_counter()
        latency = self.get_clock().now() - stamp
        overhead = now - started - result.seconds.total
        self._statistics.add_answer(now, latency.nanoseconds / 1e9, overhead)

    def _notice_changes(self, header: Header, size: tuple[int, int]) -> None:
        if self._last_size not in (None, size):
            self.get_logger().info(
                "the image size changed from {1}x{0} to {3}x{2}".format(*self._last_size, *size)
            )
        self._last_size = size
        stamp = Time.from_msg(header.stamp)
        if self._last_stamp is not None:
            self._notice_stamp((stamp - self._last_stamp).nanoseconds / 1e9)
        self._last_stamp = stamp

    def _notice_stamp(self, elapsed: float) -> None:
        """Say what follows from a stamp that is not later than the last one, by seconds."""
        if elapsed < -TIME_JUMP:
            self.get_logger().warning(
                f"the stamps jumped back by {-elapsed:.1f} s: all targets are cleared, "
                "select them again"
            )
            self._tracker.clear()
        elif elapsed <= 0:
            self.get_logger().warning(
                "the stamps do not increase: without the time of each frame the targets' motion "
                "starts anew; let the camera stamp its images",
                throttle_duration_sec=5.0,
            )

    def _select(self, selection: TargetSelection) -> None:
        try:
            self._apply(selection)
        except PromptError as error:
            self._warn_ignored(selection.target_id, error)

    def _apply(self, selection: TargetSelection) -> None:
        target_id, log = selection.target_id, self.get_logger()
        if selection.action == TargetSelection.SELECT:
            prompt = prompt_from_selection(selection)
            target_id = self._tracker.add(prompt, selection.label, target_id or None)
            log.info(f"target {target_id} {selection.label!r} selected")
        elif selection.action == TargetSelection.REFINE:
            self._tracker.refine(target_id, prompt_from_selection(selection))
            log.info(f"target {target_id} refined")
        elif selection.action == TargetSelection.REMOVE:
            self._tracker.remove(target_id)
            log.info(f"target {target_id} removed")
        elif selection.action == TargetSelection.CLEAR:
            self._tracker.clear()
            log.info("all targets removed")
        else:
            raise PromptError(f"unknown action {selection.action}: use 0 to 3, see TargetSelection")

    def _warn_ignored(self, target_id: int, reason: object) -> None:
        name = f"target {target_id}" if target_id else "a new target"
        self.get_logger().warning(f"selection for {name} ignored: {reason}")

    def _publish(
        self, result: FrameResult, frame: np.ndarray, header: Header, seconds_convert: float
    ) -> None:
        targets = targets_message(result, header, seconds_convert)
        self._targets.publish(targets)
        wants_masks = self._masks.get_subscription_count() > 0
        wants_overlay = self._overlay.get_subscription_count() > 0
        if not (wants_masks or wants_overlay):
            return
        labels = result.label_image()
        if wants_masks:
            self._masks.publish(labels_to_image(labels, header))
        if wants_overlay:
            bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
            drawn = draw_overlay(bgr, labels, targets.targets)
            self._overlay.publish(color_to_image(drawn, "bgr8", header))


def main(args: Sequence[str] | None = None) -> int:
    return run_node(TrackerNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
