"""The targets as vision_msgs detections: what is in the message, and that the tracker sends it."""

import os
import shutil
from pathlib import Path

import crossing
import numpy as np
import pytest
from ros_graph import wait_until

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")
vision = pytest.importorskip(
    "vision_msgs.msg", reason="vision_msgs comes with a ROS 2 installation, not from PyPI"
)

from std_msgs.msg import Header  # noqa: E402

from mosam_ros.mosam.results import (  # noqa: E402
    Box,
    FrameResult,
    StageSeconds,
    TargetResult,
    TargetState,
)
from mosam_ros.mosam.views import View  # noqa: E402
from mosam_ros.nodes.detections import detections_message  # noqa: E402

pytestmark = pytest.mark.ros

STILL = crossing.frame(0)
NO_BOX = {"box": None, "centroid": None, "area": 0, "state": TargetState.OCCLUDED}


def target(target_id: int, **changes) -> TargetResult:
    fields = {
        "target_id": target_id,
        "label": f"cup {target_id}",
        "state": TargetState.TRACKED,
        "mask": np.zeros((20, 30), bool),
        "box": Box(3, 4, 5, 6),
        "centroid": (5.0, 6.5),
        "area": 30,
        "predicted_iou": 0.75,
        "object_score": 0.0,
        "frames_since_seen": 0,
        "mask_logits": np.zeros((4, 4), np.float32),
        "view": View.whole((20, 30)),
    }
    return TargetResult(**{**fields, **changes})


def corners_and_sizes(detection) -> tuple[float, ...]:
    """x, y, width, height of a detection's box, whose center and size the message carries."""
    center, width, height = detection.bbox.center, detection.bbox.size_x, detection.bbox.size_y
    assert center.theta == 0
    return center.position.x - width / 2, center.position.y - height / 2, width, height


def test_a_detection_for_every_target_with_a_mask_in_the_order_of_ids():
    header = Header(frame_id="lens")
    targets = target(7), target(5, **NO_BOX), target(2, box=Box(0, 1, 4, 3), predicted_iou=0.5)
    message = detections_message(FrameResult(0, (20, 30), targets, (), StageSeconds()), header)
    assert message.header == header
    assert [detection.id for detection in message.detections] == ["2", "7"]
    assert all(detection.header == header for detection in message.detections)
    (guesses,) = zip(*(detection.results for detection in message.detections), strict=True)
    said = [(guess.hypothesis.class_id, guess.hypothesis.score) for guess in guesses]
    assert said == [("cup 2", 0.5), ("cup 7", 0.75)]
    boxes = [corners_and_sizes(detection) for detection in message.detections]
    assert boxes == [(0, 1, 4, 3), (3, 4, 5, 6)]


def test_only_hidden_targets_make_an_empty_message():
    result = FrameResult(0, (20, 30), (target(1, **NO_BOX),), (), StageSeconds())
    message = detections_message(result, Header(frame_id="lens"))
    assert message.header.frame_id == "lens" and not message.detections


def test_the_tracker_sends_what_it_sends_as_targets(start, client):
    start("tracker_node").wait_for_log("active: waiting for images")
    client.wait_for_tracker()
    received = {}

    def keep(message) -> None:
        stamp = message.header.stamp
        received[stamp.sec * 10**9 + stamp.nanosec] = message

    client.node.create_subscription(vision.Detection2DArray, "mosam_tracker/detections", keep, 10)
    wait_until(lambda: client.track(STILL) and received, "detections")
    assert not any(message.detections for message in received.values())

    (x, y), side = crossing.center(0, 0), 64.0
    client.select(target_id=4, label="ball", box=[x - side / 2, y - side / 2, side, side])
    answer = client.track(STILL)
    stamp = answer.header.stamp.sec * 10**9 + answer.header.stamp.nanosec
    wait_until(lambda: stamp in received, "the detections of the frame")
    (tracked,) = answer.targets
    (detection,) = received[stamp].detections
    assert answer.header.frame_id == "test_lens"
    assert received[stamp].header == detection.header == answer.header
    assert detection.id == "4"
    (guess,) = detection.results
    assert guess.hypothesis.class_id == "ball"
    assert guess.hypothesis.score == pytest.approx(tracked.mask_confidence, abs=1e-6)
    box = tracked.box
    assert corners_and_sizes(detection) == (box.x_offset, box.y_offset, box.width, box.height)
    ys, xs = np.nonzero(client.labels(answer) == 4)
    assert (box.x_offset, box.width) == (xs.min(), np.ptp(xs) + 1)
    assert (box.y_offset, box.height) == (ys.min(), np.ptp(ys) + 1)


def test_a_broken_vision_msgs_costs_the_detections_only(start, tmp_path, monkeypatch):
    installed = Path(vision.__file__).parents[1]
    shutil.copytree(installed, tmp_path / installed.name)
    libraries = list(tmp_path.rglob("*typesupport*.so"))
    assert libraries
    for library in libraries:
        library.write_bytes(b"")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    process = start("tracker_node")
    process.wait_for_log("no ~/detections: vision_msgs is broken, install it again")
    process.wait_for_log("active: waiting for images")
