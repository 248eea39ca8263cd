"""Recorded bags (rosbag2; mcap or sqlite3): read, and copied with more topics, without a ROS graph.

Messages pass as CDR bytes, one at a time: a bag of any length takes the same memory.
"""

from __future__ import annotations

import shutil
import sqlite3
import struct
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from rclpy.serialization import serialize_message
from rosbags.interfaces import Connection, MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.rosbag2.errors import WriterError
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

import mosam_ros.msg

FORMAT_VERSION = 8
"""Of the written bags: the newest one that both Humble and Jazzy open."""

UNKNOWN_HASH = "RIHS01_" + 64 * "0"
"""For a message type whose definition cannot be read."""

IDL_SEPARATOR = 80 * "=" + "\n"


class BagError(ValueError):
    """A bag that cannot be read or written; the message says why and what to do."""


@contextmanager
def open_bag(path: Path) -> Iterator[Reader]:
    """Open a bag: its folder, or a single .mcap or .db3 file.

    Raises:
        BagError: missing, damaged, or no bag.
    """
    if not path.exists():
        raise BagError(f"there is no bag {path}")
    try:
        reader = Reader(path)
        reader.open()
    except Exception as error:  # rosbags raises many unrelated classes on damaged files
        raise BagError(
            f"{path} cannot be read as a bag ({error}); if its recording was cut off, try "
            f"`ros2 bag reindex {path}`"
        ) from error
    try:
        yield reader
    finally:
        reader.close()


def read_messages(
    reader: Reader, topics: Collection[str] = ()
) -> Iterator[tuple[Connection, int, bytes]]:
    """Every message in the order of its time: its connection, time in nanoseconds, and CDR.

    Args:
        reader: an open bag.
        topics: only these; empty: all.

    Raises:
        BagError: the bag is damaged.
    """
    connections = [entry for entry in reader.connections if not topics or entry.topic in topics]
    if not connections:
        return
    messages = reader.messages(connections)
    count = 0
    while True:
        try:
            message = next(messages, None)
        except Exception as error:  # as above
            raise BagError(f"{reader.path} is damaged after {count} messages ({error})") from error
        if message is None:
            return
        count += 1
        yield message


def topics_of_types(reader: Reader, types: Collection[str]) -> dict[str, int]:
    """The topics with messages of one of these types, and how many they have."""
    counts: dict[str, int] = {}
    for connection in reader.connections:
        if connection.msgtype in types and connection.msgcount:
            counts[connection.topic] = counts.get(connection.topic, 0) + connection.msgcount
    return counts


def header_stamp(data: bytes) -> int:
    """The stamp, in nanoseconds, of a serialized message that starts with a header; 0 where it is
    cut off.
    """
    if len(data) < 12:
        return 0
    seconds, nanoseconds = struct.unpack_from("<iI" if data[1] & 1 else ">iI", data, 4)
    return seconds * 10**9 + nanoseconds


class BagCopy:
    """A new bag that takes every message of another one, and those of further topics.

    Args:
        reader: the open bag to copy.
        writer: the open new bag.
        warn: is told what the copy cannot carry over.
    """

    def __init__(self, reader: Reader, writer: Writer, warn: Callable[[str], None]) -> None:
        self._writer = writer
        self._warn = warn
        self._copied: dict[int, Connection] = {}
        self._added: dict[str, Connection] = {}
        self._topics = {connection.topic for connection in reader.connections}
        for connection in reader.connections:
            self._copied[connection.id] = self._copy_connection(connection)

    def _copy_connection(self, connection: Connection) -> Connection:
        for twin in self._copied.values():  # several publishers of one topic
            same_topic = (twin.topic, twin.msgtype) == (connection.topic, connection.msgtype)
            if same_topic and twin.ext == connection.ext:
                return twin
        text, type_hash = _definition(connection)
        if not _is_defined(connection):
            self._warn(
                f"the bag does not define {connection.msgtype}: the messages on "
                f"{connection.topic} are copied, but need that package to be read"
            )
        return self._writer.add_connection(
            connection.topic,
            connection.msgtype,
            msgdef=text,
            rihs01=type_hash,
            serialization_format=connection.ext.serialization_format,
            offered_qos_profiles=connection.ext.offered_qos_profiles,
        )

    def copy(self, connection: Connection, time: int, data: bytes) -> None:
        """Write a message of the other bag as it is."""
        self._write(self._copied[connection.id], time, data)

    def add_topic(self, topic: str, message_type: type) -> None:
        """Add a topic for messages of a ROS message class.

        Raises:
            BagError: the copied bag has that topic.
        """
        if topic in self._topics:
            raise BagError(f"the bag has a topic {topic} already")
        self._added[topic] = self._writer.add_connection(
            topic, type_name(message_type), typestore=typestore()
        )

    def add(self, topic: str, time: int, message: Any) -> None:
        """Write a ROS message to a topic that was added, at a time in nanoseconds."""
        self._write(self._added[topic], time, serialize(message))

    def _write(self, connection: Connection, time: int, data: bytes | memoryview) -> None:
        with _write_errors(self._writer):
            self._writer.write(connection, time, data)


