"""Track targets in a recorded bag, without a ROS graph, and write a bag with the answers added.

    mosam replay drive --output drive_tracked
    mosam replay drive --output drive_tracked --image /camera/image_raw --box "210 140 80 95"

The new bag holds every message of the old one, and a TrackedTargetArray and a label image for each
frame, with the frame's header and at the frame's time in the bag. Every frame is processed, in
order; none is dropped. A frame that cannot be read is skipped with a warning.

Targets come from the bag's TargetSelection messages, or from --box and --point in the first frame.
A SELECT or REFINE with a stamp applies, as live, to the frame nearest to that; every other
selection to the frame nearest to its time in the bag. What was recorded before a SELECT does not
touch its target, even where that begins in an earlier frame: a CLEAR leaves it alone, and a target
of the same id that was removed before the SELECT ends where the new one begins. Targets get the ids
that they got live, unless the node refused a selection because there were too many targets.

Replaying is deterministic: run twice on the CPU of one machine, the messages of targets and masks
have the same bytes. That is why the seconds per stage in a TrackedTargetArray are 0 here. A GPU
does not promise it: choose the CPU with `device: cpu` in the parameter file.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from geometry_msgs.msg import Point32
from numpy.typing import NDArray
from PIL import Image as PictureFile
from rclpy.serialization import deserialize_message
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CompressedImage, Image
from tqdm import tqdm

from mosam_ros.bags import (
    BagCopy,
    BagError,
    copy_bag,
    header_stamp,
    open_bag,
    read_messages,
    topics_of_types,
    type_name,
)
from mosam_ros.demo_report import parse_box
from mosam_ros.mosam.catch_up import StreamTracker
from mosam_ros.mosam.checkpoints import MODELS
from mosam_ros.mosam.prompts import PromptError
from mosam_ros.mosam.results import StageSeconds
from mosam_ros.mosam.selection import Action, ignored
from mosam_ros.mosam.tracker import MAX_TARGET_ID, MosamTracker
from mosam_ros.msg import TargetSelection, TrackedTargetArray
from mosam_ros.nodes.conversions import (
    color_to_image,
    image_seconds,
    labels_to_image,
    prompt_from_selection,
    selection_from_message,
    targets_message,
)
from mosam_ros.nodes.image_input import ImageError, compressed_to_rgb, image_to_rgb
from mosam_ros.nodes.overlay import draw_overlay
from mosam_ros.nodes.parameters import Setting
from mosam_ros.nodes.tracker_parameters import TRACKER_SETTINGS, make_tracker

IMAGE_TYPES = {type_name(message_type): message_type for message_type in (Image, CompressedImage)}
SELECT_TOPIC = "/select"
NODE_NAME = "mosam_tracker"
NOT_FOR_REPLAY = ("use_sim_time", "qos_overrides.", "start_type_description_service")
"""Parameters that nodes have beside their own."""

FAR_STAMP = 0.5
"""Seconds between a selection's stamp and the nearest frame that are worth a warning."""

SHOWN_WARNINGS = 10


class ReplayError(ValueError):
    """The replay cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class PlannedSelection:
    """A selection.

    Attributes:
        frame: index of the frame that it is for.
        message: what is asked for.
        recorded: its place among the bag's selections in the order of recording.
    """

    frame: int
    message: TargetSelection
    recorded: int = 0

    def ends(self, target_id: int) -> bool:
        """Whether it asks to forget a target of that id."""
        message = self.message
        if message.action == TargetSelection.REMOVE:
            return message.target_id == target_id
        return message.action == TargetSelection.CLEAR


@dataclass(frozen=True)
class ReplaySummary:
    """What a replay did.

    Attributes:
        frames: answered.
        frames_skipped: could not be read.
        selections: applied.
        selections_ignored: could not be applied.
        targets: that were tracked in at least one frame.
        seconds: that the replay took, reading and writing included.
        frames_per_second: answered frames in these seconds.
    """

    frames: int
    frames_skipped: int
    selections: int
    selections_ignored: int
    targets: int
    seconds: float
    frames_per_second: float


@dataclass(frozen=True)
class FrameAnswer:
    """A frame's outputs: its targets, (height, width) uint16 target ids, and its RGB pixels."""

    targets: TrackedTargetArray
    labels: NDArray[np.uint16]
    frame: NDArray[np.uint8]


