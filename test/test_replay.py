"""`mosam replay` on bags of both storages, with the bundled model."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tracemalloc
from array import array
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")

from geometry_msgs.msg import Point32  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from rosbags.highlevel import AnyReader  # noqa: E402
from rosbags.rosbag2 import Reader, StoragePlugin, Writer  # noqa: E402
from rosbags.typesys import Stores, get_types_from_msg, get_typestore  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402
from std_msgs.msg import Header, String  # noqa: E402

from mosam_ros import bags, replay  # noqa: E402
from mosam_ros.evaluation.metrics import mask_iou  # noqa: E402
from mosam_ros.msg import TargetSelection, TrackedTarget, TrackedTargetArray  # noqa: E402
from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, SCENARIOS, SyntheticScene  # noqa: E402

ROOT = Path(__file__).parents[1]
START = 1_700_000_000 * 10**9
FRAME = 10**8
DELAY = 3 * 10**7
"""Nanoseconds: the first stamp, from stamp to stamp, and from a stamp to the bag's time."""

IMAGE, COMPRESSED, SELECT = "/camera/image_raw", "/camera/image_raw/compressed", "/select"
TARGETS, MASKS, OVERLAY = (f"/mosam_tracker/{name}" for name in ("targets", "masks", "overlay"))
FIRST, LAST = 2, 6
NUM_FRAMES = 9
"""The frames in which the raw bag's target is selected and removed."""


@pytest.fixture(scope="module")
def clip():
    scene = SyntheticScene(
        FIRST_HELD_OUT_SEED + 7,
        replace(SCENARIOS["easy"], height=192, width=256, num_frames=NUM_FRAMES),
    )
    return [scene.frame(t) for t in range(NUM_FRAMES)]


def header(stamp: int, frame_id: str = "lens") -> Header:
    message = Header(frame_id=frame_id)
    message.stamp.sec, message.stamp.nanosec = divmod(stamp, 10**9)
    return message


def stamp(index: int) -> int:
    return START + index * FRAME


def raw_image(pixels: np.ndarray, time: int, encoding: str = "rgb8") -> Image:
    message = Image(header=header(time), encoding=encoding)
    message.height, message.width = pixels.shape[:2]
    message.step = message.width * pixels[0, 0].nbytes
    message.data = array("B", pixels.tobytes())
    return message


def jpeg(pixels: np.ndarray, time: int) -> CompressedImage:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return CompressedImage(header=header(time), format="jpeg", data=array("B", data.tobytes()))


def selection(time: int, mask: np.ndarray | None = None, **fields) -> TargetSelection:
    box = [] if mask is None else list(map(float, cv2.boundingRect(mask.astype(np.uint8))))
    return TargetSelection(header=header(time), box=box, **fields)


def write_bag(path: Path, messages, plugin: StoragePlugin = StoragePlugin.MCAP) -> Path:
    """Messages are (topic, bag time, ROS message or its bytes with the class)."""
    store, own = get_typestore(Stores.ROS2_JAZZY), {}
    for file in sorted((ROOT / "msg").glob("*.msg")):
        own.update(get_types_from_msg(file.read_text(), f"mosam_ros/msg/{file.stem}"))
    store.register(own)
    with Writer(path, version=9, storage_plugin=plugin) as writer:
        topics = {}
        for topic, time, message in messages:
            kind, data = message if isinstance(message, tuple) else (type(message), None)
            if topic not in topics:
                name = bags.type_name(kind)
                topics[topic] = writer.add_connection(topic, name, typestore=store)
            if message is not None:
                raw = serialize_message(message) if data is None else data
                writer.write(topics[topic], time, raw)
    return path


