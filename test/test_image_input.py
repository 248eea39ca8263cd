"""Images of every encoding, raw and compressed, by the built-in converter and by cv_bridge."""

import json
import os
import subprocess
import sys
from array import array
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg", reason="no ROS 2 here: run `make build`")

from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from mosam_ros.nodes import image_input  # noqa: E402
from mosam_ros.nodes.image_input import (  # noqa: E402
    ENCODINGS,
    ImageConverter,
    ImageError,
    bridge_to_rgb,
    compressed_to_rgb,
    image_pixels,
    image_to_color,
    image_to_rgb,
)

GOLDEN = Path(
    os.environ.get("MOSAM_CV_BRIDGE_GOLDEN")
    or Path(__file__).parents[2] / "shared" / "data" / "cv_bridge_golden.npz"
)
"""An .npz of in_KEY and out_KEY, with a .json beside it that says what each conversion was."""

PICTURES = [name for name, encoding in ENCODINGS.items() if encoding.codes]

RGB = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3) * 10
GRAY = np.array([[0, 100, 255, 3], [7, 8, 9, 90]], np.uint8)
WIDE_GRAY = np.array([[0, 100 * 257, 65535, 3 * 257 + 128], [7, 8, 128, 129]], np.uint16)
NARROWED = np.array([[0, 100, 255, 3], [0, 0, 0, 1]], np.uint8)
"""`WIDE_GRAY` over 257, rounded."""

BAYER = {"rggb": ("RG", "GB"), "bggr": ("BG", "GR"), "gbrg": ("GB", "RG"), "grbg": ("GR", "BG")}
COLOR = {"R": 200, "G": 120, "B": 30}


def message(pixels: np.ndarray, encoding: str, padding: int = 0, big_endian: bool = False) -> Image:
    """The values (height, width, ...) of type uint8 or uint16 as an image with padded rows."""
    values = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    rows = np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    height, width = pixels.shape[:2]
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        step=rows.shape[1],
        is_bigendian=int(big_endian),
        data=array("B", rows.tobytes()),
    )


def with_alpha(pixels: np.ndarray) -> np.ndarray:
    return np.dstack([pixels, np.full(pixels.shape[:2], 200, np.uint8)])


def repeated(gray: np.ndarray) -> np.ndarray:
    return np.dstack([gray] * 3)


def one_color(encoding: str) -> np.ndarray:
    """A Bayer image, 8x10, of a surface of the one color."""
    tile = np.array([[COLOR[name] for name in row] for row in BAYER[encoding]], np.uint8)
    return np.tile(tile, (4, 5))


# Known answers


@pytest.mark.parametrize("padding", [0, 1, 6], ids=["tight", "padded", "padded by pixels"])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", RGB, RGB),
        ("bgr8", RGB[..., ::-1], RGB),
        ("8UC3", RGB[..., ::-1], RGB),
        ("rgba8", with_alpha(RGB), RGB),
        ("bgra8", with_alpha(RGB[..., ::-1]), RGB),
        ("mono8", GRAY, repeated(GRAY)),
        ("8UC1", GRAY, repeated(GRAY)),
        ("mono16", WIDE_GRAY, repeated(NARROWED)),
        ("rgb16", RGB.astype(np.uint16) * 257, RGB),
        ("bgr16", RGB[..., ::-1].astype(np.uint16) * 257, RGB),
    ],
)
@pytest.mark.parametrize("big_endian", [False, True], ids=["little", "big"])
def test_colors_and_grays(encoding, pixels, expected, padding, big_endian):
    rgb = image_to_rgb(message(pixels, encoding, padding, big_endian))
    assert rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    assert np.array_equal(rgb, expected)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("pattern", BAYER)
def test_every_bayer_pattern_has_its_colors_in_place(pattern, padding):
    rgb = image_to_rgb(message(one_color(pattern), f"bayer_{pattern}8", padding))
    assert np.unique(rgb.reshape(-1, 3), axis=0).tolist() == [list(COLOR.values())]


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    ("encoding", "pair"),
    [
        ("yuv422", lambda u, y1, v, y2: [[u, y1], [v, y2]]),
        ("yuv422_yuy2", lambda u, y1, v, y2: [[y1, u], [y2, v]]),
    ],
)
def test_yuv_of_two_pixels_that_share_their_color(encoding, pair, padding):
    # ITU-R BT.601: pure red, blue, a dark and a light gray.
    row = [*pair(90, 81, 240, 81), *pair(240, 41, 110, 41), *pair(128, 16, 128, 235)]
    sent = message(np.array([row, row], np.uint8), encoding, padding)
    expected = [(255, 0, 0), (255, 0, 0), (0, 0, 255), (0, 0, 255), (0, 0, 0), (255, 255, 255)]
    assert np.abs(image_to_rgb(sent).astype(int) - [expected, expected]).max() <= 2


