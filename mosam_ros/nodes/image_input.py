"""A camera's images, raw or compressed, as arrays: by cv_bridge where it works, or else without."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image


class ImageError(ValueError):
    """An image message that cannot be used; the message says why and what to do."""


def _codes(source: str, variant: str = "") -> dict[str, int | None]:
    """OpenCV's conversions from one of its color spaces by wanted encoding; None: already there."""
    targets = {"rgb8": "RGB", "bgr8": "BGR", "mono8": "GRAY"}
    return {
        wanted: None if target == source else getattr(cv2, f"COLOR_{source}2{target}{variant}")
        for wanted, target in targets.items()
    }


@dataclass(frozen=True)
class Encoding:
    """How the pixels of an encoding are stored, and how they become colors.

    Attributes:
        channels: values per pixel.
        value: NumPy's type of a value, without the byte order.
        codes: by wanted encoding, the code for OpenCV; None where the channels are right already.
            Empty for what is not a picture, such as depth.
        alias: the encoding to take it for; empty: itself.
    """

    channels: int
    codes: Mapping[str, int | None] = field(default_factory=dict)
    value: str = "u1"
    alias: str = ""

    @property
    def pixel_bytes(self) -> int:
        """Bytes from one pixel to the next."""
        return self.channels * np.dtype(self.value).itemsize


ENCODINGS: Mapping[str, Encoding] = {
    "rgb8": Encoding(3, _codes("RGB")),
    "bgr8": Encoding(3, _codes("BGR")),
    "rgba8": Encoding(4, _codes("RGBA")),
    "bgra8": Encoding(4, _codes("BGRA")),
    "mono8": Encoding(1, _codes("GRAY")),
    "mono16": Encoding(1, _codes("GRAY"), "u2"),
    "rgb16": Encoding(3, _codes("RGB"), "u2"),
    "bgr16": Encoding(3, _codes("BGR"), "u2"),
    # OpenCV names a Bayer pattern by the second and third pixel of its second row.
    "bayer_rggb8": Encoding(1, _codes("BayerBG")),
    "bayer_bggr8": Encoding(1, _codes("BayerRG")),
    "bayer_gbrg8": Encoding(1, _codes("BayerGR")),
    "bayer_grbg8": Encoding(1, _codes("BayerGB")),
    "yuv422": Encoding(2, _codes("YUV", "_UYVY")),
    "yuv422_yuy2": Encoding(2, _codes("YUV", "_YUY2")),
    "uyvy": Encoding(2, _codes("YUV", "_UYVY"), alias="yuv422"),
    "yuyv": Encoding(2, _codes("YUV", "_YUY2"), alias="yuv422_yuy2"),
    "8UC3": Encoding(3, _codes("BGR"), alias="bgr8"),
    "8UC1": Encoding(1, _codes("GRAY"), alias="mono8"),
    "16UC1": Encoding(1, value="u2"),
    "32FC1": Encoding(1, value="f4"),
}

TRANSPORTS: Mapping[str, tuple[type, str]] = {
    "raw": (Image, ""),
    "compressed": (CompressedImage, "/compressed"),
}
"""By the value of `image_transport`: the message's type and what its topic's name ends with."""


def image_pixels(message: Image) -> NDArray[Any]:
    """The values as they were sent, in this machine's byte order: a view where it can be.

    Returns:
        (height, width), or (height, width, channels) where there are several.

    Raises:
        ImageError: unknown encoding, no pixels, or less data than the size asks for.
    """
    encoding = _encoding(message)
    rows = _rows(message, encoding)
    value = np.dtype(encoding.value)
    if value.itemsize > 1:
        sent = value.newbyteorder(">" if message.is_bigendian else "<")
        rows = np.ascontiguousarray(rows).view(sent).astype(value, copy=False)
    shape = (message.height, message.width, encoding.channels)
    return rows.reshape(shape if encoding.channels > 1 else shape[:2])


