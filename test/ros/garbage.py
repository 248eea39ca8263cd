"""Hypothesis strategies for messages of all kinds that the tracker hears, most of them wrong.

Frames are those of `crossing`. None of the messages is about the target PROTECTED, unless that is
said: no CLEAR, and no click in the rows where it is seen.
"""

from __future__ import annotations

import random
import re
from array import array
from itertools import product

import crossing
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Point32, PointStamped
from hypothesis import strategies as st
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from mosam_ros.msg import TargetSelection
from mosam_ros.nodes.conversions import mask_to_image
from mosam_ros.nodes.image_input import ENCODINGS, ImageError, image_to_rgb

PROTECTED = 7
PROTECTED_ROWS = (70.0, 170.0)
"""The object that is PROTECTED is seen in rows 90 to 150 of every frame."""

LENS = "test_lens"
NAN, INF = float("nan"), float("inf")
ODD = (NAN, INF, -INF, 3.4e38, -3.4e38, 1e-40, -0.0, -1.0, -0.5)
ON_IMAGE = (0.0, 5.5, 40.0, 100.0, 160.0, 239.0, 239.5, 240.0, 319.0, 319.5, 320.0)
OTHER_IDS = st.sampled_from((0, 0, 0, 1, 2, 3, 8, 65535)) | st.integers(8, 65535)
UNKNOWN_ACTIONS = st.integers(TargetSelection.CLEAR + 1, 255)

numbers = st.sampled_from(ON_IMAGE) | st.sampled_from(ODD + ON_IMAGE) | st.floats(width=32)
WORDS = ("", LENS, LENS, "cup", "\N{SNOWMAN}", "x" * 300, "a\nb", "%s {0}")
labels = st.sampled_from(WORDS) | st.text(max_size=8)


def one_of_each(*choices) -> st.SearchStrategy[tuple]:
    """A tuple by a single draw, as Hypothesis takes its time for each."""
    tuples = list(product(*choices))
    return st.sampled_from(range(len(tuples))).map(tuples.__getitem__)