class Warnings:
    """Warnings on standard error, above the progress bar; only the first ones are shown."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, text: str) -> None:
        self.count += 1
        if self.count <= SHOWN_WARNINGS:
            tqdm.write(f"warning: {text}", file=sys.stderr)

    def close(self) -> None:
        """Say how many were not shown."""
        if self.count > SHOWN_WARNINGS:
            print(f"warning: {self.count - SHOWN_WARNINGS} more were not shown", file=sys.stderr)


class Replayer:
    """Answers one frame after the other, as the tracker node does.

    Args:
        tracker: without targets.
        selections: in the order of their frames.
        warn: is told of frames and selections that cannot be used.
    """

    def __init__(
        self,
        tracker: MosamTracker,
        selections: Sequence[PlannedSelection],
        warn: Callable[[str], None],
    ) -> None:
        # Every selection comes with its frame: no older ones need be kept.
        self._stream = StreamTracker(tracker, buffer_seconds=0.0)
        self._waiting = deque(selections)
        self._warn = warn
        self._next_frame = 0
        self._first_problem = ""
        self._targets: set[int] = set()
        self._recorded: dict[int, int] = {}  # by target: the place of its SELECT
        self._num_selections = len(self._waiting)
        self._selections_ignored = 0
        self._frames = 0

    def answer(self, data: bytes, message_type: type) -> FrameAnswer | None:
        """Track in the next frame.

        Args:
            data: a serialized image.
            message_type: Image or CompressedImage.

        Returns:
            None where the frame cannot be read; its selections wait for the next one.
        """
        index = self._next_frame
        self._next_frame += 1
        try:
            message, frame = _read_image(data, message_type)
            stamp = image_seconds(message.header)
        except ImageError as error:
            self._first_problem = self._first_problem or str(error)
            self._warn(f"frame {index} skipped: {error}")
            return None
        self._take(frame, stamp)
        while self._waiting and self._waiting[0].frame <= index:
            self._select(self._waiting.popleft())
        result = self._stream.track()
        for rejected in result.rejected:
            self._ignore_selection(rejected.target_id, rejected.reason)
        self._frames += 1
        self._targets.update(target.target_id for target in result.targets)
        # Measured times would differ from run to run.
        targets = targets_message(replace(result, seconds=StageSeconds()), message.header)
        return FrameAnswer(targets, result.label_image(), frame)

    def _take(self, frame: NDArray[np.uint8], stamp: float) -> None:
        taken = self._stream.take(frame, stamp)
        if taken.cleared:
            self._warn(
                f"the stamps jump back by {-taken.elapsed:.1f} s at frame {self._next_frame - 1}: "
                "all targets are cleared there"
            )

    def _select(self, planned: PlannedSelection) -> None:
        try:
            self._apply(planned)
        except PromptError as error:
            self._ignore_selection(planned.message.target_id, error)

    def _apply(self, planned: PlannedSelection) -> None:
        """Do what a selection asks for to the targets that were selected before it, as recorded."""
        selection = replace(selection_from_message(planned.message), stamp=None)
        if selection.action is Action.SELECT:
            self._free_id(planned)
            selected = self._stream.apply(selection)
            self._recorded[selected.target_id] = planned.recorded
        elif selection.action is Action.CLEAR:
            for target_id in self._stream.target_ids:
                if self._recorded[target_id] < planned.recorded:
                    self._stream.remove(target_id)
        elif self._recorded.get(selection.target_id, -1) < planned.recorded:
            self._stream.apply(selection)

    def _free_id(self, planned: PlannedSelection) -> None:
        """End the target whose id a SELECT takes, where it was forgotten before that arrived."""
        target_id = planned.message.target_id
        if target_id not in self._stream.target_ids:
            return
        selected = self._recorded[target_id]
        if any(
            selected < waiting.recorded < planned.recorded and waiting.ends(target_id)
            for waiting in self._waiting
        ):
            self._stream.remove(target_id)

    def _ignore_selection(self, target_id: int, reason: object) -> None:
        self._selections_ignored += 1
        self._warn(ignored(target_id, reason))
        if not (self._waiting or self._targets or self._stream.target_ids):
            raise ReplayError("no target could be selected, see the warning above")

    def summary(self, seconds: float) -> ReplaySummary:
        """The figures after the last frame.

        Args:
            seconds: that the replay took.

        Raises:
            ReplayError: no frame could be read.
        """
        if not self._frames:
            raise ReplayError(
                f"none of the {self._next_frame} frames can be read: {self._first_problem}"
            )
        if self._waiting:
            self._warn(f"{len(self._waiting)} selections had no frame to be applied to")
        ignored = self._selections_ignored + len(self._waiting)
        return ReplaySummary(
            frames=self._frames,
            frames_skipped=self._next_frame - self._frames,
            selections=self._num_selections - ignored,
            selections_ignored=ignored,
            targets=len(self._targets),
            seconds=seconds,
            frames_per_second=self._frames / max(seconds, 1e-9),
        )


def _read_image(data: bytes, message_type: type) -> tuple[Any, NDArray[np.uint8]]:
    """The message and its pixels, (height, width, 3) uint8 RGB.

    Not by cv_bridge: the same pixels on every machine.
    """
    message = _deserialize(data, message_type)
    if message is None:
        raise ImageError(f"its message of {len(data)} bytes is damaged")
    to_rgb = compressed_to_rgb if message_type is CompressedImage else image_to_rgb
    return message, to_rgb(message)


def _deserialize(data: bytes, message_type: type) -> Any:
    """A message, None where the bytes are damaged."""
    try:
        return deserialize_message(data, message_type)
    except Exception:  # RMWError, which has no public name, and what the fields' checks raise
        return None


def _image_size(data: bytes, message_type: type) -> tuple[int, int] | None:
    """(height, width) of a serialized image in pixels, None where it cannot be read."""
    message = _deserialize(data, message_type)
    if message is None:
        return None
    if message_type is Image:
        return message.height, message.width
    try:
        width, height = PictureFile.open(BytesIO(bytes(message.data))).size
    except (OSError, PictureFile.DecompressionBombError):
        return None
    return height, width


# What to read


def find_image_topic(reader: Reader, wanted: str | None) -> tuple[str, type]:
    """The image topic and the class of its messages.

    Args:
        reader: an open bag.
        wanted: its name; None where there is only one.

    Raises:
        ReplayError: no such topic, or several to choose from.
    """
    counts = topics_of_types(reader, IMAGE_TYPES)
    if not counts:
        there = ", ".join(sorted({entry.topic for entry in reader.connections})) or "nothing"
        raise ReplayError(f"the bag has no images; it has {there}")
    listed = ", ".join(f"{topic} ({count})" for topic, count in sorted(counts.items()))
    if wanted is None and len(counts) > 1:
        raise ReplayError(f"the bag has several image topics, choose one with --image: {listed}")
    topic = next(iter(counts)) if wanted is None else wanted
    if topic not in counts:
        raise ReplayError(f"the bag has no images on {topic}; it has: {listed}")
    names = {entry.msgtype for entry in reader.connections if entry.topic == topic}
    if len(names) > 1:
        raise ReplayError(f"{topic} has messages of several types: {', '.join(sorted(names))}")
    return topic, IMAGE_TYPES[names.pop()]


def find_selection_topic(reader: Reader, wanted: str | None) -> str:
    """The topic of the selections.

    Raises:
        ReplayError: nothing in the bag selects a target.
    """
    counts = topics_of_types(reader, {type_name(TargetSelection)})
    topic = wanted or SELECT_TOPIC
    if topic not in counts:
        others = ", ".join(sorted(counts))
        hint = f"name their topic with --select: {others}" if others else "give --box or --point"
        raise ReplayError(f"the bag has no selections (TargetSelection) on {topic}; {hint}")
    return topic


def plan_selections(
    reader: Reader, image_topic: str, select_topic: str, warn: Callable[[str], None]
) -> list[PlannedSelection]:
    """The bag's selections, each with its frame; reads the bag once.

    Args:
        reader: an open bag.
        image_topic: of the frames.
        select_topic: of the selections.
        warn: is told of selections that are damaged or far from every frame.
    """
    times, stamps, sizes = array("q"), array("q"), []
    selections = []
    for connection, bag_time, data in read_messages(reader, {image_topic, select_topic}):
        if connection.topic == image_topic:
            times.append(bag_time)
            stamps.append(header_stamp(data))
            sizes.append(_image_size(data, IMAGE_TYPES[connection.msgtype]))
        elif (message := _deserialize(data, TargetSelection)) is not None:
            selections.append((bag_time, header_stamp(data), message))
        else:
            warn(f"a selection of {len(data)} bytes is damaged and ignored")
    plan = _Plan(np.array(times), np.array(stamps), sizes, warn)
    planned = [plan.place(place, *selection) for place, selection in enumerate(selections)]
    return sorted(planned, key=lambda entry: entry.frame)


class _Plan:
    """Finds the frames of selections, and the ids of their targets.

    Args:
        times: of the frames in the bag, nanoseconds.
        stamps: of the frames, nanoseconds.
        sizes: (height, width) of the frames in pixels, None where one cannot be read.
        warn: is told of selections that are far from every frame.
    """

    def __init__(
        self,
        times: NDArray[np.int64],
        stamps: NDArray[np.int64],
        sizes: Sequence[tuple[int, int] | None],
        warn: Callable[[str], None],
    ) -> None:
        self._times = times
        self._stamps = stamps
        self._sizes = sizes
        self._warn = warn
        self._last_id = 0
        self._starts: dict[int, int] = {}  # by target: the frame of its SELECT

    def place(
        self, recorded: int, bag_time: int, stamp: int, message: TargetSelection
    ) -> PlannedSelection:
        """The next selection in the order of recording, its times in nanoseconds."""
        stamped = stamp and message.action in (TargetSelection.SELECT, TargetSelection.REFINE)
        frame = self._frame_of_stamp(stamp) if stamped else _nearest(self._times, bag_time)
        if message.action == TargetSelection.SELECT:
            if _says_where(message, self._sizes[frame]):
                self._give_id(message)
                self._starts[message.target_id] = frame
        elif message.action != TargetSelection.CLEAR:
            frame = max(frame, self._starts.get(message.target_id, 0))
        return PlannedSelection(frame, message, recorded)

    def _frame_of_stamp(self, stamp: int) -> int:
        frame = _nearest(self._stamps, stamp)
        distance = abs(int(self._stamps[frame]) - stamp) / 1e9
        if distance > FAR_STAMP:
            self._warn(
                f"a selection's stamp is {distance:.1f} s from the nearest frame's, "
                f"frame {frame}, to which it is applied"
            )
        return frame

    def _give_id(self, message: TargetSelection) -> None:
        """Give a target the id that it got live, where selections came in the order of recording.

        Once the largest id was used the tracker chooses one.
        """
        if message.target_id == 0 and self._last_id < MAX_TARGET_ID:
            message.target_id = self._last_id + 1
        self._last_id = max(self._last_id, message.target_id)


def _nearest(moments: NDArray[np.int64], moment: int) -> int:
    return int(np.abs(moments - moment).argmin())


def _says_where(message: TargetSelection, size: tuple[int, int] | None) -> bool:
    """Whether a SELECT is taken at all: only then does the tracker give its target an id.

    Args:
        message: the selection.
        size: (height, width) of its frame in pixels, None where it is not known.
    """
    try:
        prompt = prompt_from_selection(message)
        prompt.require_target()
        if size is not None:
            prompt.fit(*size)
    except PromptError:
        return False
    return True


def first_frame_selection(
    box: Sequence[float] | None, point: Sequence[float] | None
) -> PlannedSelection:
    """A target in the first frame, by a box (x, y, width, height), a point (x, y) or both."""
    message = TargetSelection(box=list(box or []))
    if point:
        message.points = [Point32(x=point[0], y=point[1])]
    return PlannedSelection(0, message)


# The tracker


def read_parameters(file: Path | None, warn: Callable[[str], None]) -> dict[str, Any]:
    """Every parameter of the tracker node by name, from a parameter file or else its default.

    Args:
        file: as for the node; None for the defaults.
        warn: is told of parameters that the tracker does not have.

    Raises:
        ReplayError: the file cannot be used.
    """
    values = {name: setting.default for name, setting in TRACKER_SETTINGS.items()}
    for name, value in _flat(_sections(file)) if file else ():
        if name.startswith(NOT_FOR_REPLAY):
            continue
        if name not in TRACKER_SETTINGS:
            warn(f"{file}: the tracker has no parameter {name}")
            continue
        if problem := _problem_of(value, TRACKER_SETTINGS[name]):
            raise ReplayError(f"{file}: {name}: {problem}")
        values[name] = value
    return values


def _sections(file: Path) -> dict:
    """The parameters that a file has for the tracker node."""
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ReplayError(f"the parameters cannot be read: {error}") from error
    found: dict = {}
    for name, section in content.items() if isinstance(content, dict) else ():
        if name.strip("/") in ("**", "*", NODE_NAME) and isinstance(section, dict):
            found.update(section.get("ros__parameters") or {})
    if not found:
        raise ReplayError(f"{file} has no parameters under `/**:` or `{NODE_NAME}:`")
    return found


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _problem_of(value: Any, setting: Setting) -> str:
    """Why the node would refuse a parameter's value; empty: it would not."""
    if type(value) is not type(setting.default):
        return f"it is {value!r}: give a {type(setting.default).__name__}"
    if setting.low != setting.high and not setting.low <= value <= setting.high:
        return f"it is {value}: give {setting.low:g} to {setting.high:g}"
    return setting.problem(value, configured=False)


