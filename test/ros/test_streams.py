"""Camera, tracker and subscriber as three processes: stamps, sizes, rates, ends."""

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

pytestmark = pytest.mark.ros


def heard(process) -> dict[str, list[dict]]:
    """What the listener got, by topic."""
    lines = [json.loads(line) for line in process.log.splitlines() if line.startswith("{")]
    topics = {line["topic"] for line in lines}
    return {topic: [line for line in lines if line["topic"] == topic] for topic in topics}


def test_every_output_carries_the_processed_frames_header(start):
    listener = start("listener")
    tracker = start("tracker_node")
    camera = start(
        "camera_node",
        rate=10.0,
        num_frames=60,
        width=320,
        height=240,
        frame_id="lens_7",
        wait_for_subscribers=2,
    )
    assert camera.wait_for_end() == 0
    topics = heard(listener)
    tracker.interrupt()
    listener.kill()

    sent = {line["stamp"] for line in topics["camera/ground_truth"]}
    assert len(sent) == 60
    for topic in ("mosam_tracker/targets", "mosam_tracker/masks", "mosam_tracker/overlay"):
        lines = topics[topic]
        assert len(lines) >= 5, topic
        assert {line["stamp"] for line in lines} <= sent, topic
        assert {line["frame_id"] for line in lines} == {"lens_7"}, topic
    stamps = [line["stamp"] for line in topics["mosam_tracker/targets"]]
    assert stamps == sorted(set(stamps)), "one answer per frame, in order"
    for topic, encoding in (("mosam_tracker/masks", "mono16"), ("mosam_tracker/overlay", "bgr8")):
        assert {line["encoding"] for line in topics[topic]} == {encoding}
        assert all(line["size"] == [320, 240] for line in topics[topic])
    assert {line["stamp"] for line in topics["image"]} <= sent


@pytest.fixture
def picture_folder(tmp_path):
    for index in range(12):
        cv2.imwrite(str(tmp_path / f"{index:02}.png"), np.full((48, 64, 3), index, np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_a_folder_is_played_at_its_rate_to_its_end(start, picture_folder):
    listener = start("listener")
    camera = start("camera_node", source=str(picture_folder), rate=20.0)
    assert camera.wait_for_end() == 0
    listener.kill()
    images = heard(listener)["image"]
    assert len(images) >= 10
    assert all(line["size"] == [64, 48] and line["encoding"] == "bgr8" for line in images)
    span = (images[-1]["stamp"] - images[0]["stamp"]) / 1e9
    assert 0.35 < span < 5.0
    assert "the end: 12 frames" in camera.log


def test_a_video_is_played(start, tmp_path):
    path = tmp_path / "video.mp4"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for index in range(8):
        video.write(np.full((48, 64, 3), 20 * index, np.uint8))
    video.release()
    camera = start("camera_node", source=str(path), rate=50.0, wait_for_subscribers=0)
    assert camera.wait_for_end() == 0
    assert "the end: 8 frames" in camera.log


@pytest.mark.parametrize(
    ("parameters", "status", "text"),
    [
        ({"source": "/no/such/video.mp4"}, 1, "there is no video and no folder /no/such/video.mp4"),
        ({"num_frames": 20}, 1, "take more frames"),
        ({"rate": 0.0}, 2, "rate is 0.0: give the frames per second"),
    ],
)
def test_a_camera_without_frames_says_why_and_ends(start, parameters, status, text):
    camera = start("camera_node", **parameters)
    assert camera.wait_for_end() == status
    assert text in camera.log
    assert "Traceback" not in camera.log