def test_all_values_of_16_bits_are_rounded_to_the_nearest_of_8():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    narrowed = image_to_color(message(values, "mono16"), "mono8")
    assert np.array_equal(narrowed, np.rint(values / 257).astype(np.uint8))


@pytest.mark.parametrize("big_endian", [False, True])
def test_depth_comes_as_it_is(big_endian):
    sent = message(WIDE_GRAY, "16UC1", padding=3, big_endian=big_endian)
    pixels = image_pixels(sent)
    assert pixels.dtype == np.uint16 and np.array_equal(pixels, WIDE_GRAY)
    meters = np.array([[0.5, np.nan], [1e-3, 40.0]], np.float32)
    sent = message(meters.view(np.uint32), "32FC1", big_endian=big_endian)
    assert np.array_equal(image_pixels(sent), meters, equal_nan=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoding": "nv12"}, "'nv12'.*rgb8, bgr8"),
        ({"encoding": ""}, "encoding is ''"),
        ({"encoding": "RGB8"}, "encoding is 'RGB8'"),
        ({"encoding": "32FC1"}, "encoding is '32FC1'"),
        ({"width": 0}, "no pixels.*0x2"),
        ({"height": 0}, "no pixels.*4x0"),
        ({"step": 0}, "step is 0 bytes.*take 12"),
        ({"step": 11}, "step is 11 bytes.*take 12"),
        ({"data": array("B", bytes(23))}, "too short: 23 bytes instead of 24"),
        ({"data": array("B")}, "too short: 0 bytes"),
        ({"height": 2**32 - 1, "step": 2**32 - 1}, "too short: 24 bytes"),
        ({"encoding": "yuv422", "width": 3}, "even width, not 3"),
    ],
)
def test_unusable_images_are_named(changes, said):
    broken = message(RGB, "rgb8")
    for name, value in changes.items():
        setattr(broken, name, value)
    with pytest.raises(ImageError, match=said):
        image_to_rgb(broken)


# The real cv_bridge


def golden_cases() -> list[dict]:
    if not GOLDEN.is_file():
        return []
    return json.loads(GOLDEN.with_suffix(".json").read_text())["cases"]


@pytest.mark.skipif(
    not GOLDEN.is_file(), reason="MOSAM_CV_BRIDGE_GOLDEN names no conversions of cv_bridge"
)
@pytest.mark.parametrize("encoding", sorted({case["encoding"] for case in golden_cases()}) or [""])
def test_recorded_conversions_of_cv_bridge(encoding):
    arrays = np.load(GOLDEN)
    cases = [case for case in golden_cases() if case["encoding"] == encoding]
    for case in cases:
        fields = ("height", "width", "encoding", "step", "is_bigendian")
        sent = Image(**{name: case[name] for name in fields})
        sent.data = array("B", arrays["in_" + case["key"]].tobytes())
        wanted = case["desired"]

        def convert(sent=sent, wanted=wanted):
            return image_pixels(sent) if wanted == "passthrough" else image_to_color(sent, wanted)

        if not case["error"]:
            expected, converted = arrays["out_" + case["key"]], convert()
            assert converted.dtype == expected.dtype, case
            assert np.array_equal(converted, expected, equal_nan=expected.dtype.kind == "f"), case
        elif encoding in ENCODINGS and ENCODINGS[encoding].alias:
            alias = Image(**{name: case[name] for name in fields}, data=sent.data)
            alias.encoding = ENCODINGS[encoding].alias
            assert np.array_equal(convert(), convert(alias)), case
        else:
            with pytest.raises(ImageError):
                convert()


@pytest.fixture(scope="module")
def cv_bridge():
    if problem := image_input.cv_bridge_problem():
        pytest.skip(f"no cv_bridge here: {problem}")
    from cv_bridge import CvBridge

    return CvBridge()


@pytest.mark.parametrize("big_endian", [False, True], ids=["little", "big"])
@pytest.mark.parametrize("padding", [0, 2], ids=["tight", "padded"])
@pytest.mark.parametrize("encoding", PICTURES)
def test_side_by_side_with_cv_bridge(cv_bridge, encoding, padding, big_endian):
    generator = np.random.default_rng(5)
    known = ENCODINGS[encoding]
    shape, top = (48, 64, known.channels), np.iinfo(known.value).max
    pixels = generator.integers(0, top, shape, known.value, endpoint=True)
    sent = message(pixels, encoding, padding * known.pixel_bytes, big_endian)
    difference = bridge_to_rgb(cv_bridge, sent).astype(int) - image_to_rgb(sent)
    assert np.abs(difference).max() <= image_input.PROBE_TOLERANCE