@contextmanager
def copy_bag(reader: Reader, path: Path, warn: Callable[[str], None]) -> Iterator[BagCopy]:
    """A new bag of the same storage as the one that is read; removed if anything is raised.

    Raises:
        BagError: the path exists, or cannot be written.
    """
    if path.exists():
        raise BagError(f"{path} exists: name another folder, or remove it first")
    mcap = _is_mcap(reader.path)
    plugin = StoragePlugin.MCAP if mcap else StoragePlugin.SQLITE3
    writer = Writer(path, version=FORMAT_VERSION, storage_plugin=plugin)
    if mcap:  # label images shrink to nearly nothing
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with _write_errors(writer):
        writer.open()
    try:
        yield BagCopy(reader, writer, warn)
        with _write_errors(writer):
            writer.close()
    except BaseException:
        with suppress(Exception):
            writer.abort()
        shutil.rmtree(path, ignore_errors=True)
        raise


@contextmanager
def _write_errors(writer: Writer) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error, WriterError) as error:
        raise BagError(f"{writer.path} cannot be written: {error}") from error


def _is_mcap(path: Path) -> bool:
    files = path.iterdir() if path.is_dir() else [path]
    return any(".mcap" in file.suffixes for file in files)


def type_name(message_type: type) -> str:
    """`mosam_ros/msg/TrackedTarget` for that class."""
    return f"{message_type.__module__.split('.')[0]}/msg/{message_type.__name__}"


def serialize(message: Any) -> memoryview:
    """A ROS message as CDR, the same bytes for the same message.

    ROS leaves in the gaps before aligned values what was in the memory; here they are 0.
    """
    name, store = type_name(type(message)), typestore()
    return store.serialize_cdr(store.deserialize_cdr(serialize_message(message), name), name)


@lru_cache(maxsize=1)
def typestore() -> Typestore:
    """The definitions of Humble's messages and of this package's.

    Bags of later releases bring the definitions of their messages.
    """
    store = get_typestore(Stores.ROS2_HUMBLE)
    own: dict = {}
    for path in sorted(message_folder().glob("*.msg")):
        own.update(get_types_from_msg(path.read_text(), f"mosam_ros/msg/{path.stem}"))
    store.register(own)
    return store


def message_folder() -> Path:
    """Where the definitions lie that the imported messages were generated from."""
    for prefix in Path(mosam_ros.msg.__file__).parents:
        folder = prefix / "share" / "mosam_ros" / "msg"
        if folder.is_dir():
            return folder
    raise FileNotFoundError("mosam_ros's msg/ files are not installed: run `make build`")


def _is_defined(connection: Connection) -> bool:
    """Whether a message's definition is known, by the bag or else by `typestore`."""
    in_bag = connection.msgdef.format != MessageDefinitionFormat.NONE
    return in_bag or connection.msgtype in typestore().fielddefs


def _definition(connection: Connection) -> tuple[str, str]:
    """The text of a message's definition, empty where nobody knows it, and its hash."""
    definition, name = connection.msgdef, connection.msgtype
    if definition.format == MessageDefinitionFormat.NONE:
        text = typestore().generate_msgdef(name, 2)[0] if _is_defined(connection) else ""
        definition = MessageDefinition(MessageDefinitionFormat.MSG, text)
    return definition.data, connection.digest or _type_hash(definition, name)


def _type_hash(definition: MessageDefinition, name: str) -> str:
    store = Typestore()
    try:
        store.register(_parsed(definition, name))
        return store.hash_rihs01(name)
    except Exception:  # what rosbags cannot parse is for others to read
        return UNKNOWN_HASH


def _parsed(definition: MessageDefinition, name: str) -> dict:
    text = definition.data
    if definition.format == MessageDefinitionFormat.MSG:
        return get_types_from_msg(text, name)
    parts = [text]
    if text.startswith(IDL_SEPARATOR):  # each part has a line with its name before it
        parts = [part.split("\n", 1)[1] for part in text.split(IDL_SEPARATOR)[1:]]
    types: dict = {}
    for part in parts:
        types.update(get_types_from_idl(part))
    return types