@contextmanager
def deterministic() -> Iterator[None]:
    """Inside of it the same input gives the same bits, on the CPU."""
    before = torch.are_deterministic_algorithms_enabled(), cv2.getNumThreads()
    torch.use_deterministic_algorithms(True, warn_only=True)
    cv2.setNumThreads(1)  # the optical flow depends on how the image is shared out
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        cv2.setNumThreads(before[1])


# The command


def replay(arguments: argparse.Namespace, warn: Callable[[str], None]) -> ReplaySummary:
    """Replay a bag as the command line says.

    Raises:
        BagError, ReplayError: it cannot be done; nothing is left behind.
    """
    if arguments.output.exists():
        raise BagError(f"{arguments.output} exists: name another folder, or remove it first")
    values = read_parameters(arguments.params, warn)
    chosen = {"model": arguments.model, "checkpoint": arguments.checkpoint}
    values.update({name: value for name, value in chosen.items() if value})
    with open_bag(arguments.bag) as reader:
        topic, message_type = find_image_topic(reader, arguments.image)
        if arguments.box or arguments.point:
            selections = [first_frame_selection(arguments.box, arguments.point)]
        else:
            select_topic = find_selection_topic(reader, arguments.select)
            selections = plan_selections(reader, topic, select_topic, warn)
        try:
            tracker, _ = make_tracker(values)
        except ValueError as error:
            raise ReplayError(str(error)) from error
        replayer = Replayer(tracker, selections, warn)
        started = time.perf_counter()
        with deterministic(), copy_bag(reader, arguments.output, warn) as copy:
            outputs = _Outputs(copy, arguments.name, arguments.overlay)
            for connection, bag_time, data in _with_progress(reader, topic, warn):
                copy.copy(connection, bag_time, data)
                if connection.topic == topic and (answer := replayer.answer(data, message_type)):
                    outputs.add(bag_time, answer)
            return replayer.summary(time.perf_counter() - started)