def headers(newest: float) -> st.SearchStrategy[Header]:
    """A stamp of nothing, the past, the frames kept or the future; `newest` frame in seconds."""
    past = (newest, newest - 0.5, newest - 1.0, newest - 30.0, 1.0, -1.0, -(2.0**31))
    stamps = [
        Time(sec=int(seconds // 1), nanosec=int(seconds % 1 * 1e9))
        for seconds in (0.0, 0.0, *past, newest + 1e4, 2.0**31 - 1)
    ]
    stamps.append(Time(sec=2**31 - 1, nanosec=2**32 - 1))
    return one_of_each(stamps, WORDS).map(lambda drawn: Header(stamp=drawn[0], frame_id=drawn[1]))


def _bytes(count: int, seed: int) -> array:
    return array("B", random.Random(seed).randbytes(count))


SIDES = (0, 1, 2, 3, 10, 240, 320, 2**31, 2**32 - 1)
sizes = one_of_each(SIDES, SIDES)
formats = one_of_each((*ENCODINGS, "", "nv12", "RGB8", "\N{SNOWMAN}"), (0, 1, 255))
contents = one_of_each((0, 1, 9, 300, 2000), range(50))


@st.composite
def images(draw, newest: float) -> Image:
    """An image that hardly ever fits together."""
    height, width = draw(sizes)
    encoding, is_bigendian = draw(formats)
    return Image(
        header=draw(headers(newest)),
        encoding=encoding,
        height=height,
        width=width,
        step=draw(st.sampled_from((0, 1, width, 3 * width, 2**32 - 1))) % 2**32,
        is_bigendian=is_bigendian,
        data=_bytes(*draw(contents)),
    )


def is_since_1970(header: Header) -> bool:
    return header.stamp.sec >= 0


def is_usable(message: Image) -> bool:
    try:
        image_to_rgb(message)
    except ImageError:
        return False
    return is_since_1970(message.header)


def unusable_images(newest: float) -> st.SearchStrategy[Image]:
    """What is no frame at all."""
    return images(newest).filter(lambda message: not is_usable(message))


@st.composite
def usable_images(draw, newest: float, soon: Time) -> Image:
    """Noise of any size and encoding, which is a frame; stamped `soon` or any time since 1970."""
    encoding = draw(st.sampled_from([name for name, known in ENCODINGS.items() if known.codes]))
    sides = (1, 2, 3, 10, 33, 64)
    height, width = draw(one_of_each(sides, sides) | st.just((crossing.HEIGHT, crossing.WIDTH)))
    width += width % 2 if ENCODINGS[encoding].channels == 2 else 0
    step = width * ENCODINGS[encoding].pixel_bytes + draw(st.integers(0, 5))
    return Image(
        header=draw(st.just(Header(stamp=soon)) | headers(newest).filter(is_since_1970)),
        encoding=encoding,
        height=height,
        width=width,
        step=step,
        is_bigendian=draw(st.integers(0, 1)),
        data=_bytes(height * step, draw(st.integers(0, 255))),
    )


@st.composite
def masks(draw, newest: float) -> Image:
    """A mask of the frames' size, a rectangle anywhere or nothing."""
    mask = np.zeros((crossing.HEIGHT, crossing.WIDTH), bool)
    row, column = draw(st.integers(0, 239)), draw(st.integers(0, 319))
    mask[row : row + draw(st.integers(0, 240)), column : column + draw(st.integers(0, 320))] = True
    return mask_to_image(mask, draw(headers(newest)))


@st.composite
def _boxes(draw) -> list[float]:
    """Four numbers or not, a box in the image or not."""
    if draw(st.booleans()):
        return draw(st.lists(numbers, max_size=6))
    return [float(draw(st.integers(0, high))) for high in (319, 239, 200, 200)]


@st.composite
def _points(draw) -> list[Point32]:
    return [Point32(x=x, y=y) for x, y in draw(st.lists(st.tuples(numbers, numbers), max_size=4))]


@st.composite
def _prompts(draw, newest: float) -> dict:
    """Fields of a TargetSelection that say where the target is; seldom of use."""
    kinds = ("points", "points", "box", "mask", "labels", "points labels", "box mask", "")
    parts = draw(st.sampled_from(kinds)).split()
    fields: dict = {}
    if "points" in parts:
        fields["points"] = draw(_points())
    if "labels" in parts:
        fields["point_labels"] = draw(st.lists(st.sampled_from((0, 1, 1, 2, 255)), max_size=4))
    if "box" in parts:
        fields["box"] = draw(_boxes())
    if "mask" in parts:
        fields["mask"] = draw(masks(newest) | images(newest))
    return fields


@st.composite
def _selections(draw, newest: float, action: int, ids: st.SearchStrategy) -> TargetSelection:
    return TargetSelection(
        header=draw(headers(newest)),
        action=action,
        target_id=draw(ids),
        label=draw(labels),
        **draw(_prompts(newest)),
    )


USELESS = (
    {},
    {"points": [Point32(x=NAN, y=120.0)]},
    {"points": [Point32(x=-INF, y=INF)]},
    {"points": [Point32(x=50.0, y=120.0)], "point_labels": [2]},
    {"points": [Point32(x=50.0, y=120.0)], "point_labels": [1, 1]},
    {"points": [Point32(x=320.6, y=120.0)]},
    {"box": [10.0, 90.0, 60.0]},
    {"box": [10.0, 90.0, 0.0, 60.0]},
    {"box": [10.0, 90.0, INF, 60.0]},
    {"box": [400.0, 90.0, 10.0, 60.0]},
    {"mask": Image(height=5, width=5, step=5, encoding="mono8", data=[255] * 25)},
    {"mask": Image(height=2**32 - 1, width=1, step=1, encoding="mono8")},
)
"""Prompts that fit no frame of `crossing` and no noise."""


def useless_refinements(newest: float) -> st.SearchStrategy[TargetSelection]:
    """About the target PROTECTED, but they say nothing that could be done."""
    return st.builds(
        lambda header, fields: TargetSelection(
            header=header, action=TargetSelection.REFINE, target_id=PROTECTED, **fields
        ),
        headers(newest),
        st.sampled_from(USELESS),
    )


def selections(newest: float) -> st.SearchStrategy[TargetSelection]:
    """Anything but what would be about the target PROTECTED.

    An id in use is no new target's, so selecting it again asks for nothing.
    """
    any_id = OTHER_IDS | st.just(PROTECTED)
    select = _selections(newest, TargetSelection.SELECT, any_id)
    others = [
        _selections(newest, action, OTHER_IDS)
        for action in (TargetSelection.REFINE, TargetSelection.REMOVE)
    ]
    unknown = UNKNOWN_ACTIONS.flatmap(lambda action: _selections(newest, action, any_id))
    return st.one_of(select, select, *others, unknown, useless_refinements(newest))


def wild_selections(newest: float) -> st.SearchStrategy[TargetSelection]:
    """About every target, CLEAR too."""
    any_id = OTHER_IDS | st.just(PROTECTED)
    return st.integers(0, TargetSelection.CLEAR).flatmap(
        lambda action: _selections(newest, action, any_id)
    )


rows = numbers.filter(lambda y: not PROTECTED_ROWS[0] < y < PROTECTED_ROWS[1])
clicks = st.builds(Point, x=numbers, y=rows, z=numbers)


places = one_of_each(
    (NAN, INF, -INF, 1e30, -1.0, 0.0, 1.0),
    (NAN, -INF, -1e30, -1.0, 0.0, 0.0),
    (NAN, INF, 1e30, 1e-30, 1.0, 1.0, 0.0, -1.0),
)


@st.composite
def clicked_points(draw, newest: float) -> PointStamped:
    """Points in space, none of them lower than the camera."""
    x, y, z = draw(places)
    return PointStamped(header=draw(headers(newest)), point=Point(x=x, y=y, z=z))


FOCAL_LENGTHS = (100.0, 100.0, 1.0, 0.0, -1.0, NAN, INF, 1e30)
matrices = one_of_each(
    FOCAL_LENGTHS,
    FOCAL_LENGTHS,
    (160.0, 160.0, 0.0, NAN, INF, 1e30),
    (10.0, 10.0, 0.0, NAN, INF, 1e30),
)
lenses = one_of_each(
    (crossing.HEIGHT, crossing.HEIGHT, 0, 2**32 - 1),
    (crossing.WIDTH, crossing.WIDTH, 0, 2**32 - 1),
    ("", "plumb_bob", "rational_polynomial", "equidistant", "\N{SNOWMAN}"),
)
coefficients = st.lists(st.sampled_from((0.0, 0.0, NAN, INF, 1e30)), max_size=14)


@st.composite
def camera_infos(draw, newest: float) -> CameraInfo:
    """Lenses that are right or broken; what is level with the camera is never in PROTECTED_ROWS."""
    fx, fy, cx, cy = draw(matrices)
    height, width, model = draw(lenses)
    return CameraInfo(
        header=draw(headers(newest)),
        height=height,
        width=width,
        distortion_model=model,
        d=draw(st.just([]) | coefficients),
        k=[fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0],
        p=[fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


class Batch(list):
    """Messages; pixels are left out where they are shown."""

    def __repr__(self) -> str:
        return re.sub(r"(\d+, ){20,}", "…, ", super().__repr__())


@st.composite
def batches(draw, newest: float, size: int, *more: st.SearchStrategy) -> Batch:
    """Messages of all topics that change nothing of the target PROTECTED, and of `more` kinds."""
    kinds = (
        *(selections(newest),) * 4,
        *(unusable_images(newest),) * 2,
        clicks,
        clicked_points(newest),
        camera_infos(newest),
    )
    return Batch(draw(st.lists(st.one_of(*kinds, *more), min_size=size, max_size=size)))
