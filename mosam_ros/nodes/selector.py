"""What people and other nodes say about targets: it waits for the next frame, then it is done."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from geometry_msgs.msg import Point, PointStamped
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header

from mosam_ros.mosam.catch_up import StreamTracker
from mosam_ros.mosam.prompts import Prompt, PromptError
from mosam_ros.mosam.results import FrameResult, RejectedPrompt
from mosam_ros.msg import TargetSelection
from mosam_ros.nodes.clicks import seen_pixel, target_at
from mosam_ros.nodes.conversions import prompt_from_selection

MAX_WAITING = 64
"""Selections that wait for a frame; what comes beyond is refused."""


class Selector:
    """Selections and clicks on their way to the tracker.

    One thread may `put` them while another one applies them.

    Args:
        log: is told what was done, and what could not be done and why.

    Attributes:
        camera_info: the newest one, for clicks in space.
        last_result: the tracker's newest, for clicks on targets.
    """

    def __init__(self, log: RcutilsLogger) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._waiting: deque[TargetSelection | Point | PointStamped] = deque()
        self.camera_info: CameraInfo | None = None
        self.last_result: FrameResult | None = None

    def put(self, said: TargetSelection | Point | PointStamped) -> None:
        """Let a selection, a click on a pixel or a point in space wait for the next frame."""
        with self._lock:
            if _is_clear(said):
                self._waiting.clear()
            full = len(self._waiting) >= MAX_WAITING
            if not full:
                self._waiting.append(said)
        if full:
            self._log.warning(
                f"selection ignored: {MAX_WAITING} others already wait for a frame; does the "
                "camera run?"
            )

    def forget(self) -> None:
        """Drop what waits."""
        with self._lock:
            self._waiting.clear()

    def apply(self, stream: StreamTracker, values: Mapping[str, Any]) -> None:
        """Do all that was said; a frame was taken.

        Args:
            stream: the tracker.
            values: of the node's parameters.
        """
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
        for said in waiting:
            try:
                self._apply(said, stream, values)
            except PromptError as error:
                self._warn_ignored(getattr(said, "target_id", 0), error)

    def report(self, rejected: tuple[RejectedPrompt, ...]) -> None:
        """Say which prompts did not fit their frames."""
        for prompt in rejected:
            self._warn_ignored(prompt.target_id, prompt.reason)

    def _warn_ignored(self, target_id: int, reason: object) -> None:
        name = f"target {target_id}" if target_id else "a new target"
        self._log.warning(f"selection for {name} ignored: {reason}")

    def _apply(
        self,
        said: TargetSelection | Point | PointStamped,
        stream: StreamTracker,
        values: Mapping[str, Any],
    ) -> None:
        size = stream.frames.newest.pixels.shape[:2]
        if isinstance(said, TargetSelection):
            self._follow_order(said, stream)
        elif isinstance(said, Point):
            self._click(said.x, said.y, Header(), stream, values["click_on_target"])
        else:
            x, y = seen_pixel(said, self.camera_info, size, values["rectified"])
            self._click(x, y, said.header, stream, values["click_on_target"])

    def _follow_order(self, order: TargetSelection, stream: StreamTracker) -> None:
        target_id = order.target_id
        if order.action == TargetSelection.SELECT:
            prompt = prompt_from_selection(order)
            self._select(prompt, order.label, target_id or None, order.header, stream)
        elif order.action == TargetSelection.REFINE:
            stream.refine(target_id, prompt_from_selection(order))
            self._log.info(f"target {target_id} refined")
        elif order.action == TargetSelection.REMOVE:
            stream.remove(target_id)
            self._log.info(f"target {target_id} removed")
        elif order.action == TargetSelection.CLEAR:
            stream.clear()
            self._log.info("all targets removed")
        else:
            raise PromptError(f"unknown action {order.action}: use 0 to 3, see TargetSelection")

    def _click(
        self, x: float, y: float, header: Header, stream: StreamTracker, on_target: str
    ) -> None:
        """Select what is at a pixel; remove or refine the target that is there already."""
        height, width = stream.frames.newest.pixels.shape[:2]
        prompt = Prompt.from_points([(x, y)]).fit(height, width)
        target_id = target_at(self.last_result, x, y, (height, width))
        if target_id not in stream.target_ids:
            self._select(prompt, "", None, header, stream)
        elif on_target == "remove":
            stream.remove(target_id)
            self._log.info(f"target {target_id} removed by a click")
        else:
            stream.refine(target_id, prompt)
            self._log.info(f"target {target_id} refined by a click")

    def _select(
        self,
        prompt: Prompt,
        label: str,
        target_id: int | None,
        header: Header,
        stream: StreamTracker,
    ) -> None:
        nanoseconds = Time.from_msg(header.stamp).nanoseconds
        stamp = nanoseconds / 1e9 if nanoseconds else None
        done = stream.select(prompt, label, target_id, stamp)
        past = f" in a frame {done.behind:.2f} s ago" if done.behind else ""
        self._log.info(f"target {done.target_id} {label!r} selected{past}")
        if done.too_old:
            self._log.warning(
                f"the selection of target {done.target_id} is {done.too_old:.2f} s older than the "
                "oldest frame kept, to which it was applied: raise selection_buffer, or select "
                "in newer frames"
            )


def _is_clear(said: object) -> bool:
    return isinstance(said, TargetSelection) and said.action == TargetSelection.CLEAR
