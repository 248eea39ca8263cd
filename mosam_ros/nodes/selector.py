"""What people and other nodes say about targets: it waits for the next frame, then it is done."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geometry_msgs.msg import Point, PointStamped
from rclpy.impl.rcutils_logger import RcutilsLogger
from sensor_msgs.msg import CameraInfo

from mosam_ros.mosam.catch_up import (
    KeptFrame,
    SeenTarget,
    Selected,
    StreamTracker,
    seen_targets,
)
from mosam_ros.mosam.prompts import Prompt, PromptError
from mosam_ros.mosam.results import FrameResult, RejectedPrompt
from mosam_ros.mosam.selection import Action, Selection, ignored
from mosam_ros.msg import TargetSelection
from mosam_ros.nodes.clicks import Click, seen_pixel, target_at
from mosam_ros.nodes.conversions import header_seconds, selection_from_message

MAX_WAITING = 64
"""Selections that wait for a frame; what comes beyond is refused."""

MAX_WAIT = 15.0
"""Seconds after which what waits for the newest frame is too old for it."""

MAX_AHEAD = 1.0
"""Seconds by which a selection's stamp may be later than the newest frame without a warning."""


@dataclass(frozen=True)
class _Said:
    """What came, and when by a steady clock, in seconds."""

    message: TargetSelection | Point | PointStamped
    arrived: float