# Which of the two converts

STAND_IN = """
import numpy as np
from mosam_ros.nodes.image_input import image_to_rgb


class CvBridge:
    used = 0

    def imgmsg_to_cv2(self, message, desired_encoding):
        CvBridge.used += 1
        {body}
        return image_to_rgb(message)
"""


@pytest.fixture
def log():
    return []


@pytest.fixture
def converter(tmp_path, monkeypatch, log):
    """Make a converter with a cv_bridge that does `body` first, or that is `text` altogether."""
    monkeypatch.delitem(sys.modules, "cv_bridge", raising=False)

    def make(body: str = "pass", text: str = "") -> ImageConverter:
        (tmp_path / "cv_bridge.py").write_text(text or STAND_IN.format(body=body))
        monkeypatch.syspath_prepend(tmp_path)
        return ImageConverter(log.append)

    yield make
    sys.modules.pop("cv_bridge", None)


def bridge_calls() -> int:
    return sys.modules["cv_bridge"].CvBridge.used


def test_cv_bridge_converts_where_it_works(converter, log):
    subject = converter()
    for encoding, pixels in (("bgr8", RGB[..., ::-1]), ("8UC3", RGB[..., ::-1])):
        assert np.array_equal(subject.to_rgb(message(pixels, encoding)), RGB)
    assert bridge_calls() == 2 and log == []


def test_cv_bridge_gets_no_rows_that_it_would_misread(converter, log):
    subject = converter()
    assert np.array_equal(subject.to_rgb(message(RGB, "rgb8", padding=1)), RGB)
    assert np.array_equal(subject.to_rgb(message(RGB, "rgb8", padding=3)), RGB)
    assert bridge_calls() == 1 and log == []


def test_a_broken_message_is_not_blamed_on_cv_bridge(converter, log):
    subject = converter()
    broken = message(RGB, "rgb8")
    broken.encoding = "nv12"
    with pytest.raises(ImageError, match="nv12"):
        subject.to_rgb(broken)
    assert np.array_equal(subject.to_rgb(message(RGB, "rgb8")), RGB)
    assert bridge_calls() == 1 and log == []


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({"text": "raise ImportError('numpy.core.multiarray failed')"}, "multiarray failed"),
        ({"text": "raise AttributeError('_ARRAY_API not found')"}, "_ARRAY_API not found"),
        ({"text": "import os; os.abort()"}, "crashes with signal 6"),
        ({"text": "import os; os._exit(3)"}, "does not work"),
        ({"text": "x = 1"}, "cannot import name 'CvBridge'"),
        ({"body": "raise AttributeError('no newbyteorder')"}, "no newbyteorder"),
        ({"body": "return image_to_rgb(message)[..., ::-1]"}, "converts bgr8 wrongly"),
        ({"body": "return np.zeros((1, 1))"}, "float64 of shape"),
    ],
)
def test_a_cv_bridge_that_does_not_work_is_left_alone(converter, log, kind, said):
    subject = converter(**kind)
    for _ in range(2):
        assert np.array_equal(subject.to_rgb(message(RGB, "rgb8")), RGB)
    assert len(log) == 1 and said in log[0] and "built-in converter" in log[0]
    assert "cv_bridge" not in sys.modules, "it might crash this process"


def test_a_cv_bridge_that_hangs_is_left_alone(converter, log, monkeypatch):
    monkeypatch.setattr(image_input, "PROBE_SECONDS", 0.2)
    subject = converter(text="import time; time.sleep(60)")
    assert np.array_equal(subject.to_rgb(message(RGB, "rgb8")), RGB)
    assert len(log) == 1 and "did not answer within 0.2 s" in log[0]


def test_a_cv_bridge_that_fails_later_is_replaced(converter, log):
    fails = "if message.encoding == 'yuv422_yuy2': raise RuntimeError('unknown to this version')"
    subject = converter(fails)
    subject.to_rgb(message(RGB, "rgb8"))
    assert bridge_calls() == 1 and log == []
    sent = message(np.full((2, 4, 2), 128, np.uint8), "yuv422_yuy2")
    for _ in range(2):
        assert np.array_equal(subject.to_rgb(sent), image_to_rgb(sent))
    assert bridge_calls() == 2
    assert len(log) == 1 and "unknown to this version" in log[0]


def test_without_cv_bridge_the_log_says_so_once(monkeypatch, log):
    monkeypatch.setattr(image_input.importlib.util, "find_spec", lambda name: None)
    subject = ImageConverter(log.append)
    for _ in range(2):
        assert np.array_equal(subject.to_rgb(message(RGB, "rgb8")), RGB)
    assert len(log) == 1 and "not installed" in log[0]


