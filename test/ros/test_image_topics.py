"""The tracker node takes what cameras send: every encoding, raw or compressed."""

import time
from array import array

import cv2
import numpy as np
import pytest
from ros_graph import NodeProcess, wait_until

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from mosam_ros.evaluation.metrics import mask_iou  # noqa: E402
from mosam_ros.nodes.conversions import mask_to_image  # noqa: E402
from mosam_ros.nodes.image_input import cv_bridge_problem  # noqa: E402
from mosam_ros.synthetic import SceneConfig, SyntheticScene  # noqa: E402

pytestmark = pytest.mark.ros

SCENE = SyntheticScene(
    31,
    SceneConfig(
        240, 320, num_lookalikes=0, size=(0.3, 0.4), speed=0.0, camera_motion=0.0, clutter=0
    ),
)
FRAME = SCENE.frame(0)
PICTURE, MASK = FRAME.image, FRAME.masks[0]

ENCODINGS = ["rgb8", "bgr8", "rgba8", "bgra8", "mono8", "mono16", "8UC3", "8UC1"]
ENCODINGS += [f"bayer_{pattern}8" for pattern in ("rggb", "bggr", "gbrg", "grbg")]
ENCODINGS += ["yuv422", "yuv422_yuy2", "uyvy", "yuyv"]


def bayer(pattern: str) -> np.ndarray:
    """What a sensor with this pattern of filters sees of the picture, (height, width) uint8."""
    seen = np.empty(PICTURE.shape[:2], np.uint8)
    for place, name in enumerate(pattern):
        rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
        seen[rows, columns] = PICTURE[rows, columns, "rgb".index(name)]
    return seen


def sent_as(encoding: str) -> np.ndarray:
    """The picture's values in an encoding, (height, width, ...)."""
    gray = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2GRAY)
    if encoding.startswith("bayer_"):
        return bayer(encoding[len("bayer_") : -1])
    if encoding.startswith(("yuv", "yuyv", "uyvy")):
        yuv = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2YUV)
        color = yuv[..., 1].copy()
        color[:, 1::2] = yuv[:, ::2, 2]
        color_first = encoding in ("yuv422", "uyvy")
        planes = (color, yuv[..., 0]) if color_first else (yuv[..., 0], color)
        return np.dstack(planes)
    return {
        "rgb8": PICTURE,
        "bgr8": PICTURE[..., ::-1],
        "8UC3": PICTURE[..., ::-1],
        "rgba8": cv2.cvtColor(PICTURE, cv2.COLOR_RGB2RGBA),
        "bgra8": cv2.cvtColor(PICTURE, cv2.COLOR_RGB2BGRA),
        "mono8": gray,
        "8UC1": gray,
        "mono16": (gray.astype(np.uint16) * 257).astype(">u2"),
    }[encoding]


def image(encoding: str, header, padding: int = 0) -> Image:
    pixels = np.ascontiguousarray(sent_as(encoding))
    rows = pixels.reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    return Image(
        header=header,
        height=PICTURE.shape[0],
        width=PICTURE.shape[1],
        encoding=encoding,
        step=rows.shape[1],
        is_bigendian=int(pixels.dtype.byteorder == ">"),
        data=array("B", rows.tobytes()),
    )


def labels_of_answer(client, publisher, message, what: str) -> np.ndarray:
    """Publish a frame and return the label image of the answer to it."""
    publisher.publish(message)
    stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    both = client.answers, client.label_images
    wait_until(lambda: all(stamp in store for store in both), f"the answer to {what}")
    return client.labels(client.answers[stamp])


def test_one_target_is_followed_through_all_encodings(start, client):
    process = start("tracker_node")
    process.wait_for_log("active: waiting for images on /image")
    client.wait_for_tracker()
    client.track(PICTURE)
    client.select(target_id=4, mask=mask_to_image(MASK, client.header()))
    for padding in (0, 5):
        for encoding in ENCODINGS:
            sent = image(encoding, client.header(), padding)
            labels = labels_of_answer(client, client.images, sent, encoding)
            assert mask_iou(labels == 4, MASK) > 0.5, (encoding, padding)
    assert process.log.count("without cv_bridge") == bool(cv_bridge_problem())
    assert "ignored" not in process.log
    assert process.interrupt() == 0


def compressed(kind: str, header) -> CompressedImage:
    data = cv2.imencode(f".{kind}", cv2.cvtColor(PICTURE, cv2.COLOR_RGB2BGR))[1]
    return CompressedImage(header=header, format=kind, data=array("B", data.tobytes()))


@pytest.fixture
def compressed_tracker(domain, tmp_path):
    command = ["-m", "mosam_ros.nodes.tracker_node", "--ros-args"]
    command += ["-r", "image:=/front/image_raw", "-p", "image_transport:=compressed"]
    process = NodeProcess(command, domain, tmp_path / "log")
    yield process
    process.kill()


def test_compressed_images_of_a_remapped_camera(compressed_tracker, client):
    process = compressed_tracker
    process.wait_for_log("active: waiting for images on /front/image_raw/compressed")
    camera = client.node.create_publisher(
        CompressedImage, "/front/image_raw/compressed", qos_profile_sensor_data
    )
    for publisher in (camera, client.selections):
        wait_until(publisher.get_subscription_count, "the tracker's subscriptions")
    time.sleep(1.0)

    def labels(kind: str) -> np.ndarray:
        return labels_of_answer(client, camera, compressed(kind, client.header()), kind)

    labels("jpg")
    client.select(target_id=4, mask=mask_to_image(MASK, client.header()))
    for kind in ("jpg", "png"):
        assert mask_iou(labels(kind) == 4, MASK) > 0.5

    before = len(process.log)
    for _ in range(10):
        damaged = compressed("jpg", client.header())
        damaged.data = damaged.data[: len(damaged.data) // 2]
        camera.publish(damaged)
        time.sleep(0.02)
    process.wait_for_log("is damaged: its end is missing", after=before)
    assert mask_iou(labels("jpg") == 4, MASK) > 0.5, "the target outlives damaged frames"
    assert process.log[before:].count("is damaged") == 1, "one warning, not one per frame"
    assert process.interrupt() == 0


def test_an_unknown_transport_is_refused(start):
    process = start("tracker_node", image_transport="theora")
    process.wait_for_log(
        "not configured: image_transport: it is 'theora': use one of raw, compressed"
    )
    assert process.interrupt() == 0