@dataclass(frozen=True)
class _Pending:
    """What is to be told as soon as the target is in the results."""

    target_id: int
    text: str


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
        self._waiting: deque[_Said] = deque()
        self._pending: list[_Pending] = []
        self._last_click: Click | None = None
        self._frames_came = False
        self.camera_info: CameraInfo | None = None
        self.last_result: FrameResult | None = None

    def put(self, message: TargetSelection | Point | PointStamped) -> None:
        """Let a selection, a click on a pixel or a point in space wait for the next frame."""
        with self._lock:
            if _is_clear(message):
                self._waiting.clear()
            full = len(self._waiting) >= MAX_WAITING
            if not full:
                self._waiting.append(_Said(message, time.monotonic()))
        if full:
            self._log.warning(
                f"selection ignored: {MAX_WAITING} others already wait for a frame; does the "
                "camera run?"
            )

    def forget(self, stream: StreamTracker | None) -> None:
        """No frame comes for now: do what needs none, and drop the rest with a warning.

        Args:
            stream: the tracker, None where there is none.
        """
        waiting = self._take_waiting()
        self._pending.clear()
        self._frames_came = False
        dropped = 0
        for said in waiting:
            if stream is None or not _needs_no_frame(said.message):
                dropped += 1
                continue
            try:
                stream.apply(selection_from_message(said.message))
            except PromptError as error:
                self._log.warning(ignored(said.message.target_id, error))
        if dropped:
            self._log.warning(
                f"{dropped} selection(s) dropped that waited for a frame: send them again when the "
                "node is active"
            )

    def _take_waiting(self) -> deque[_Said]:
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
        return waiting

    def apply(self, stream: StreamTracker, values: Mapping[str, Any]) -> None:
        """Do all that was said; a frame was taken.

        Args:
            stream: the tracker.
            values: of the node's parameters.
        """
        self._drop_failed(stream)
        for said in self._take_waiting():
            try:
                if self._frames_came:
                    _require_fresh(said)
                self._apply(said, stream, values)
            except PromptError as error:
                self._log.warning(ignored(getattr(said.message, "target_id", 0), error))
        self._frames_came = True

    def report(self, rejected: tuple[RejectedPrompt, ...]) -> None:
        """Say which prompts did not fit their frames, and which targets are in `last_result`."""
        for prompt in rejected:
            self._drop_pending(prompt.target_id)
            self._log.warning(ignored(prompt.target_id, prompt.reason))
        there = self._ids_in_result()
        for entry in self._pending:
            if entry.target_id in there:
                self._log.info(entry.text)
        self._pending = [entry for entry in self._pending if entry.target_id not in there]

    def _ids_in_result(self) -> set[int]:
        return {t.target_id for t in self.last_result.targets} if self.last_result else set()

    def _drop_failed(self, stream: StreamTracker) -> None:
        """Only targets that are not in the results yet can be waited for from frame to frame."""
        possible = {*stream.target_ids, *stream.catching_up} - self._ids_in_result()
        self._pending = [entry for entry in self._pending if entry.target_id in possible]

    def _drop_pending(self, target_id: int) -> None:
        self._pending = [entry for entry in self._pending if entry.target_id != target_id]

    def _apply(self, said: _Said, stream: StreamTracker, values: Mapping[str, Any]) -> None:
        if isinstance(said.message, TargetSelection):
            selection, how = selection_from_message(said.message), ""
        elif (clicked := self._clicked(said.message, said.arrived, stream, values)) is not None:
            selection, how = clicked, " by a click"
        else:
            self._log.debug("a click ignored that repeats the one before, as a double click does")
            return
        selected = stream.apply(selection)
        if selected is None:
            self._tell_removed(selection, how)
        else:
            self._tell(selected, selection, how, stream)

    def _clicked(
        self,
        message: Point | PointStamped,
        arrived: float,
        stream: StreamTracker,
        values: Mapping[str, Any],
    ) -> Selection | None:
        """Select what was at a pixel of a frame; remove or refine the target that was there.

        Returns:
            None where the click repeats the one before.

        Raises:
            PromptError: it is outside the image, or see `seen_pixel`.
        """
        stamp = None if isinstance(message, Point) else header_seconds(message.header) or None
        frame = stream.frames.nearest(stamp)
        size = frame.pixels.shape[:2]
        if isinstance(message, Point):
            x, y = message.x, message.y
        else:
            x, y = seen_pixel(message, self.camera_info, size, values["rectified"])
        click = Click(x, y, arrived)
        if self._last_click is not None and click.repeats(self._last_click):
            return None
        self._last_click = click
        prompt = Prompt.from_points([(x, y)]).fit(*size)
        target_id = target_at(self._seen(frame, stamp, stream), x, y, size)
        if target_id is None:
            return Selection(Action.SELECT, prompt, stamp=stamp)
        if values["click_on_target"] == "remove":
            return Selection(Action.REMOVE, target_id=target_id)
        return Selection(Action.REFINE, prompt, target_id, stamp=stamp)

    def _seen(
        self, frame: KeptFrame, stamp: float | None, stream: StreamTracker
    ) -> list[SeenTarget]:
        """The targets in the frame of a click; none where that frame is not kept any more."""
        if stamp is None or frame is stream.frames.newest:
            return self._seen_now(stream)
        return [] if stamp < stream.frames.oldest.stamp else list(frame.seen.values())

    def _seen_now(self, stream: StreamTracker) -> list[SeenTarget]:
        """Those of the last result, as the newest frame has none yet."""
        last = self.last_result
        if last is None or last.image_size != stream.frames.newest.pixels.shape[:2]:
            return []
        return [target for target in seen_targets(last) if target.target_id in stream.target_ids]

    def _tell_removed(self, selection: Selection, how: str) -> None:
        """Say what was done."""
        if selection.action is Action.CLEAR:
            self._pending.clear()
            self._log.info("all targets removed")
        else:
            self._drop_pending(selection.target_id)
            self._log.info(f"target {selection.target_id} removed{how}")

    def _tell(
        self, selected: Selected, selection: Selection, how: str, stream: StreamTracker
    ) -> None:
        """Say what was selected or refined once it is tracked; at once if it came too late."""
        past = f" in a frame {selected.behind:.2f} s ago" if selected.behind else ""
        done = "refined" if selection.action is Action.REFINE else f"{selection.label!r} selected"
        text = f"target {selected.target_id} {done}{how}{past}"
        self._pending.append(_Pending(selected.target_id, text))
        if selected.too_old:
            advice = "raise selection_buffer"
            if stream.frames.is_full:
                advice = (
                    f"no more than {stream.frames.max_bytes >> 20} MiB of frames are kept, which "
                    "selection_buffer cannot change; send smaller images or fewer per second"
                )
            self._log.warning(
                f"the selection of target {selected.target_id} is {selected.too_old:.2f} s older "
                f"than the oldest frame kept, to which it was applied: {advice}, or select in "
                "newer frames"
            )
        if selected.too_new > MAX_AHEAD:
            self._log.warning(
                f"the selection of target {selected.target_id} has a stamp {selected.too_new:.1f} "
                "s later than the newest frame, to which it was applied: do both clocks agree?"
            )


def _is_clear(message: object) -> bool:
    return isinstance(message, TargetSelection) and message.action == TargetSelection.CLEAR


def _needs_no_frame(message: object) -> bool:
    """Whether it ends targets, and says so itself."""
    removes = (TargetSelection.CLEAR, TargetSelection.REMOVE)
    return isinstance(message, TargetSelection) and message.action in removes


def _require_fresh(said: _Said) -> None:
    """Refuse what means the newest frame and has waited for one through a stall of the camera.

    Raises:
        PromptError: it has waited for longer than `MAX_WAIT`.
    """
    message = said.message
    stamped = not isinstance(message, Point) and header_seconds(message.header)
    waited = time.monotonic() - said.arrived
    if not stamped and not _needs_no_frame(message) and waited > MAX_WAIT:
        raise PromptError(
            f"it has waited {waited:.1f} s for a frame, and what it showed may have moved: select "
            "again"
        )