def write_humble_bag(path: Path, messages) -> Path:
    """As Humble records it: sqlite3, no definitions, no hashes, QoS as text."""
    path.mkdir()
    qos = (
        "- history: 1\n  depth: 5\n  reliability: 2\n  durability: 2\n"
        "  deadline:\n    sec: 9223372036\n    nsec: 854775807\n"
        "  lifespan:\n    sec: 9223372036\n    nsec: 854775807\n"
        "  liveliness: 1\n"
        "  liveliness_lease_duration:\n    sec: 9223372036\n    nsec: 854775807\n"
        "  avoid_ros_namespace_conventions: false"
    )
    names = {topic: name for topic, name, _, _ in messages}
    times = [time for _, _, time, _ in messages]
    database = sqlite3.connect(path / "drive_0.db3")
    database.executescript(
        """CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
        CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL,
            metadata TEXT NOT NULL);
        CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
            serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);
        CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,
            timestamp INTEGER NOT NULL, data BLOB NOT NULL);
        CREATE INDEX timestamp_idx ON messages (timestamp ASC);
        INSERT INTO schema VALUES (3, 'humble');"""
    )
    ids = {topic: index for index, topic in enumerate(names, 1)}
    for topic, name in names.items():
        database.execute("INSERT INTO topics VALUES(?,?,?,'cdr',?)", (ids[topic], topic, name, qos))
    for topic, _, time, data in messages:
        database.execute(
            "INSERT INTO messages(topic_id,timestamp,data) VALUES(?,?,?)", (ids[topic], time, data)
        )
    database.commit()
    database.close()
    counts = {topic: sum(entry[0] == topic for entry in messages) for topic in names}
    span = {"nanoseconds": max(times) - min(times)}
    start = {"nanoseconds_since_epoch": min(times)}
    information = {
        "version": 5,
        "storage_identifier": "sqlite3",
        "duration": span,
        "starting_time": start,
        "message_count": len(messages),
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic,
                    "type": name,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": qos,
                },
                "message_count": counts[topic],
            }
            for topic, name in names.items()
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": ["drive_0.db3"],
        "files": [
            {
                "path": "drive_0.db3",
                "starting_time": start,
                "duration": span,
                "message_count": len(messages),
            }
        ],
    }
    text = yaml.safe_dump({"rosbag2_bagfile_information": information})
    (path / "metadata.yaml").write_text(text)
    return path


def frames_of(clip, make=raw_image, topic=IMAGE) -> list:
    return [(topic, stamp(t) + DELAY, make(f.image, stamp(t))) for t, f in enumerate(clip)]