def _with_progress(
    reader: Reader, image_topic: str, warn: Callable[[str], None]
) -> Iterator[tuple[Connection, int, bytes]]:
    """Every message of a bag, with a progress bar that counts the frames."""
    num_frames = topics_of_types(reader, IMAGE_TYPES)[image_topic]
    count = 0
    with tqdm(total=num_frames, unit="frame", disable=None) as progress:
        for count, message in enumerate(read_messages(reader), 1):  # noqa: B007
            yield message
            progress.update(message[0].topic == image_topic)
    if count != reader.message_count:
        warn(f"the bag should have {reader.message_count} messages, but {count} were found")


class _Outputs:
    """The topics that a replay adds to a bag."""

    def __init__(self, copy: BagCopy, name: str, overlay: bool) -> None:
        self._copy = copy
        self._name = name
        self._overlay = overlay
        try:
            copy.add_topic(f"/{name}/targets", TrackedTargetArray)
            copy.add_topic(f"/{name}/masks", Image)
            if overlay:
                copy.add_topic(f"/{name}/overlay", Image)
        except BagError as error:
            raise ReplayError(f"{error}: name the new ones otherwise with --name") from error

    def add(self, bag_time: int, answer: FrameAnswer) -> None:
        targets, labels, header = answer.targets, answer.labels, answer.targets.header
        self._copy.add(f"/{self._name}/targets", bag_time, targets)
        self._copy.add(f"/{self._name}/masks", bag_time, labels_to_image(labels, header))
        if self._overlay:
            bgr = cv2.cvtColor(answer.frame, cv2.COLOR_RGB2BGR)
            drawn = color_to_image(draw_overlay(bgr, labels, targets.targets), "bgr8", header)
            self._copy.add(f"/{self._name}/overlay", bag_time, drawn)