def image_to_color(message: Image, wanted: str = "rgb8") -> NDArray[np.uint8]:
    """The picture in another encoding, by the same rules as cv_bridge.

    Args:
        message: 16 bits are scaled to 8; big endian values and padded rows are understood.
        wanted: rgb8, bgr8 or mono8.

    Returns:
        (height, width, 3) uint8, or (height, width) for mono8; a view of the message's data where
        it can be.

    Raises:
        ImageError: an encoding without colors, no pixels, or less data than the size asks for.
    """
    code = _picture_encoding(message).codes[wanted]
    pixels = image_pixels(message)
    if code is not None:
        pixels = cv2.cvtColor(pixels, code)
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=255 / 65535)
    return np.ascontiguousarray(pixels)


def image_to_rgb(message: Image) -> NDArray[np.uint8]:
    """The picture as (height, width, 3) uint8 RGB; see `image_to_color`."""
    return image_to_color(message, "rgb8")


def compressed_to_rgb(message: CompressedImage) -> NDArray[np.uint8]:
    """A JPEG or PNG as (height, width, 3) uint8 RGB, not turned by what its EXIF data says.

    Raises:
        ImageError: something else, cut off or damaged.
    """
    data = np.frombuffer(message.data, np.uint8)
    what = f"the compressed image ({message.format!r}, {data.size} bytes)"
    if problem := _problem_of_file(data.tobytes()):
        raise ImageError(f"{what} {problem}")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        bgr = cv2.imdecode(data, flags)
    except cv2.error:  # for example a size that no memory holds
        bgr = None
    if bgr is None:
        raise ImageError(f"{what} is damaged: it cannot be decoded")
    if bgr.dtype == np.uint16:
        bgr = cv2.convertScaleAbs(bgr, alpha=255 / 65535)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def _problem_of_file(data: bytes) -> str:
    """What is wrong with a file at first sight, or nothing.

    OpenCV gives a picture for some files that are cut off: the rest of it is gray.
    """
    if data.startswith(b"\xff\xd8"):
        # Inside of the compressed data no FF is followed by D9.
        whole = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    elif data.startswith(b"\x89PNG"):
        whole = b"IEND" in data
    else:
        return "is neither a JPEG nor a PNG"
    return "" if whole else "is damaged: its end is missing"


def _encoding(message: Image) -> Encoding:
    if message.encoding not in ENCODINGS:
        raise ImageError(_unknown(message))
    return ENCODINGS[message.encoding]


def _picture_encoding(message: Image) -> Encoding:
    encoding = _encoding(message)
    if not encoding.codes:
        raise ImageError(_unknown(message))
    if encoding.channels == 2 and message.width % 2:
        raise ImageError(f"a {message.encoding} image has an even width, not {message.width}")
    return encoding


def _unknown(message: Image) -> str:
    known = ", ".join(name for name, encoding in ENCODINGS.items() if encoding.codes)
    return f"the image's encoding is {message.encoding!r}; send one of these instead: {known}"


def _rows(message: Image, encoding: Encoding) -> NDArray[np.uint8]:
    """The bytes (height, width * pixel_bytes) without the padding at the rows' ends, a view."""
    height, width, step = message.height, message.width, message.step
    row_bytes = width * encoding.pixel_bytes
    if height == 0 or width == 0:
        raise ImageError(f"the image has no pixels: its size is {width}x{height}")
    if step < row_bytes:
        raise ImageError(
            f"the image's step is {step} bytes, but {width} pixels of {message.encoding} "
            f"take {row_bytes}"
        )
    data = np.frombuffer(message.data, np.uint8)
    if data.size < height * step:
        raise ImageError(
            f"the image's data is too short: {data.size} bytes instead of {height * step} for "
            f"{height} rows of {step}"
        )
    return data[: height * step].reshape(height, step)[:, :row_bytes]