def test_the_probe_needs_neither_torch_nor_a_graph():
    code = (
        "import sys, mosam_ros.nodes.image_input;"
        "print(sorted({'torch', 'rclpy.node'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stderr


# Compressed

SMOOTH = cv2.GaussianBlur(
    np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8, endpoint=False), (0, 0), 5
)
"""RGB"""


def compressed(pixels: np.ndarray, kind: str) -> CompressedImage:
    """An RGB, RGBA or gray picture as a file of the kind."""
    if pixels.ndim == 3:
        code = cv2.COLOR_RGB2BGR if pixels.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
        pixels = cv2.cvtColor(pixels, code)
    data = cv2.imencode(f".{kind}", pixels)[1]
    return CompressedImage(format=kind, data=array("B", data.tobytes()))


@pytest.mark.parametrize(
    ("kind", "pixels", "expected", "tolerance"),
    [
        ("jpg", SMOOTH, SMOOTH, 8),
        ("png", SMOOTH, SMOOTH, 0),
        ("png", with_alpha(SMOOTH), SMOOTH, 0),
        ("png", SMOOTH[..., 0], repeated(SMOOTH[..., 0]), 0),
        ("jpg", SMOOTH[..., 0], repeated(SMOOTH[..., 0]), 8),
        ("png", SMOOTH.astype(np.uint16) * 257, SMOOTH, 0),
        ("png", WIDE_GRAY, repeated(NARROWED), 0),
    ],
)
def test_compressed_pictures(kind, pixels, expected, tolerance):
    rgb = compressed_to_rgb(compressed(pixels, kind))
    assert rgb.dtype == np.uint8 and rgb.flags.c_contiguous
    assert rgb.shape == expected.shape
    assert np.abs(rgb.astype(int) - expected).max() <= tolerance


def test_a_jpeg_is_not_turned_by_its_exif_data():
    picture = compressed(SMOOTH, "jpg")
    turned = (
        b"Exif\0\0MM\0\x2a\0\0\0\x08"  # a directory in big endian follows
        b"\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # one entry: orientation 6
    )
    segment = b"\xff\xe1" + (len(turned) + 2).to_bytes(2, "big") + turned
    data = picture.data.tobytes()
    rotated = CompressedImage(format="jpeg", data=array("B", data[:2] + segment + data[2:]))
    assert cv2.imdecode(np.frombuffer(rotated.data, np.uint8), cv2.IMREAD_COLOR).shape[0] == 64
    assert np.array_equal(compressed_to_rgb(rotated), compressed_to_rgb(picture))


def test_bytes_behind_the_end_do_no_harm():
    for kind in ("jpg", "png"):
        picture = compressed(SMOOTH, kind)
        padded = CompressedImage(data=picture.data + array("B", bytes(100)))
        assert np.array_equal(compressed_to_rgb(padded), compressed_to_rgb(picture))


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("kept", [3, 0.1, 0.5, 0.99])
def test_files_that_are_cut_off_are_named(kind, kept):
    whole = compressed(SMOOTH, kind)
    size = kept if isinstance(kept, int) else int(kept * len(whole.data))
    cut = CompressedImage(format=kind, data=whole.data[:size])
    with pytest.raises(ImageError, match=rf"\('{kind}', {size} bytes\) is (damaged|neither)"):
        compressed_to_rgb(cut)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes.*neither a JPEG nor a PNG"),
        (b"\0\0\0\x01gB\0", "neither a JPEG nor a PNG"),
        (b"\xff\xd8\xff\xda nonsense \xff\xd9", "damaged: it cannot be decoded"),
        (b"\x89PNG\r\n\x1a\n nonsense IEND", "damaged: it cannot be decoded"),
    ],
)
def test_other_data_is_named(data, said):
    with pytest.raises(ImageError, match=said):
        compressed_to_rgb(CompressedImage(format="jpeg", data=array("B", data)))


def test_random_damage_raises_nothing_else():
    generator = np.random.default_rng(11)
    for kind in ("jpg", "png"):
        data = np.frombuffer(compressed(SMOOTH, kind).data, np.uint8)
        for _ in range(100):
            damaged = data.copy()
            places = generator.integers(0, data.size, 8)
            damaged[places] = generator.integers(0, 256, 8)
            try:
                rgb = compressed_to_rgb(CompressedImage(data=array("B", damaged.tobytes())))
            except ImageError:
                continue
            assert rgb.ndim == 3 and rgb.dtype == np.uint8


def test_compressed_pictures_need_no_cv_bridge(converter, log):
    subject = converter()
    assert np.array_equal(subject.to_rgb(compressed(SMOOTH, "png")), SMOOTH)
    assert bridge_calls() == 0