def parse_arguments(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read and check the command line; ends the process with one clear line if it will not do."""
    parser = argparse.ArgumentParser(
        prog="mosam replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("bag", type=Path, metavar="BAG", help="folder of a rosbag2, or a .mcap or .db3 file")
    add("--output", type=Path, required=True, metavar="OUT", help="folder of the new bag")
    add("--image", metavar="TOPIC", help="the camera's images; needed where there are several")
    add("--select", metavar="TOPIC", help=f"the selections, {SELECT_TOPIC} if not given")
    add("--box", metavar="PIXELS", help="'x y width height' of a target in the first frame")
    add("--point", metavar="PIXELS", help="'x y' on a target in the first frame")
    add("--model", metavar="NAME", help=f"{', '.join(MODELS)}; nano if nobody says otherwise")
    add("--checkpoint", metavar="FILE", help="the model's weights")
    add("--params", type=Path, metavar="YAML", help="the tracker node's parameter file")
    add("--name", default=NODE_NAME, help=f"the outputs are /NAME/targets ...; {NODE_NAME}")
    add("--overlay", action="store_true", help="add the frames with everything drawn, too")
    add("--json", type=Path, metavar="FILE", help="write the figures of the table there")
    arguments = parser.parse_args(args)
    try:
        _check(arguments)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    return arguments


def _check(arguments: argparse.Namespace) -> None:
    arguments.box = parse_box(arguments.box or "")
    arguments.point = _parse_point(arguments.point)
    if arguments.select and (arguments.box or arguments.point):
        raise ValueError("targets come from --select or from --box and --point, not from both")
    if not re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", arguments.name, re.ASCII):
        raise ValueError(f"--name is {arguments.name!r}: give letters, digits and _ like ROS")
    if arguments.json and not arguments.json.parent.is_dir():
        raise ValueError(f"there is no folder {arguments.json.parent} for --json")


def _parse_point(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        x, y = (float(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(f"the point {text!r} is not 'x y' in pixels") from error
    return [x, y]


def format_table(summary: ReplaySummary) -> str:
    """The figures for people."""
    rows = {name.replace("_", " "): value for name, value in asdict(summary).items()}
    width = max(map(len, rows))
    return "\n".join(
        f"  {name:<{width}}  {value:>8.1f}"
        if isinstance(value, float)
        else f"  {name:<{width}}  {value:>8}"
        for name, value in rows.items()
    )


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    arguments = parse_arguments(args)
    warn = Warnings()
    try:
        summary = replay(arguments, warn)
        if arguments.json:
            arguments.json.write_text(json.dumps(asdict(summary), indent=2) + "\n")
    except (BagError, ReplayError, OSError) as error:
        print(f"the replay failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nstopped; {arguments.output} is not kept", file=sys.stderr)
        return 130
    warn.close()
    print(f"wrote {arguments.output}\n{format_table(summary)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
