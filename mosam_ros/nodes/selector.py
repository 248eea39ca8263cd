"""What people and other nodes say about targets: it waits for the next frame, then it is done."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from geometry_msgs.msg import Point, PointStamped
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CameraInfo

from mosam_ros.mosam.catch_up import Selected, StreamTracker
from mosam_ros.mosam.prompts import Prompt, PromptError
from mosam_ros.mosam.results import FrameResult, RejectedPrompt
from mosam_ros.mosam.selection import Action, Selection, ignored
from mosam_ros.msg import TargetSelection
from mosam_ros.nodes.clicks import seen_pixel, target_at
from mosam_ros.nodes.conversions import header_seconds, selection_from_message

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
                self._log.warning(ignored(getattr(said, "target_id", 0), error))

    def report(self, rejected: tuple[RejectedPrompt, ...]) -> None:
        """Say which prompts did not fit their frames."""
        for prompt in rejected:
            self._log.warning(ignored(prompt.target_id, prompt.reason))

    def _apply(
        self,
        said: TargetSelection | Point | PointStamped,
        stream: StreamTracker,
        values: Mapping[str, Any],
    ) -> None:
        if isinstance(said, TargetSelection):
            selection, how = selection_from_message(said), ""
        else:
            selection, how = self._clicked(said, stream, values), " by a click"
        self._tell(selection, stream.apply(selection), how)

    def _clicked(
        self, said: Point | PointStamped, stream: StreamTracker, values: Mapping[str, Any]
    ) -> Selection:
        """Select what is at a pixel; remove or refine the target that is there already."""
        size = stream.frames.newest.pixels.shape[:2]
        if isinstance(said, Point):
            x, y, stamp = said.x, said.y, None
        else:
            x, y = seen_pixel(said, self.camera_info, size, values["rectified"])
            stamp = header_seconds(said.header) or None
        prompt = Prompt.from_points([(x, y)]).fit(*size)
        target_id = target_at(self.last_result, x, y, size)
        if target_id not in stream.target_ids:
            return Selection(Action.SELECT, prompt, stamp=stamp)
        action = Action.REMOVE if values["click_on_target"] == "remove" else Action.REFINE
        return Selection(action, prompt, target_id)

    def _tell(self, selection: Selection, selected: Selected | None, how: str) -> None:
        """Say what was done."""
        if selected is not None:
            self._tell_selected(selected, selection.label)
        elif selection.action is Action.CLEAR:
            self._log.info("all targets removed")
        else:
            done = "removed" if selection.action is Action.REMOVE else "refined"
            self._log.info(f"target {selection.target_id} {done}{how}")

    def _tell_selected(self, selected: Selected, label: str) -> None:
        past = f" in a frame {selected.behind:.2f} s ago" if selected.behind else ""
        self._log.info(f"target {selected.target_id} {label!r} selected{past}")
        if selected.too_old:
            self._log.warning(
                f"the selection of target {selected.target_id} is {selected.too_old:.2f} s older "
                "than the oldest frame kept, to which it was applied: raise selection_buffer, or "
                "select in newer frames"
            )


def _is_clear(said: object) -> bool:
    return isinstance(said, TargetSelection) and said.action == TargetSelection.CLEAR
