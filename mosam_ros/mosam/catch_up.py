"""Selections and corrections in frames of the past: made there, tracked forward to now beside the
live stream.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mosam_ros.mosam.prompts import Prompt, PromptError
from mosam_ros.mosam.results import Box, FrameResult, RejectedPrompt
from mosam_ros.mosam.selection import Action, Selection
from mosam_ros.mosam.stamps import starts_anew
from mosam_ros.mosam.tracker import MosamTracker, TrackerConfig

MAX_BUFFER_BYTES = 256 * 2**20
"""Frames kept and the masks in them take no more memory, however long the time asked for."""

MAX_CATCHING_UP = 8
"""Targets, new or corrected, that can catch up at a time; each has a tracker of its own."""

CATCH_UP_FRAMES = 8
"""New frames until a target has caught up; kept frames are skipped as far as that needs it."""


@dataclass(frozen=True, eq=False)
class SeenTarget:
    """Where a target was seen in a frame, in little memory.

    Attributes:
        target_id: whose mask it is.
        predicted_iou: the model's own estimate of the mask's IoU with the truth, 0..1.
        box: the mask's tight box in pixels.
        bits: (box.height, ceil(box.width / 8)) uint8: the mask in its box, a bit per pixel.
    """

    target_id: int
    predicted_iou: float
    box: Box
    bits: NDArray[np.uint8]

    def covers(self, column: int, row: int) -> bool:
        """Whether a pixel of the frame lies in the mask."""
        x, y = column - self.box.x, row - self.box.y
        if not (0 <= x < self.box.width and 0 <= y < self.box.height):
            return False
        return bool(self.bits[y, x // 8] >> (7 - x % 8) & 1)


def seen_targets(result: FrameResult) -> list[SeenTarget]:
    """The targets of a result that have a mask."""
    seen = []
    for target in result.targets:
        if (box := target.box) is not None:
            mask = target.mask[box.y : box.y + box.height, box.x : box.x + box.width]
            bits = np.packbits(mask, axis=1)
            seen.append(SeenTarget(target.target_id, target.predicted_iou, box, bits))
    return seen


@dataclass(frozen=True, eq=False)
class KeptFrame:
    """A frame of the stream.

    Attributes:
        number: counts the frames of the stream.
        stamp: seconds.
        pixels: (height, width, 3) uint8 RGB.
        seen: the targets found in it, as far as they still exist, by id.
    """

    number: int
    stamp: float
    pixels: NDArray[np.uint8]
    seen: dict[int, SeenTarget] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        return self.pixels.nbytes + sum(target.bits.nbytes for target in self.seen.values())


class FrameBuffer:
    """The newest frames of a stream; the newest one always.

    Args:
        seconds: how far back it reaches, by the frames' stamps.
        max_bytes: the most that the frames and the masks in them take; older ones go first.
    """

    def __init__(self, seconds: float, max_bytes: int = MAX_BUFFER_BYTES) -> None:
        self.seconds = seconds
        self.num_bytes = 0
        self.max_bytes = max_bytes
        self._frames: deque[KeptFrame] = deque()
        self._next_number = 0

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def oldest(self) -> KeptFrame:
        return self._frames[0]

    @property
    def newest(self) -> KeptFrame:
        return self._frames[-1]

    @property
    def is_full(self) -> bool:
        """Whether memory, and not time, is what keeps it from reaching further back."""
        return self.num_bytes + self.newest.num_bytes > self.max_bytes

    def add(self, pixels: NDArray[np.uint8], stamp: float) -> None:
        """Keep a frame. One that is not later than the newest starts the buffer anew."""
        if self._frames and stamp <= self.newest.stamp:
            self.clear()
        self._frames.append(KeptFrame(self._next_number, stamp, pixels))
        self._next_number += 1
        self.num_bytes += pixels.nbytes
        while len(self._frames) > 1 and self._is_too_much():
            self.num_bytes -= self._frames.popleft().num_bytes

    def note(self, frame: KeptFrame, targets: Iterable[SeenTarget]) -> None:
        """Keep what was found in a frame, for as long as the frame is kept."""
        before = frame.num_bytes
        frame.seen.update((target.target_id, target) for target in targets)
        if frame.number >= self.oldest.number:
            self.num_bytes += frame.num_bytes - before

    def forget(self, target_id: int) -> None:
        """Drop what was found of a target."""
        for frame in self._frames:
            if (seen := frame.seen.pop(target_id, None)) is not None:
                self.num_bytes -= seen.bits.nbytes

    def forget_targets(self) -> None:
        """Drop what was found of all targets."""
        for frame in self._frames:
            frame.seen.clear()
        self.num_bytes = sum(frame.num_bytes for frame in self._frames)

    def _is_too_much(self) -> bool:
        too_old = self.newest.stamp - self.oldest.stamp > self.seconds
        return too_old or self.num_bytes > self.max_bytes

    def clear(self) -> None:
        """Forget all frames."""
        self._frames.clear()
        self.num_bytes = 0

    def nearest(self, stamp: float | None) -> KeptFrame:
        """The frame taken at a time, or nearest to it; the newest for None."""
        if stamp is None:
            return self.newest
        return min(self._frames, key=lambda frame: abs(frame.stamp - stamp))

    def after(self, number: int) -> list[KeptFrame]:
        """The frames that came after a number, oldest first."""
        return [frame for frame in self._frames if frame.number > number]


@dataclass(frozen=True)
class Taken:
    """How a new frame follows the one before it.

    Attributes:
        elapsed: seconds from that one's stamp to the new one's; infinite for the first frame.
        cleared: whether time started anew, so that all targets were forgotten.
    """

    elapsed: float
    cleared: bool


@dataclass(frozen=True)
class Selected:
    """What became of a SELECT or REFINE.

    Attributes:
        target_id: of the new or corrected target.
        behind: seconds from the frame that it was applied to, to the newest frame.
        too_old: seconds by which it came too late for its own frame; 0 where that was still kept.
        too_new: seconds by which its stamp is later than the newest frame's; 0 where it is not.
    """

    target_id: int
    behind: float
    too_old: float
    too_new: float


class _CatchUp:
    """A target on its way from a frame of the past to the newest one.

    Args:
        tracker: tracks this target alone.
        start: the frame that it was selected or corrected in.
        due: number of the frame at which it shall have caught up.
    """

    def __init__(self, tracker: MosamTracker, start: KeptFrame, due: int) -> None:
        self.tracker = tracker
        self._start: KeptFrame | None = start
        self._due = due
        self._done = start.number - 1
        self._corrections: dict[int, Prompt] = {}

    @property
    def has_begun(self) -> bool:
        """Whether the frame of its selection was tracked."""
        return self._start is None

    def is_there(self, frames: FrameBuffer) -> bool:
        """Whether it has been tracked in the newest frame."""
        return self._done == frames.newest.number

    def correct(self, prompt: Prompt, number: int) -> None:
        """Correct the target in the frame with this number, or in the next one if it is further.

        Raises:
            PromptError: see `MosamTracker.refine`.
        """
        if self._start is not None and number <= self._start.number:
            self.tracker.refine(self._target_id, prompt)
            return
        number = max(number, self._done + 1)
        earlier = self._corrections.get(number)
        self._corrections[number] = prompt if earlier is None else earlier.followed_by(prompt)

    @property
    def _target_id(self) -> int:
        return self.tracker.target_ids[0]

    def step(self, frames: FrameBuffer, steps: float) -> tuple[RejectedPrompt, ...]:
        """Track a frame: first the one of the selection, then one further on, but none with a
        correction is skipped.

        Args:
            frames: those that are kept.
            steps: how often it is called per new frame.
        """
        frame, self._start = self._start, None
        if frame is None:
            frame = self._next(frames, steps)
        self._done = frame.number
        result = self.tracker.track(frame.pixels, frame.stamp)
        frames.note(frame, seen_targets(result))
        return result.rejected

    def _next(self, frames: FrameBuffer, steps: float) -> KeptFrame:
        ahead = frames.after(self._done)
        frame = ahead[min(self._stride(frames.newest.number, steps), len(ahead)) - 1]
        if self._corrections and (number := min(self._corrections)) <= frame.number:
            frame = next(f for f in ahead if f.number >= number)
            self.tracker.refine(self._target_id, self._corrections.pop(number))
        return frame

    def _stride(self, newest: int, steps: float) -> int:
        """Frames to go on at a time to be there when it is due."""
        new_frames = max(1, self._due - newest + 1)
        return math.ceil((max(self._due, newest) - self._done) / (new_frames * steps))


class StreamTracker:
    """A tracker for a live stream, in which selections may be about frames that have passed.

    A selection for a past frame is applied to that very frame. The new target then catches up: it
    is tracked through the frames kept, some of them after every new frame, and joins the others
    when it has reached the newest one. The others never notice. A correction in a past frame is
    made to the target as it was then, which catches up likewise; until then the target goes on
    uncorrected.

    Use it frame by frame: `take` the frame, `apply` selections, `track` it, then `catch_up`.

    Args:
        tracker: tracks what has caught up.
        buffer_seconds: how far back selections can reach; 0: all are about the newest frame.
        max_bytes: the most memory for the frames kept.
    """

    def __init__(
        self, tracker: MosamTracker, buffer_seconds: float, max_bytes: int = MAX_BUFFER_BYTES
    ) -> None:
        self._live = tracker
        self.frames = FrameBuffer(buffer_seconds, max_bytes)
        self._catching_up: dict[int, _CatchUp] = {}
        self._step_seconds = 0.0

    @property
    def target_ids(self) -> tuple[int, ...]:
        """Ids of the targets in the results."""
        return self._live.target_ids

    @property
    def catching_up(self) -> tuple[int, ...]:
        """Ids of the targets that have not caught up yet, the one to be tracked next first."""
        return tuple(self._catching_up)

    @property
    def _new(self) -> set[int]:
        """Those that catch up for the first time, and are in no result yet."""
        return self._catching_up.keys() - set(self._live.target_ids)

    def take(self, pixels: NDArray[np.uint8], stamp: float) -> Taken:
        """Make a frame the newest one; see `MosamTracker.track` for the arguments.

        All targets are forgotten where the stamp says that time starts anew.
        """
        last = self.frames.newest.stamp if len(self.frames) else -math.inf
        cleared = starts_anew(stamp, last)
        if cleared:
            self.clear()
        self.frames.add(pixels, stamp)
        return Taken(stamp - last, cleared)

    def track(self) -> FrameResult:
        """Find the targets in the newest frame, as soon as one was taken.

        Raises:
            ValueError: it is not an RGB image.
        """
        newest = self.frames.newest
        result = self._live.track(newest.pixels, newest.stamp)
        self.frames.note(newest, seen_targets(result))
        return result

    def apply(self, selection: Selection) -> Selected | None:
        """Do what a selection asks for, as soon as a frame was taken.

        Returns:
            What became of a SELECT or REFINE, None for the others.

        Raises:
            PromptError: it cannot be done.
        """
        action, prompt, target_id = selection.action, selection.prompt, selection.target_id
        if action is Action.CLEAR:
            self.clear()
        elif action is Action.REMOVE:
            self.remove(target_id)
        elif prompt is None:
            raise PromptError("the selection says nothing about where the target is")
        elif action is Action.REFINE:
            return self.refine(target_id, prompt, selection.stamp)
        else:
            return self.select(prompt, selection.label, target_id or None, selection.stamp)
        return None

    def select(
        self,
        prompt: Prompt,
        label: str = "",
        target_id: int | None = None,
        stamp: float | None = None,
    ) -> Selected:
        """Take a new target.

        Args:
            prompt: where it is in the frame of the stamp.
            label: a name that comes back in every result.
            target_id: 1 … 65535; None takes the next one that was never used.
            stamp: of the frame meant, seconds; None or later than all: the newest one.

        Raises:
            PromptError: the prompt does not fit that frame, the id is in use or out of range, or
                too many targets are catching up.
        """
        start = self.frames.nearest(stamp)
        prompt = prompt.fit(*start.pixels.shape[:2])
        prompt.require_target()
        if start is not self.frames.newest:
            self._require_room()
        target_id = self._live.claim_id(target_id, self._catching_up)
        if start is self.frames.newest:
            self._live.add(prompt, label, target_id)
        else:
            tracker = self._live.empty_copy()
            tracker.add(prompt, label, target_id)
            self._let_catch_up(target_id, tracker, start)
        return self._selected(target_id, start, stamp)

    def refine(self, target_id: int, prompt: Prompt, stamp: float | None = None) -> Selected:
        """Correct a target. One that is catching up is corrected on its way, or, once it is on it,
        joins the others at once for a correction in the newest frame.

        Args:
            target_id: which one.
            prompt: where it is in the frame of the stamp; see `MosamTracker.refine`.
            stamp: as for `select`.

        Raises:
            PromptError: the prompt does not fit that frame, there is no such target, it was
                selected after that frame, or too many targets are catching up.
        """
        start = self.frames.nearest(stamp)
        prompt = prompt.fit(*start.pixels.shape[:2])
        is_now = start is self.frames.newest
        if is_now and target_id in self._new and self._catching_up[target_id].has_begun:
            self._join(target_id)
        if target_id in self._catching_up:
            self._catching_up[target_id].correct(prompt, start.number)
        elif not is_now:
            self._require_room()
            tracker = self._live.rewound(target_id, start.stamp)
            tracker.refine(target_id, prompt)
            self._let_catch_up(target_id, tracker, start)
        if is_now and target_id not in self._new:
            self._live.refine(target_id, prompt)
        return self._selected(target_id, start, stamp)

    def _require_room(self) -> None:
        if len(self._catching_up) >= MAX_CATCHING_UP:
            raise PromptError(
                f"{MAX_CATCHING_UP} targets are still catching up: send it again when they are "
                "tracked"
            )

    def _let_catch_up(self, target_id: int, tracker: MosamTracker, start: KeptFrame) -> None:
        due = self.frames.newest.number + CATCH_UP_FRAMES
        self._catching_up[target_id] = _CatchUp(tracker, start, due)

    def _selected(self, target_id: int, start: KeptFrame, stamp: float | None) -> Selected:
        behind = self.frames.newest.stamp - start.stamp
        meant = start.stamp if stamp is None else stamp
        too_old = max(0.0, self.frames.oldest.stamp - meant)
        too_new = max(0.0, meant - self.frames.newest.stamp)
        return Selected(target_id, behind, too_old, too_new)

    def remove(self, target_id: int) -> None:
        """Forget a target, also one that is catching up.

        Raises:
            PromptError: there is no such target.
        """
        is_new = target_id in self._new
        self._catching_up.pop(target_id, None)
        if not is_new:
            self._live.remove(target_id)
        self.frames.forget(target_id)

    def clear(self) -> None:
        """Forget all targets."""
        self.frames.forget_targets()
        self._catching_up.clear()
        self._live.clear()

    def reconfigure(self, config: TrackerConfig, buffer_seconds: float) -> None:
        """Take other settings from the next frame on.

        Raises:
            ValueError: see `MosamTracker.reconfigure`.
        """
        self._live.reconfigure(config)
        for catch_up in self._catching_up.values():
            catch_up.tracker.reconfigure(config)
        self.frames.seconds = buffer_seconds

    def memory_bytes(self) -> int:
        """Bytes of all tensors kept between frames, without the frames themselves."""
        trackers = [self._live, *(c.tracker for c in self._catching_up.values())]
        return sum(tracker.memory_bytes() for tracker in trackers)

    def catch_up(self, seconds: float) -> tuple[RejectedPrompt, ...]:
        """Bring targets nearer to now, after the newest frame was tracked.

        Args:
            seconds: how long it may take. One frame is tracked in any case; another one only if it
                is expected to fit.

        Returns:
            The prompts that did not fit their frames; a new target is dropped with its first one.
        """
        rejected: list[RejectedPrompt] = []
        started = time.perf_counter()
        elapsed = 0.0
        while self._catching_up and (elapsed == 0.0 or elapsed + self._step_seconds <= seconds):
            target_id = next(iter(self._catching_up))
            rejected += self._step(target_id, seconds)
            now = time.perf_counter() - started
            self._step_seconds, elapsed = now - elapsed, now
        return tuple(rejected)

    def _step(self, target_id: int, seconds: float) -> tuple[RejectedPrompt, ...]:
        """Track one frame for a target; then it is the next one's turn."""
        steps = max(1.0, seconds / self._step_seconds) if self._step_seconds else 1.0
        each = steps / len(self._catching_up)
        catch_up = self._catching_up.pop(target_id)
        rejected = catch_up.step(self.frames, each)
        if target_id in catch_up.tracker.target_ids:
            self._catching_up[target_id] = catch_up
            if catch_up.is_there(self.frames):
                self._join(target_id)
        return rejected

    def _join(self, target_id: int) -> None:
        """The target is one of the live ones from now on."""
        self._live.adopt(self._catching_up.pop(target_id).tracker, target_id)
