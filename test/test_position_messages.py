"""Lenses and depth from messages, positions into messages."""

import math

import numpy as np
import pytest

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from mosam_ros.localization.target_motion import Velocity  # noqa: E402
from mosam_ros.localization.target_position import TargetPosition  # noqa: E402
from mosam_ros.msg import TargetPositionArray, TrackedTarget  # noqa: E402
from mosam_ros.nodes.image_input import ImageError  # noqa: E402
from mosam_ros.nodes.position_messages import (  # noqa: E402
    camera_from_info,
    depth_pixels,
    markers,
    poses,
    position_message,
)

FOUND = TargetPosition(
    np.array([0.5, -0.2, 2.0]), np.array([0.3, 0.4, 0.1]), np.diag([1.0, 4.0, 9.0]), 0.75
)
VELOCITY = Velocity(np.array([0.1, 0.2, -0.3]), np.diag([4.0, 5.0, 6.0]))
CUP = TrackedTarget(id=3, label="cup", state=TrackedTarget.TRACKED)


def info(**changes) -> CameraInfo:
    fields = {
        "height": 480,
        "width": 640,
        "distortion_model": "plumb_bob",
        "d": [0.1, 0.01, 0.0, 0.0, 0.0],
        "k": [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0],
        "p": [450.0, 0.0, 310.0, 0.0, 0.0, 460.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0],
    }
    return CameraInfo(**{**fields, **changes})


def depth(values: np.ndarray, encoding: str, big_endian: bool = False) -> Image:
    sent = values.astype(values.dtype.newbyteorder(">" if big_endian else "<"))
    height, width = values.shape
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        step=width * values.itemsize,
        is_bigendian=int(big_endian),
        data=sent.tobytes(),
    )


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize(
    ("values", "encoding"),
    [
        (np.array([[0, 1500], [65535, 7]], np.uint16), "16UC1"),
        (np.array([[0.0, 1.5], [np.nan, 7.25]], np.float32), "32FC1"),
    ],
)
def test_depth_arrives_as_sent(values, encoding, big_endian):
    read = depth_pixels(depth(values, encoding, big_endian))
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)


def test_a_color_image_is_no_depth():
    with pytest.raises(ImageError, match="'rgb8': send 16UC1"):
        depth_pixels(Image(height=1, width=1, encoding="rgb8", step=3, data=bytes(3)))


def test_a_raw_camera_has_its_matrix_and_distortion():
    camera = camera_from_info(info(), (480, 640), rectified=False)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500, 510, 320, 240)
    assert camera.distortion == (0.1, 0.01, 0, 0, 0)


def test_a_rectified_camera_has_its_projection():
    camera = camera_from_info(info(), (480, 640), rectified=True)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (450, 460, 310, 230)
    assert not camera.distortion


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 320}, "is for 320x480, the images are 640x480"),
        ({"k": [0.0] * 9}, "calibrate"),
        ({"k": [500.0, 0.0, math.nan, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0]}, "not finite"),
        ({"d": [math.inf, 0.0, 0.0, 0.0, 0.0]}, "not finite"),
        ({"distortion_model": "equidistant"}, "rectify"),
    ],
)
def test_a_lens_that_cannot_be_used_is_named(changes, said):
    with pytest.raises(ImageError, match=said):
        camera_from_info(info(**changes), (480, 640), rectified=False)


def test_a_position_as_a_message():
    message = position_message(CUP, FOUND, VELOCITY)
    assert (message.id, message.label, message.state, message.valid) == (3, "cup", 0, True)
    assert [message.position.x, message.position.y, message.position.z] == [0.5, -0.2, 2.0]
    assert [message.extent.x, message.extent.y, message.extent.z] == [0.3, 0.4, 0.1]
    assert [message.velocity.x, message.velocity.y, message.velocity.z] == [0.1, 0.2, -0.3]
    np.testing.assert_array_equal(message.position_covariance, np.diag([1.0, 4, 9]).ravel())
    np.testing.assert_array_equal(message.velocity_covariance, np.diag([4.0, 5, 6]).ravel())
    assert message.depth_share == 0.75


def test_a_target_without_a_position_is_listed_as_not_valid():
    message = position_message(TrackedTarget(id=4, state=TrackedTarget.LOST), None, None)
    assert (message.id, message.state, message.valid) == (4, TrackedTarget.LOST, False)
    assert message.position.z == 0 and not message.position_covariance.any()


@pytest.fixture
def positions() -> TargetPositionArray:
    return TargetPositionArray(
        header=Header(frame_id="lens"),
        positions=[
            position_message(CUP, FOUND, VELOCITY),
            position_message(TrackedTarget(id=4), None, None),
        ],
    )


def test_poses_are_of_the_measured_targets(positions):
    message = poses(positions)
    assert message.header.frame_id == "lens"
    (pose,) = message.poses
    assert (pose.position.x, pose.position.z, pose.orientation.w) == (0.5, 2.0, 1.0)


def test_markers_show_box_name_and_velocity(positions):
    pytest.importorskip("visualization_msgs")
    box, name, arrow = markers(positions, 0.5).markers
    assert {marker.id for marker in (box, name, arrow)} == {3}
    assert {marker.header.frame_id for marker in (box, name, arrow)} == {"lens"}
    assert (box.scale.x, box.scale.y, box.scale.z) == (0.3, 0.4, 0.1)
    assert name.text == "3 cup"
    assert [arrow.points[1].x, arrow.points[1].z] == [0.6, 1.7]
    assert box.lifetime.nanosec == 500_000_000
