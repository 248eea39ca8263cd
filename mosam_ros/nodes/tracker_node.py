"""Tracks the selected targets in a camera's stream: MosamTracker as a managed lifecycle node."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import torch
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point, PointStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import (
    LifecycleNode,
    LifecyclePublisher,
    LifecycleState,
    TransitionCallbackReturn,
)
from rclpy.parameter import Parameter
from rclpy.service import Service
from rclpy.timer import Timer
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from mosam_ros.mosam.catch_up import StreamTracker, Taken
from mosam_ros.mosam.results import FrameResult, TargetState
from mosam_ros.msg import TargetSelection
from mosam_ros.nodes.conversions import image_seconds
from mosam_ros.nodes.frame_statistics import FrameStatistics
from mosam_ros.nodes.image_input import TRANSPORTS, ImageConverter, ImageError
from mosam_ros.nodes.parameters import (
    declare_settings,
    require_valid,
    setting_values,
    settings_problem,
)
from mosam_ros.nodes.qos import image_options, newest_image, reliable
from mosam_ros.nodes.running import run_node
from mosam_ros.nodes.selector import Selector
from mosam_ros.nodes.stall_watch import StallWatch
from mosam_ros.nodes.tracker_outputs import TrackerOutputs
from mosam_ros.nodes.tracker_parameters import (
    TRACKER_SETTINGS,
    make_tracker,
    tracker_config,
)

MEMORY_SECONDS = 1.0
"""How often the bytes held are counted for the diagnostics."""


Transition = Callable[["TrackerNode", LifecycleState], TransitionCallbackReturn]


def _or_unconfigured(what: str) -> Callable[[Transition], Transition]:
    """A transition that says why it fails, and then leaves the node unconfigured by `on_error`.

    rclpy itself drops the exception without a word.

    Args:
        what: has failed, for the log.
    """

    def wrap(transition: Transition) -> Transition:
        @wraps(transition)
        def attempt(node: TrackerNode, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                return transition(node, state)
            except Exception as error:  # whatever is wrong, the node can be configured again
                reason = str(error)
                if not isinstance(error, ValueError):
                    reason = f"{type(error).__name__}: {reason}"
                node.get_logger().error(f"{what}: {reason}")
                return TransitionCallbackReturn.ERROR

        return attempt

    return wrap


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
    """Images, selections and clicks in; targets, masks, overlay and diagnostics out.

    The callbacks only store what arrives. One worker thread, alive while the node is active, owns
    the tracker: it applies what waits, answers the newest frame, and lets targets selected in the
    past catch up.
    """

    def __init__(self) -> None:
        super().__init__("mosam_tracker")
        declare_settings(self, TRACKER_SETTINGS)
        self._values: Mapping[str, Any] = setting_values(self, TRACKER_SETTINGS)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._stream: StreamTracker | None = None
        self._outputs: TrackerOutputs | None = None
        self._diagnostics: LifecyclePublisher | None = None
        self._clear_service: Service | None = None
        self._diagnostics_timer: Timer | None = None
        self._device = ""
        self._converter = ImageConverter(self.get_logger().info)
        self._selector = Selector(self.get_logger())
        self._worker: threading.Thread | None = None
        self._frames = _LatestFrame()
        self._inputs: list = []
        self._statistics = FrameStatistics()
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        if self._values["autostart"]:
            self._autostart_timer = self.create_timer(0.01, self._autostart, clock=self._steady)

    def _autostart(self) -> None:
        self._autostart_timer.cancel()
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _on_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        configured = self._stream is not None
        problem = settings_problem(TRACKER_SETTINGS, changes, self._values, configured)
        if not problem:
            new = {entry.name: entry.value for entry in changes if entry.name in TRACKER_SETTINGS}
            self._values = {**self._values, **new}
        return SetParametersResult(successful=not problem, reason=problem)

    # Transitions

    @_or_unconfigured("not configured")
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        values = self._values
        require_valid(TRACKER_SETTINGS, values)
        self._image_type, self._topic_end = TRANSPORTS[values["image_transport"]]
        tracker, loaded = make_tracker(values)
        tracker.warm_up()
        self._stream = StreamTracker(tracker, values["selection_buffer"])
        self._device = str(loaded.device)
        self._applied = values
        self._last_size: tuple[int, int] | None = None
        self._target_figures: Mapping[str, str] = {}
        self._memory_figures: Mapping[str, str] = {}
        self._memory_counted = -math.inf
        self._selector.forget(None)
        self._selector.last_result = None
        self._statistics = FrameStatistics()
        self._outputs = TrackerOutputs(self)
        self._diagnostics = self.create_lifecycle_publisher(
            DiagnosticArray, "/diagnostics", reliable()
        )
        self._clear_service = self.create_service(Trigger, "~/clear", self._on_clear)
        self.get_logger().info(
            f"configured: model {loaded.name} at {loaded.model.image_size} px on {loaded.device}"
        )
        return super().on_configure(state)

    @_or_unconfigured("not activated, and not configured any more")
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        result = super().on_activate(state)
        self._frames = _LatestFrame()
        self._stall = StallWatch(time.monotonic())
        self._subscribe()
        self._diagnostics_timer = self.create_timer(1.0, self._look_at_stream, clock=self._steady)
        self._worker = threading.Thread(target=self._work, name="tracker", daemon=True)
        self._worker.start()
        self.get_logger().info(f"active: waiting for images on {self._inputs[0].topic_name}")
        return result

    def _subscribe(self) -> None:
        # Resolved first, so that a remapping of `image` moves the topics named after it too.
        image = self.resolve_topic_name("image")
        topic = image + self._topic_end
        said = self._selector.put
        for kind, name, callback, qos, options in (
            (self._image_type, topic, self._on_image, newest_image(), image_options(self, topic)),
            (TargetSelection, "select", said, reliable(), {}),
            (Point, f"{image}_mouse_left", said, reliable(), {}),
            (Point, f"{image}/compressed_mouse_left", said, reliable(), {}),
            (Point, "~/overlay_mouse_left", said, reliable(), {}),
            (PointStamped, "clicked_point", said, reliable(), {}),
            (CameraInfo, "camera_info", self._on_camera_info, newest_image(), {}),
        ):
            try:
                made = self.create_subscription(kind, name, callback, qos, **options)
            except Exception as error:  # rclpy's own words do not say which
                raise ValueError(
                    f"cannot subscribe to {self.resolve_topic_name(name)} as {kind.__name__}: "
                    f"{error}"
                ) from error
            self._inputs.append(made)

    @_or_unconfigured("not deactivated as it should be, and not configured any more")
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self.get_logger().info("inactive: targets are kept")
        return super().on_deactivate(state)

    @_or_unconfigured("not cleaned up as it should be")
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._free()
        self.get_logger().info("unconfigured: model and targets are freed")
        return super().on_cleanup(state)

    @_or_unconfigured("not shut down as it should be")
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._stop()
        self._free()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a transition that failed: free everything, so that the node is unconfigured."""
        self._stop()
        self._free()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        self._stop()
        super().destroy_node()

    def _stop(self) -> None:
        """Stop taking input and wait until the worker has finished its frame."""
        if self._diagnostics_timer is not None:
            self.destroy_timer(self._diagnostics_timer)
            self._diagnostics_timer = None
        while self._inputs:
            self.destroy_subscription(self._inputs.pop())
        if self._worker is not None:
            self._frames.close()
            self._worker.join()
            self._worker = None
        self._selector.forget(self._stream)

    def _free(self) -> None:
        """Give back what configuring made, all of it or the part that was made."""
        self._stream = None
        self._selector.last_result = None
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        if self._diagnostics is not None:
            self.destroy_lifecycle_publisher(self._diagnostics)
            self._diagnostics = None
        if self._clear_service is not None:
            self.destroy_service(self._clear_service)
            self._clear_service = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # Callbacks

    def _on_image(self, message: Image | CompressedImage) -> None:
        if silence := self._stall.arrived(time.monotonic()):
            self.get_logger().info(f"images come again, after {silence:.1f} s")
        self._statistics.received += 1
        self._statistics.dropped += self._frames.put(message)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._selector.camera_info = message

    def _on_clear(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._selector.put(TargetSelection(action=TargetSelection.CLEAR))
        response.success = True
        response.message = "all targets are removed with the next frame"
        return response

    def _look_at_stream(self) -> None:
        now, topic = time.monotonic(), self._inputs[0].topic_name
        if self._stall.check(now, self._values["stall_after"]):
            self.get_logger().warning(
                f"no image on {topic} for {self._stall.silence(now):.1f} s: "
                f"{self.count_publishers(topic)} publisher(s) there; does the camera run?"
            )
        self._publish_diagnostics(self._stall.silence(now) if self._stall.stalled else 0.0)

    def _publish_diagnostics(self, silence: float) -> None:
        values = {
            "device": self._device,
            **self._statistics.summary(),
            **self._target_figures,
        }
        message = "tracking" if self._statistics.answered else "waiting for images"
        status = DiagnosticStatus(
            level=DiagnosticStatus.WARN if silence else DiagnosticStatus.OK,
            name=f"{self.get_fully_qualified_name()}: frames",
            message=f"no image for {silence:.0f} s" if silence else message,
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
        stamp = image_seconds(message.header)
        frame = self._converter.to_rgb(message)
        converted = time.perf_counter()
        values = self._values
        self._take_settings(values)
        self._notice_size(frame.shape[:2])
        self._notice_time(self._stream.take(frame, stamp))
        self._selector.apply(self._stream, values)
        result = self._stream.track()
        self._selector.last_result = result
        self._selector.report(result.rejected)
        self._outputs.publish(result, frame, message.header, converted - started)
        now = time.perf_counter()
        latency = self.get_clock().now().nanoseconds / 1e9 - stamp
        overhead = now - started - result.seconds.total
        self._statistics.add_answer(now, latency, overhead)
        self._count_targets(result, now)
        self._catch_up(values["catch_up_limit"])

    def _catch_up(self, limit: float) -> None:
        """Bring targets nearer to now; one that fails is dropped, and the frame counts."""
        before = {*self._stream.catching_up, *self._stream.target_ids}
        try:
            rejected = self._stream.catch_up(limit)
        except Exception as error:
            if not self.context.ok():
                return
            lost = before - {*self._stream.catching_up, *self._stream.target_ids}
            advice = "".join(f": select target {target_id} again" for target_id in lost)
            self.get_logger().error(
                f"a selection of the past failed ({type(error).__name__}: {error}){advice}"
            )
            return
        self._selector.report(rejected)

    def _take_settings(self, values: Mapping[str, Any]) -> None:
        if values is not self._applied:
            self._stream.reconfigure(tracker_config(values), values["selection_buffer"])
            self._applied = values

    def _count_targets(self, result: FrameResult, now: float) -> None:
        """Figures for the diagnostics, which another thread publishes."""
        states = Counter(target.state for target in result.targets)
        figures = {f"targets {s.name.lower()}": str(states[s]) for s in TargetState}
        figures["targets catching up"] = str(len(self._stream.catching_up))
        if now - self._memory_counted > MEMORY_SECONDS:
            self._memory_counted = now
            sizes = {
                "target memory (MB)": self._stream.memory_bytes(),
                "frames kept (MB)": self._stream.frames.num_bytes,
            }
            self._memory_figures = {name: f"{size / 1e6:.2f}" for name, size in sizes.items()}
        self._target_figures = {**figures, **self._memory_figures}

    def _notice_size(self, size: tuple[int, int]) -> None:
        if self._last_size not in (None, size):
            self.get_logger().info(
                "the image size changed from {1}x{0} to {3}x{2}".format(*self._last_size, *size)
            )
        self._last_size = size

    def _notice_time(self, taken: Taken) -> None:
        """Say what follows from a stamp that is not later than the last one."""
        if taken.cleared:
            self.get_logger().warning(
                f"the stamps jumped back by {-taken.elapsed:.1f} s: all targets are cleared, "
                "select them again"
            )
        elif taken.elapsed <= 0:
            self.get_logger().warning(
                "the stamps do not increase: without the time of each frame the targets' motion "
                "starts anew; let the camera stamp its images",
                throttle_duration_sec=5.0,
            )


def main(args: Sequence[str] | None = None) -> int:
    return run_node(TrackerNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