@pytest.fixture(scope="module")
def raw_bag(clip, tmp_path_factory):
    """The target is selected by the stamp of a frame past, and removed by the time in the bag."""
    late = stamp(FIRST) + 4 * FRAME
    messages = [
        *frames_of(clip),
        (SELECT, late, selection(stamp(FIRST) + FRAME // 3, clip[FIRST].masks[0], label="cup")),
        (
            SELECT,
            stamp(LAST) + DELAY + FRAME // 3,
            selection(0, action=TargetSelection.REMOVE, target_id=1),
        ),
        ("/notes", START, String(data="hello")),
    ]
    messages.sort(key=lambda entry: entry[1])
    return write_bag(tmp_path_factory.mktemp("raw") / "drive", messages)


def run(*arguments) -> int:
    return replay.main([str(argument) for argument in arguments])


def refused(capsys, *arguments) -> str:
    """What a replay that cannot be done says, in one line and what else was warned of."""
    assert run(*arguments) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.fixture(scope="module")
def raw_replay(raw_bag, tmp_path_factory):
    output = tmp_path_factory.mktemp("replayed") / "drive"
    assert run(raw_bag, "--output", output) == 0
    return output


def read(path: Path, *topics: str) -> list[tuple[str, int, bytes]]:
    with Reader(path) as reader:
        return [
            (connection.topic, time, bytes(data))
            for connection, time, data in reader.messages()
            if not topics or connection.topic in topics
        ]


def decoded(path: Path, topic: str) -> list:
    """By the definitions in the bag alone, as tools without this package do."""
    with AnyReader([path]) as reader:
        return [
            reader.deserialize(data, connection.msgtype)
            for connection, _, data in reader.messages()
            if connection.topic == topic
        ]


def nanoseconds(message) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def label_image(message) -> np.ndarray:
    assert message.encoding == "mono16"
    return message.data.view(np.uint16).reshape(message.height, message.width)


def test_every_frame_is_answered_with_its_header_at_its_time(raw_bag, raw_replay):
    times = [time for _, time, _ in read(raw_bag, IMAGE)]
    for topic in (TARGETS, MASKS):
        messages = decoded(raw_replay, topic)
        assert [nanoseconds(message) for message in messages] == [
            stamp(t) for t in range(NUM_FRAMES)
        ]
        assert {message.header.frame_id for message in messages} == {"lens"}
        assert [time for _, time, _ in read(raw_replay, topic)] == times
    assert [m.seconds_total for m in decoded(raw_replay, TARGETS)] == [0.0] * NUM_FRAMES
    assert not read(raw_replay, OVERLAY)


def test_selections_apply_to_their_frames_and_the_mask_follows_the_object(raw_replay, clip):
    arrays = [message.targets for message in decoded(raw_replay, TARGETS)]
    assert [len(targets) for targets in arrays] == [0] * FIRST + [1] * (LAST - FIRST) + [0] * (
        NUM_FRAMES - LAST
    )
    labels = [label_image(message) for message in decoded(raw_replay, MASKS)]
    for t in range(FIRST, LAST):
        (target,) = arrays[t]
        assert (target.id, target.label, target.state) == (1, "cup", TrackedTarget.TRACKED)
        assert np.count_nonzero(labels[t] == 1) == target.area
        assert mask_iou(labels[t] == 1, clip[t].masks[0]) > 0.7
    assert not any(image.any() for image in (*labels[:FIRST], *labels[LAST:]))


def test_everything_recorded_is_kept_as_it_was(raw_bag, raw_replay):
    recorded = read(raw_bag)
    assert [m for m in read(raw_replay) if m[0] not in (TARGETS, MASKS)] == recorded
    with Reader(raw_bag) as old, Reader(raw_replay) as new:
        kept = {c.topic: (c.msgtype, c.msgdef, c.digest, c.ext) for c in new.connections}
        for c in old.connections:
            assert kept[c.topic] == (c.msgtype, c.msgdef, c.digest, c.ext)


def test_another_process_gives_the_same_bytes(raw_bag, raw_replay, tmp_path):
    """One whose fresh memory is not zero: the gaps in a message must not show it."""
    output, figures = tmp_path / "drive", tmp_path / "figures.json"
    command = ("-m", "mosam_ros.cli", "replay", raw_bag, "--output", output, "--json", figures)
    done = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "MALLOC_PERTURB_": "85"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for topic in (TARGETS, MASKS):
        assert len(read(output, topic)) == NUM_FRAMES
        assert read(output, topic) == read(raw_replay, topic)
    summary = json.loads(figures.read_text())
    assert (summary["frames"], summary["frames_skipped"], summary["targets"]) == (NUM_FRAMES, 0, 1)
    assert (summary["selections"], summary["selections_ignored"]) == (2, 0)
    assert summary["frames_per_second"] == pytest.approx(NUM_FRAMES / summary["seconds"])
    table = {" ".join(row.split()[:-1]): row.split()[-1] for row in done.stdout.splitlines()}
    for name, value in summary.items():
        shown = f"{value:.1f}" if isinstance(value, float) else str(value)
        assert table[name.replace("_", " ")] == shown


def test_a_compressed_topic_of_humble_by_box_and_with_overlay(clip, tmp_path):
    images = frames_of(clip[:4], jpeg, COMPRESSED)
    messages = [
        (topic, "sensor_msgs/msg/CompressedImage", time, serialize_message(message))
        for topic, time, message in images
    ]
    messages.append(("/arm", "arm_msgs/msg/Joints", START, b"\0\1\0\0whatever"))
    bag = write_humble_bag(tmp_path / "drive", messages)
    x, y, width, height = cv2.boundingRect(clip[0].masks[0].astype(np.uint8))
    output = tmp_path / "tracked"
    assert run(bag, "--output", output, "--overlay", "--box", f"{x} {y} {width} {height}") == 0
    assert [file.suffix for file in output.iterdir() if "yaml" not in file.name] == [".db3"]
    kept = [message for message in read(output) if message[0] in (COMPRESSED, "/arm")]
    assert kept == read(bag)
    for t, image in enumerate(decoded(output, MASKS)):
        assert mask_iou(label_image(image) == 1, clip[t].masks[0]) > 0.7
    assert [len(message.targets) for message in decoded(output, TARGETS)] == [1] * 4
    for t, image in enumerate(decoded(output, OVERLAY)):
        assert (image.encoding, nanoseconds(image)) == ("bgr8", stamp(t))
        drawn = image.data.reshape(192, 256, 3)
        changed = np.abs(drawn.astype(int) - clip[t].image[..., ::-1]).max(2) > 60
        assert mask_iou(changed, clip[t].masks[0]) > 0.3
    with Reader(output) as reader:
        definitions = {c.topic: c.msgdef.data for c in reader.connections}
    assert "string frame_id" in definitions[COMPRESSED]
    assert definitions["/arm"] == ""


def test_bad_frames_are_skipped_and_the_size_may_change(clip, tmp_path, capsys):
    whole = serialize_message(raw_image(clip[1].image, stamp(1)))
    cut = raw_image(clip[2].image, stamp(2))
    cut.data = cut.data[:100]
    messages = [
        (IMAGE, stamp(0), (Image, b"\0\1")),
        (IMAGE, stamp(1), (Image, whole[: len(whole) // 2])),
        (IMAGE, stamp(2), cut),
        *frames_of(clip)[3:5],
        (
            IMAGE,
            stamp(5) + DELAY,
            raw_image(np.ascontiguousarray(clip[4].image[::2, ::2]), stamp(5)),
        ),
    ]
    bag = write_bag(tmp_path / "drive", messages)
    y, x = np.nonzero(clip[3].masks[0])
    point = f"{int(x.mean())},{int(y.mean())}"
    assert run(bag, "--output", tmp_path / "out", "--point", point, "--name", "replay/one") == 0
    said = capsys.readouterr()
    for text in ("frame 0 skipped: its message of 2 bytes is damaged", "frame 1 skipped: its"):
        assert text in said.err
    assert "frame 2 skipped: the image's data is too short" in said.err
    assert re.search(r"frames skipped +3\n", said.out)
    arrays = decoded(tmp_path / "out", "/replay/one/targets")
    assert [nanoseconds(message) for message in arrays] == [stamp(t) for t in (3, 4, 5)]
    assert [len(message.targets) for message in arrays] == [1, 1, 1]
    masks = [label_image(image) for image in decoded(tmp_path / "out", "/replay/one/masks")]
    assert masks[-1].shape == (96, 128)
    assert mask_iou(masks[0] == 1, clip[3].masks[0]) > 0.5
    assert len(read(tmp_path / "out")) == 6 + 2 * 3


def test_targets_are_cleared_where_the_stamps_jump_back(clip, tmp_path, capsys):
    stamps = [stamp(30), stamp(31), stamp(0), stamp(1)]
    bag = write_bag(
        tmp_path / "drive",
        [(IMAGE, START + t, raw_image(clip[0].image, s)) for t, s in enumerate(stamps)],
    )
    assert run(bag, "--output", tmp_path / "out", "--box", "60 60 90 90") == 0
    assert "the stamps jump back by 3.1 s at frame 2" in capsys.readouterr().err
    arrays = decoded(tmp_path / "out", TARGETS)
    assert [len(message.targets) for message in arrays] == [1, 1, 0, 0]


def test_selections_go_to_the_nearest_frame(tmp_path):
    tiny = np.zeros((2, 2, 3), np.uint8)
    when = [
        (stamp(3) + DELAY, stamp(1) + FRAME // 2 + 1),
        (stamp(4) + DELAY, stamp(4)),
        (stamp(2) + DELAY + FRAME // 2 - 1, 0),
        (START, stamp(20)),
    ]
    bag = write_bag(
        tmp_path / "drive",
        [
            *((IMAGE, stamp(t) + DELAY, raw_image(tiny, stamp(t))) for t in range(6)),
            *((SELECT, time, selection(s, target_id=i)) for i, (time, s) in enumerate(when, 1)),
            (SELECT, stamp(5), (TargetSelection, b"\0\1\0\0\1")),
        ],
    )
    warnings = []
    with bags.open_bag(bag) as reader:
        planned = replay.plan_selections(reader, IMAGE, SELECT, warnings.append)
    assert [(p.frame, p.message.target_id) for p in planned] == [(2, 3), (2, 1), (4, 2), (5, 4)]
    assert len(warnings) == 2
    assert "5 bytes is damaged" in warnings[0]
    assert "1.5 s from the nearest frame's, frame 5" in warnings[1]


def test_remove_and_clear_do_not_go_to_the_frame_of_a_stamp(tmp_path):
    tiny = np.zeros((2, 2, 3), np.uint8)
    past = {"time": stamp(1), "target_id": 1}
    actions = TargetSelection.REFINE, TargetSelection.REMOVE, TargetSelection.CLEAR
    bag = write_bag(
        tmp_path / "drive",
        [
            *((IMAGE, stamp(t) + DELAY, raw_image(tiny, stamp(t))) for t in range(6)),
            (SELECT, stamp(0), selection(stamp(0), target_id=1)),
            *((SELECT, stamp(4) + DELAY, selection(action=a, **past)) for a in actions),
        ],
    )
    warnings = []
    with bags.open_bag(bag) as reader:
        planned = replay.plan_selections(reader, IMAGE, SELECT, warnings.append)
    assert [p.frame for p in planned] == [0, 1, 4, 4]
    assert not warnings


def test_nothing_is_done_to_a_target_before_the_frame_that_it_begins_in(tmp_path):
    """As where the recorder heard of a selection before it got the selection's frame."""
    tiny = np.zeros((2, 2, 3), np.uint8)
    box = np.ones((2, 2))
    bag = write_bag(
        tmp_path / "drive",
        [
            *((IMAGE, stamp(t) + DELAY, raw_image(tiny, stamp(t))) for t in range(6)),
            (SELECT, stamp(1), selection(stamp(4), box)),
            (SELECT, stamp(2), selection(0, box, action=TargetSelection.REFINE, target_id=1)),
            (SELECT, stamp(2), selection(0, action=TargetSelection.REMOVE, target_id=2)),
        ],
    )
    with bags.open_bag(bag) as reader:
        planned = replay.plan_selections(reader, IMAGE, SELECT, print)
    assert [(p.frame, p.message.action) for p in planned] == [
        (2, TargetSelection.REMOVE),
        (4, TargetSelection.SELECT),
        (4, TargetSelection.REFINE),
    ]


def replayed_targets(folder: Path, clip, selections, capsys) -> list[list[tuple[int, str]]]:
    """Per frame its targets' ids and labels; selections are (frame at arrival, message)."""
    arrivals = [(SELECT, stamp(t) + DELAY + 1 + i, m) for i, (t, m) in enumerate(selections)]
    messages = sorted([*frames_of(clip), *arrivals], key=lambda entry: entry[1])
    bag = write_bag(folder / "drive", messages)
    assert run(bag, "--output", folder / "out") == 0
    said = capsys.readouterr()
    assert "warning" not in said.err
    assert re.search(r"selections ignored +0\n", said.out)
    return [[(t.id, t.label) for t in m.targets] for m in decoded(folder / "out", TARGETS)]


def test_what_was_cleared_before_a_selection_arrived_is_not_its_target(clip, tmp_path, capsys):
    found = replayed_targets(
        tmp_path,
        clip,
        [
            (0, selection(0, clip[0].masks[0], label="old")),
            (5, selection(0, action=TargetSelection.CLEAR)),
            (6, selection(stamp(3), clip[3].masks[0], label="new")),
            (7, selection(0, action=TargetSelection.CLEAR)),
        ],
        capsys,
    )
    old, new = (1, "old"), (2, "new")
    assert found == [[old]] * 3 + [[old, new]] * 2 + [[new]] * 2 + [[]] * (NUM_FRAMES - 7)


@pytest.mark.parametrize(
    "ends", [{"action": TargetSelection.REMOVE, "target_id": 1}, {"action": TargetSelection.CLEAR}]
)
def test_an_id_that_was_freed_can_be_taken_by_a_selection_in_the_past(clip, ends, tmp_path, capsys):
    found = replayed_targets(
        tmp_path,
        clip,
        [
            (0, selection(0, clip[0].masks[0], label="old", target_id=1)),
            (5, selection(0, clip[5].masks[0], action=TargetSelection.REFINE, target_id=1)),
            (5, selection(0, **ends)),
            (6, selection(stamp(3), clip[3].masks[0], label="new", target_id=1)),
            (7, selection(0, action=TargetSelection.REMOVE, target_id=1)),
        ],
        capsys,
    )
    assert found == [[(1, "old")]] * 3 + [[(1, "new")]] * 4 + [[]] * (NUM_FRAMES - 7)


def test_an_id_that_was_not_freed_stays_taken(clip, tmp_path, capsys):
    box = clip[0].masks[0]
    messages = [
        *frames_of(clip[:4]),
        (SELECT, stamp(0), selection(0, box, label="first", target_id=1)),
        (SELECT, stamp(3), selection(stamp(1), box, label="second", target_id=1)),
        (SELECT, stamp(3) + 1, selection(0, action=TargetSelection.CLEAR)),
    ]
    bag = write_bag(tmp_path / "drive", sorted(messages, key=lambda entry: entry[1]))
    assert run(bag, "--output", tmp_path / "out") == 0
    assert "selection for target 1 ignored: target id 1 is in use" in capsys.readouterr().err
    labels = [[t.label for t in m.targets] for m in decoded(tmp_path / "out", TARGETS)]
    assert labels == [["first"]] * 3 + [[]]


def test_targets_have_the_ids_that_they_got_live(clip, tmp_path, capsys):
    found = replayed_targets(
        tmp_path,
        clip,
        [
            (4, selection(0, clip[4].masks[0], label="first")),
            (6, selection(stamp(2), clip[2].masks[0], label="second")),
            (7, selection(0, action=TargetSelection.REMOVE, target_id=1)),
        ],
        capsys,
    )
    first, second = (1, "first"), (2, "second")
    assert found == [[]] * 2 + [[second]] * 2 + [[first, second]] * 3 + [[second]] * 2


@pytest.mark.parametrize(("topic", "image"), [(IMAGE, raw_image), (COMPRESSED, jpeg)])
def test_a_selection_outside_its_frame_uses_up_no_id(topic, image, tmp_path):
    """As live; one for a frame that cannot be read may be good."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    messages = [(topic, stamp(t) + DELAY, image(pixels, stamp(t))) for t in range(4)]
    damaged = (type(messages[0][2]), b"\0\1\0\0\1\0\0\0\1\0\0\0")
    messages.append((topic, stamp(5) + DELAY, damaged))
    for t, x in enumerate((70, 10, 70, 10)):
        message = TargetSelection(header=header(stamp(t)), box=[float(x), 5.0, 20.0, 20.0])
        messages.append((SELECT, stamp(t) + DELAY + 1, message))
    bag = write_bag(tmp_path / "drive", messages)
    with bags.open_bag(bag) as reader:
        planned = replay.plan_selections(reader, topic, SELECT, print)
    assert [(p.frame, p.message.target_id) for p in planned] == [(0, 0), (1, 1), (2, 0), (3, 2)]


def test_what_the_bag_lacks_is_said(clip, tmp_path, capsys):
    output = ("--output", tmp_path / "out")
    image = raw_image(clip[0].image, START)
    assert "there is no bag" in refused(capsys, tmp_path / "missing", *output)
    (tmp_path / "folder").mkdir()
    assert "ros2 bag reindex" in refused(capsys, tmp_path / "folder", *output)
    (tmp_path / "text.mcap").write_text("not a bag at all")
    assert "cannot be read as a bag" in refused(capsys, tmp_path / "text.mcap", *output)

    for plugin in StoragePlugin:
        empty = write_bag(tmp_path / f"empty_{plugin}", [(IMAGE, 0, (Image, None))][:0], plugin)
        assert "no images; it has nothing" in refused(capsys, empty, *output)
    text = write_bag(tmp_path / "text", [("/notes", START, String(data="a"))])
    assert "no images; it has /notes" in refused(capsys, text, *output)

    two = write_bag(
        tmp_path / "two",
        [
            *((topic, START, image) for topic in ("/left", "/right", "/right")),
            ("/pick", START, selection(0, clip[0].masks[0])),
        ],
    )
    assert "with --image: /left (1), /right (2)" in refused(capsys, two, *output)
    said = refused(capsys, two, *output, "--image", "/middle")
    assert "no images on /middle; it has: /left (1), /right (2)" in said
    said = refused(capsys, two, *output, "--image", "/left")
    assert (
        "no selections (TargetSelection) on /select; name their topic with --select: /pick" in said
    )
    one = write_bag(tmp_path / "one", [(IMAGE, START, image)])
    assert "on /select; give --box or --point" in refused(capsys, one, *output)

    said = refused(capsys, one, *output, "--point", "900 9")
    assert "the point (900, 9) lies outside the image of 256x192" in said
    assert "no target could be selected" in said
    depth = write_bag(
        tmp_path / "depth",
        [(IMAGE, START, raw_image(np.ones((4, 4, 1), np.uint16), START, "16UC1"))],
    )
    said = refused(capsys, depth, *output, "--point", "1 1")
    assert "none of the 1 frames can be read: the image's encoding is '16UC1'" in said
    assert not (tmp_path / "out").exists()


def test_what_was_there_stays(raw_replay, tmp_path, capsys):
    before = read(raw_replay)
    for there in (raw_replay, tmp_path):
        said = refused(capsys, raw_replay, "--output", there)
        assert f"{there} exists: name another folder" in said
    assert read(raw_replay) == before
    arguments = (raw_replay, "--output", tmp_path / "again", "--image", IMAGE)
    assert "has a topic /mosam_tracker/targets already" in refused(capsys, *arguments)
    assert not (tmp_path / "again").exists()


def overwrite_middle(file: Path) -> None:
    data = bytearray(file.read_bytes())
    middle, length = len(data) // 2, len(data) // 10
    data[middle : middle + length] = bytes([255]) * length
    file.write_bytes(data)


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_a_bag_that_is_damaged_in_the_middle_leaves_nothing(
    plugin, raw_replay, clip, tmp_path, capsys
):
    bag = tmp_path / "drive"
    if plugin == StoragePlugin.MCAP:
        shutil.copytree(raw_replay, bag)  # compressed: damage does not pass for other pixels
    else:
        write_bag(bag, frames_of(clip), plugin)
    overwrite_middle(next(file for file in bag.iterdir() if file.suffix != ".yaml"))
    arguments = (bag, "--output", tmp_path / "out", "--image", IMAGE, "--name", "again")
    said = refused(capsys, *arguments, "--box", "10 10 90 90")
    assert re.search(r"drive is damaged after \d+ messages", said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("memory: {window: 7}", "no parameters under"),
        ("/**: {ros__parameters: {memory: {window: 0}}}", "memory.window: it is 0: give 1 to 1000"),
        ("mosam_tracker: {ros__parameters: {model: 3}}", "model: it is 3: give a str"),
        (
            "/mosam_tracker: {ros__parameters: {model: giant}}",
            "model: it is 'giant': use one of nano",
        ),
        ("/**: {ros__parameters: {device: toaster}}", "unknown device 'toaster'"),
        ("[", "the parameters cannot be read"),
    ],
)
def test_parameters_that_cannot_be_used_are_named(raw_bag, text, said, tmp_path, capsys):
    file = tmp_path / "tracker.yaml"
    file.write_text(text)
    arguments = (raw_bag, "--output", tmp_path / "out", "--params", file)
    assert said in refused(capsys, *arguments)


def test_the_nodes_parameter_file_is_read(tmp_path):
    warnings = []
    assert replay.read_parameters(ROOT / "config" / "tracker.yaml", warnings.append) == (
        replay.read_parameters(None, warnings.append)
    )
    file = tmp_path / "tracker.yaml"
    file.write_text(
        "/**: {ros__parameters: {use_sim_time: true, lost_after: 7, motion.flow_interval: 2}}\n"
        "mosam_tracker: {ros__parameters: {lost_after: 8, memroy: {window: 3}}}\n"
        "other: {ros__parameters: {lost_after: 9}}\n"
    )
    values = replay.read_parameters(file, warnings.append)
    assert warnings == [f"{file}: the tracker has no parameter memroy.window"]
    tracker, loaded = replay.make_tracker(values)
    assert loaded.name == "nano"
    assert tracker.config.lost_after == 8
    assert tracker.config.motion.flow_interval == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--box", "1 2 3"], "is not 'x y width height'"),
        (["--point", "1"], "is not 'x y'"),
        (["--point", "1 2", "--select", "/pick"], "not from both"),
        (["--name", "a b"], "--name is 'a b'"),
        (["--json", "/nowhere/at/all.json"], "no folder /nowhere/at for --json"),
    ],
)
def test_the_command_line_is_checked(arguments, said, capsys):
    with pytest.raises(SystemExit) as ended:
        replay.main(["bag", "--output", "out", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_serialized_messages_are_what_ros_reads():
    target = TrackedTarget(id=3, label="cüp", area=5)
    target.motion_prompt.key_points = [Point32(x=1.5, y=2.0)]
    for message in (
        TrackedTargetArray(header=header(stamp(1), "a"), targets=[target, target]),
        raw_image(np.arange(30, dtype=np.uint8).reshape(2, 5, 3), stamp(2)),
    ):
        assert deserialize_message(bytes(bags.serialize(message)), type(message)) == message


def test_definitions_have_the_hashes_of_ros():
    """Where this release of ROS wrote them beside the definitions."""
    files = sorted(bags.message_folder().glob("*.json"))
    if not files:
        pytest.skip("this ROS 2 knows no type hashes")
    for file in files:
        known = json.loads(file.read_text())["type_hashes"][0]
        assert bags.typestore().hash_rihs01(known["type_name"]) == known["hash_string"]


@pytest.mark.parametrize("plugin", list(StoragePlugin))
def test_a_bag_is_never_held_in_memory(plugin, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (512, 1024, 3), np.uint8)
    images = ((IMAGE, stamp(t), raw_image(pixels, stamp(t))) for t in range(30))
    bag = write_bag(tmp_path / "drive", images, plugin)
    tracemalloc.start()
    try:
        with bags.open_bag(bag) as reader, bags.copy_bag(reader, tmp_path / "out", print) as copy:
            for message in bags.read_messages(reader):
                copy.copy(*message)
            held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(read(tmp_path / "out")) == 30
    assert held < 10 * pixels.nbytes