class ImageConverter:
    """Messages of a camera to RGB, raw ones by cv_bridge until it fails.

    Args:
        log: is told, once, that cv_bridge is not used and why.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._bridge: Any = None
        if problem := cv_bridge_problem():
            self._give_up(problem)
        else:
            self._bridge = _new_bridge()

    def to_rgb(self, message: Image | CompressedImage) -> NDArray[np.uint8]:
        """The picture as (height, width, 3) uint8.

        Raises:
            ImageError: it cannot be used.
        """
        if isinstance(message, CompressedImage):
            return compressed_to_rgb(message)
        if self._bridge is not None and _bridge_can_read(message):
            try:
                return bridge_to_rgb(self._bridge, message)
            except Exception as error:  # the message is in order, so it is cv_bridge that is not
                self._bridge = None
                self._give_up(f"{type(error).__name__}: {error}")
        return image_to_rgb(message)

    def _give_up(self, problem: str) -> None:
        self._log(
            f"images are converted without cv_bridge ({problem}); the built-in converter gives "
            "the same results"
        )


def _bridge_can_read(message: Image) -> bool:
    """Whether cv_bridge gives the right picture: where the padding is no multiple of a pixel's
    size it silently gives a wrong one.

    Raises:
        ImageError: nobody could read the message.
    """
    encoding = _picture_encoding(message)
    _rows(message, encoding)
    return message.step % encoding.pixel_bytes == 0


def bridge_to_rgb(bridge: Any, message: Image) -> NDArray[np.uint8]:
    """The picture as (height, width, 3) uint8 by a `cv_bridge.CvBridge`.

    Raises:
        Exception: whatever cv_bridge raises, or a result of another shape or type.
    """
    if alias := ENCODINGS[message.encoding].alias:
        message = Image(
            height=message.height,
            width=message.width,
            encoding=alias,
            step=message.step,
            data=message.data,
        )
    pixels = bridge.imgmsg_to_cv2(message, "rgb8")
    if pixels.shape != (message.height, message.width, 3) or pixels.dtype != np.uint8:
        raise RuntimeError(f"it gave {pixels.dtype} of shape {pixels.shape}")
    return np.ascontiguousarray(pixels)


def _new_bridge() -> Any:
    from cv_bridge import CvBridge

    return CvBridge()


PROBE_SECONDS = 60.0
PROBE_TOLERANCE = 2
"""Difference of colors, of 255, that another version of OpenCV may make."""


def cv_bridge_problem() -> str:
    """Why cv_bridge cannot be used here; empty where it works.

    It is tried in a process of its own, for a build for another NumPy may crash its process.
    """
    if importlib.util.find_spec("cv_bridge") is None:
        return "it is not installed"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        probe = subprocess.run(
            [sys.executable, "-m", "mosam_ros.nodes.image_input"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"it did not answer within {PROBE_SECONDS:g} s"
    if probe.returncode < 0:
        return f"it crashes with signal {-probe.returncode}"
    return "" if probe.returncode == 0 else probe.stdout.strip() or "it does not work"


def _probe() -> str:
    """What is wrong with the cv_bridge of this process, or nothing."""
    try:
        bridge = _new_bridge()
        for message in _probe_messages():
            by_bridge, built_in = bridge_to_rgb(bridge, message), image_to_rgb(message)
            if np.abs(by_bridge.astype(int) - built_in).max() > PROBE_TOLERANCE:
                return f"it converts {message.encoding} wrongly"
    except Exception as error:  # anything means that it cannot be relied on
        return f"{type(error).__name__}: {error}"
    return ""


def _probe_messages() -> list[Image]:
    """A small image for each of the ways in which cv_bridge converts."""
    width, height = 6, 4
    messages = []
    for encoding in ("bgr8", "mono16", "bayer_rggb8", "yuv422"):
        step = width * ENCODINGS[encoding].pixel_bytes
        message = Image(height=height, width=width, encoding=encoding, step=step, is_bigendian=1)
        message.data = array("B", (37 * index % 256 for index in range(height * step)))
        messages.append(message)
    return messages


if __name__ == "__main__":
    said = _probe()
    print(said)
    raise SystemExit(bool(said))
