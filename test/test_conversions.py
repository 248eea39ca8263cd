"""ROS messages to arrays, prompts and results, and back."""

from array import array

import numpy as np
import pytest

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")

from geometry_msgs.msg import Point32  # noqa: E402
from rclpy import serialization  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from mosam_ros.mosam.prompts import PromptError  # noqa: E402
from mosam_ros.mosam.results import (  # noqa: E402
    Box,
    FrameResult,
    MotionPrompt,
    StageSeconds,
    TargetResult,
    TargetState,
)
from mosam_ros.mosam.selection import Action  # noqa: E402
from mosam_ros.mosam.views import View
from mosam_ros.msg import MotionPrompt as MotionPromptMessage  # noqa: E402
from mosam_ros.msg import TargetSelection, TrackedTarget  # noqa: E402
from mosam_ros.nodes import conversions  # noqa: E402
from mosam_ros.nodes.conversions import ImageError  # noqa: E402

HEADER = Header(frame_id="lens")
HEADER.stamp.sec, HEADER.stamp.nanosec = 12, 345

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
GRAY = np.array([[0, 100, 255], [7, 8, 9]], np.uint8)


def image_message(pixels: np.ndarray, encoding: str, padding: int = 0) -> Image:
    rows = pixels.reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    height, width = pixels.shape[:2]
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        step=rows.shape[1],
        data=array("B", rows.tobytes()),
    )


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8"])
def test_color_image_message(encoding):
    message = conversions.color_to_image(RGB[:, ::-1], encoding, HEADER)
    assert message.header == HEADER
    assert (message.width, message.height, message.step) == (3, 2, 9)
    assert message.encoding == encoding
    assert message.data.tobytes() == np.ascontiguousarray(RGB[:, ::-1]).tobytes()


def test_labels_come_back_from_their_message():
    labels = np.array([[0, 1, 258], [65535, 3, 0]], np.uint16)
    message = conversions.labels_to_image(labels, HEADER)
    assert (message.encoding, message.step, len(message.data)) == ("mono16", 6, 12)
    assert np.array_equal(conversions.labels_from_image(message), labels)


def test_labels_of_a_machine_with_the_other_byte_order():
    labels = np.array([[0, 1, 258], [65535, 3, 0]], np.uint16)
    message = image_message(labels.astype(">u2").view(np.uint8), "mono16", padding=3)
    message.width, message.is_bigendian = 3, 1
    assert np.array_equal(conversions.labels_from_image(message), labels)


def test_a_mask_comes_back_from_its_message():
    mask = GRAY > 50
    message = conversions.mask_to_image(mask, HEADER)
    assert np.array_equal(conversions.mask_from_image(message), mask)
    message.encoding = "rgb8"
    with pytest.raises(ImageError, match="send mono8"):
        conversions.mask_from_image(message)


def test_points_with_labels():
    selection = TargetSelection(points=[Point32(x=1.5, y=2.0), Point32(x=3.0, y=4.0)])
    selection.point_labels = [1, 0]
    prompt = conversions.prompt_from_selection(selection)
    assert prompt.points.tolist() == [[1.5, 2.0], [3.0, 4.0]]
    assert prompt.labels.tolist() == [1, 0]
    assert prompt.box is None and prompt.mask is None


def test_points_without_labels_are_all_on_the_target():
    selection = TargetSelection(points=[Point32(x=1.0, y=2.0), Point32(x=3.0, y=4.0)])
    assert conversions.prompt_from_selection(selection).labels.tolist() == [1, 1]


def test_a_box_of_corner_and_size_becomes_two_corners():
    selection = TargetSelection(box=[10.0, 20.0, 30.0, 40.0], points=[Point32(x=15.0, y=25.0)])
    prompt = conversions.prompt_from_selection(selection)
    assert prompt.box.tolist() == [10.0, 20.0, 40.0, 60.0]
    assert len(prompt.points) == 1


def test_a_mask_is_read():
    mask = GRAY > 50
    selection = TargetSelection(mask=conversions.mask_to_image(mask, HEADER))
    assert np.array_equal(conversions.prompt_from_selection(selection).mask, mask)


NAN = float("nan")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "empty"),
        ({"points": [Point32(x=NAN, y=1.0)]}, "finite"),
        ({"box": [1.0, 2.0, NAN, 4.0]}, "finite"),
        ({"box": [1.0, 2.0, 0.0, 4.0]}, "box is empty"),
        ({"box": [1.0, 2.0, 3.0]}, "box has 3 numbers"),
        ({"points": [Point32()], "point_labels": [1, 0]}, "1 points came with 2 labels"),
        ({"points": [Point32()], "point_labels": [7]}, "labels are 1"),
        ({"mask": image_message(RGB, "rgb8")}, "mask.*send mono8"),
        ({"mask": image_message(0 * GRAY, "mono8")}, "mask is empty"),
        ({"mask": image_message(GRAY, "mono8"), "points": [Point32()]}, "cannot be combined"),
    ],
)
def test_unusable_selections_are_named(fields, said):
    with pytest.raises(PromptError, match=said):
        conversions.prompt_from_selection(TargetSelection(**fields))


def test_actions_are_those_of_the_message():
    for action in Action:
        assert getattr(TargetSelection, action.name) == action
    fields = {"target_id": 4, "label": "cup", "box": [1.0, 2.0, 3.0, 4.0], "header": Header()}
    for action in Action:
        selection = conversions.selection_from_message(TargetSelection(action=action, **fields))
        assert (selection.action, selection.target_id, selection.label) == (action, 4, "cup")
        assert (selection.prompt is None) == (action in (Action.REMOVE, Action.CLEAR))
        assert selection.stamp is None, "0 is the newest frame"
    fields["header"].stamp.sec, fields["header"].stamp.nanosec = 50, 250_000_000
    assert conversions.selection_from_message(TargetSelection(**fields)).stamp == 50.25
    with pytest.raises(PromptError, match="unknown action 77: use 0 to 3"):
        conversions.selection_from_message(TargetSelection(action=77))


def target(target_id: int, mask: np.ndarray, **changes) -> TargetResult:
    fields = {
        "target_id": target_id,
        "label": "cup",
        "state": TargetState.TRACKED,
        "mask": mask,
        "box": Box(3, 4, 5, 6),
        "centroid": (5.5, 6.5),
        "area": 30,
        "predicted_iou": 0.75,
        "object_score": 0.0,
        "frames_since_seen": 0,
        "mask_logits": np.zeros((4, 4), np.float32),
        "view": View.whole((20, 30)),
    }
    return TargetResult(**{**fields, **changes})


def frame_result(*targets: TargetResult) -> FrameResult:
    seconds = StageSeconds(encode=0.01, decode=0.02, memory=0.03, motion=0.04, total=0.125)
    return FrameResult(0, (20, 30), targets, (), seconds)


def test_a_result_as_a_message():
    gone = target(
        2,
        np.zeros((20, 30), bool),
        state=TargetState.LOST,
        box=None,
        centroid=None,
        area=0,
        frames_since_seen=40,
    )
    result = frame_result(target(7, np.ones((20, 30), bool)), gone)
    message = conversions.targets_message(result, HEADER, seconds_convert=0.0625)
    assert message.header == HEADER
    assert [t.id for t in message.targets] == [2, 7]
    lost, seen = message.targets
    assert (lost.state, lost.box.width, lost.area, lost.frames_since_seen) == (2, 0, 0, 40)
    assert (seen.label, seen.state, seen.area) == ("cup", TrackedTarget.TRACKED, 30)
    assert (seen.box.x_offset, seen.box.y_offset, seen.box.width, seen.box.height) == (3, 4, 5, 6)
    assert (seen.centroid.x, seen.centroid.y) == (5.5, 6.5)
    assert seen.mask_confidence == 0.75 and seen.presence == 0.5
    assert not seen.motion_prompt.valid
    assert message.seconds_convert == 0.0625
    assert message.seconds_encode == pytest.approx(0.01)
    assert message.seconds_motion == pytest.approx(0.04)
    assert message.seconds_total == 0.1875


def test_no_targets_make_an_empty_message():
    message = conversions.targets_message(frame_result(), HEADER)
    assert message.header == HEADER and not message.targets


def forecast(**changes) -> MotionPrompt:
    fields = {
        "time": 12.25,
        "valid": True,
        "key_points": np.array([[5, 6], [5, 4], [5, 8], [3, 6], [7, 6]], np.float32),
        "box": np.array([1.6, 2.4, 9.5, 10.4], np.float32),
        "velocity": np.array([30.0, -15.0], np.float32),
        "uncertainty": 1.5,
    }
    return MotionPrompt(**{**fields, **changes})


def test_a_forecast_as_a_message():
    moving = target(7, np.ones((20, 30), bool), motion_prompt=forecast())
    (sent,) = conversions.targets_message(frame_result(moving), HEADER).targets
    prompt = sent.motion_prompt
    assert (prompt.predicted_stamp.sec, prompt.predicted_stamp.nanosec) == (12, 250_000_000)
    assert prompt.valid and prompt.uncertainty == 1.5
    points = [(p.x, p.y, p.z) for p in prompt.key_points]
    assert points == [(5, 6, 0), (5, 4, 0), (5, 8, 0), (3, 6, 0), (7, 6, 0)]
    assert (prompt.velocity.x, prompt.velocity.y, prompt.velocity.z) == (30, -15, 0)
    assert conversions.forecast_box(prompt).tolist() == [2, 2, 10, 10]


def test_a_forecast_that_cannot_be_trusted_is_sent_as_a_guess():
    prompt = conversions.motion_prompt_message(forecast(valid=False), (20, 30))
    assert not prompt.valid and prompt.box.width == 8 and len(prompt.key_points) == 5
    assert conversions.forecast_box(prompt) is None


def test_without_a_forecast_the_message_is_not_valid():
    prompt = conversions.motion_prompt_message(None, (20, 30))
    assert prompt == MotionPromptMessage() and not prompt.valid


@pytest.mark.parametrize(
    ("box", "cut"),
    [
        ((-4.0, -3.0, 5.0, 6.0), [0, 0, 5, 6]),
        ((25.0, 15.0, 40.0, 33.0), [25, 15, 30, 20]),
        ((-9.0, 2.0, -1.0, 8.0), None),
        ((31.0, 2.0, 40.0, 8.0), None),
    ],
)
def test_the_box_of_a_forecast_is_cut_to_the_image(box, cut):
    prompt = forecast(box=np.array(box, np.float32))
    sent = conversions.forecast_box(conversions.motion_prompt_message(prompt, (20, 30)))
    assert cut is None if sent is None else sent.tolist() == cut


@pytest.mark.parametrize("time", [1.76e9 + 0.125, 4e9, -1.0, 0.0])
def test_every_time_can_be_sent(time):
    prompt = conversions.motion_prompt_message(forecast(time=time), (20, 30))
    sent = serialization.deserialize_message(
        serialization.serialize_message(prompt), MotionPromptMessage
    )
    assert sent == prompt
    if time < 2**31:
        assert sent.predicted_stamp.sec + sent.predicted_stamp.nanosec / 1e9 == time
