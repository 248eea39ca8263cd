"""The tracker node serves selections, survives bad input and answers the newest frame."""

import time

import cv2
import numpy as np
import pytest
from ros_graph import wait_until

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import Point32  # noqa: E402
from lifecycle_msgs.srv import GetState  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from mosam_ros.evaluation.metrics import mask_iou  # noqa: E402
from mosam_ros.msg import TargetSelection, TrackedTarget  # noqa: E402
from mosam_ros.nodes.conversions import color_to_image, mask_to_image  # noqa: E402
from mosam_ros.synthetic import SceneConfig, SyntheticScene  # noqa: E402

pytestmark = pytest.mark.ros

SCENE = SyntheticScene(
    31,
    SceneConfig(
        240, 320, num_lookalikes=0, size=(0.3, 0.4), speed=0.0, camera_motion=0.0, clutter=0
    ),
)
FRAME = SCENE.frame(0)
PICTURE = FRAME.image
FIRST, SECOND, _ = FRAME.masks

FRAME_SECONDS = 0.05
MOVING = SyntheticScene(
    33,
    SceneConfig(
        240,
        320,
        num_frames=16,
        num_objects=1,
        num_lookalikes=0,
        size=(0.3, 0.4),
        speed=0.012,
        camera_motion=0.0,
        clutter=0,
    ),
)
"""Its target goes up and to the right."""


@pytest.fixture(scope="module")
def process(start, client):
    process = start("tracker_node")
    process.wait_for_log("active: waiting for images")
    client.wait_for_tracker()
    return process


@pytest.fixture
def tracker(process, client):
    """The client, with the tracker running and without targets."""
    client.clear()
    client.track(PICTURE)
    return client


@pytest.fixture
def said(process):
    """Waits for a text in what the node writes during the test."""
    before = len(process.log)
    return lambda text: process.wait_for_log(text, after=before)


def box_of(mask: np.ndarray) -> list[float]:
    rows, columns = np.nonzero(mask)
    x, y = columns.min(), rows.min()
    return [float(x), float(y), float(np.ptp(columns) + 1), float(np.ptp(rows) + 1)]


def point_of(mask: np.ndarray) -> Point32:
    """A point in the middle of the mask, where it is thickest."""
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    return Point32(x=float(x), y=float(y))


def ids(answer) -> list[int]:
    return [target.id for target in answer.targets]


def test_without_targets_the_answer_is_empty(tracker):
    answer = tracker.track(PICTURE)
    assert answer.header.frame_id == "test_lens"
    assert not answer.targets
    assert not tracker.labels(answer).any()


@pytest.mark.parametrize("kind", ["box", "points", "mask"])
def test_select(tracker, kind):
    fields = {
        "box": {"box": box_of(FIRST)},
        "points": {
            "points": [point_of(FIRST), point_of(SECOND)],
            "point_labels": [1, 0],
        },
        "mask": {"mask": mask_to_image(FIRST, tracker.header())},
    }[kind]
    tracker.select(label="cup", target_id=7, **fields)
    answer = tracker.track(PICTURE)
    (target,) = answer.targets
    mask = tracker.labels(answer) == 7
    assert (target.id, target.label, target.state) == (7, "cup", TrackedTarget.TRACKED)
    assert target.area == np.count_nonzero(mask)
    assert mask_iou(mask, FIRST) > 0.5
    box = target.box
    assert [box.x_offset, box.y_offset, box.width, box.height] == box_of(mask)
    assert answer.seconds_total > 0 and answer.seconds_encode > 0
    assert not target.motion_prompt.valid


def test_ids_are_chosen_where_none_is_given_and_targets_come_and_go_alone(tracker):
    tracker.select(box=box_of(FIRST), label="first")
    tracker.select(box=box_of(SECOND), label="second")
    answer = tracker.track(PICTURE)
    names = {target.label: target.id for target in answer.targets}
    assert names.keys() == {"first", "second"} and names["first"] != names["second"]
    tracker.select(action=TargetSelection.REMOVE, target_id=names["first"])
    assert ids(tracker.track(PICTURE)) == [names["second"]]
    tracker.clear()
    assert ids(tracker.track(PICTURE)) == []


def test_refine_moves_the_target(tracker):
    tracker.select(target_id=3, mask=mask_to_image(FIRST, tracker.header()))
    tracker.track(PICTURE)
    tracker.select(
        action=TargetSelection.REFINE,
        target_id=3,
        mask=mask_to_image(SECOND, tracker.header()),
    )
    answer = tracker.track(PICTURE)
    assert ids(answer) == [3]
    assert mask_iou(tracker.labels(answer) == 3, SECOND) > 0.8


NAN = float("nan")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"target_id": 2, "box": [900.0, 10.0, 50.0, 50.0]}, "target 2 ignored: the box"),
        ({"target_id": 2, "points": [Point32(x=-40.0, y=5.0)]}, "outside the image of 320x240"),
        ({"target_id": 2, "points": [Point32(x=NAN, y=5.0)]}, "not a finite number"),
        ({"target_id": 2, "box": [NAN, 10.0, 50.0, 50.0]}, "four finite numbers"),
        ({"target_id": 2}, "the prompt is empty: give points, a box or a mask"),
        ({"label": "nameless"}, "selection for a new target ignored: the prompt is empty"),
        ({"target_id": 1, "box": [10.0, 10.0, 50.0, 50.0]}, "target id 1 is in use"),
        ({"target_id": 9, "action": TargetSelection.REMOVE}, "there is no target 9"),
        (
            {"target_id": 9, "action": TargetSelection.REFINE, "points": [Point32()]},
            "there is no target 9",
        ),
        ({"target_id": 1, "action": 77}, "unknown action 77"),
    ],
)
def test_a_bad_selection_is_named_and_the_other_target_stays(tracker, said, fields, text):
    tracker.select(target_id=1, box=box_of(FIRST))
    tracker.track(PICTURE)
    tracker.select(**fields)
    answer = tracker.track(PICTURE)
    said(text)
    assert ids(answer) == [1]


def test_a_mask_of_another_size_is_named(tracker, said):
    small = np.ones((10, 20), bool)
    tracker.select(target_id=2, mask=mask_to_image(small, tracker.header()))
    assert ids(tracker.track(PICTURE)) == []
    said("the mask is 20x10 but the image is 320x240")


def broken_image(client, **changes) -> Image:
    message = color_to_image(PICTURE, "rgb8", client.header())
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def test_broken_images_are_named_and_tracking_goes_on(tracker, said):
    tracker.select(target_id=1, box=box_of(FIRST))
    tracker.track(PICTURE)
    tracker.images.publish(broken_image(tracker, encoding="nv12"))
    said("frame ignored: the image's encoding is 'nv12'; send one of these instead: rgb8")
    tracker.images.publish(broken_image(tracker, header=tracker.header(-5 * 10**9)))
    time.sleep(0.3)
    tracker.images.publish(broken_image(tracker, height=100_000))
    time.sleep(0.3)
    assert ids(tracker.track(PICTURE)) == [1]


def test_a_frame_of_another_size_keeps_the_targets(tracker, said):
    tracker.select(target_id=1, box=box_of(FIRST))
    tracker.track(PICTURE)
    answer = tracker.track(np.ascontiguousarray(PICTURE[::2, ::2]))
    said("the image size changed from 320x240 to 160x120")
    assert ids(answer) == [1]
    assert tracker.labels(answer).shape == (120, 160)
    assert ids(tracker.track(PICTURE)) == [1]


def test_a_jump_back_in_time_clears_the_targets(tracker, said):
    tracker.select(target_id=1, box=box_of(FIRST))
    tracker.track(PICTURE)
    assert ids(tracker.track(PICTURE, stamp=time.time_ns() - 10**10)) == []
    said("the stamps jumped back by")


def nanoseconds(stamp) -> int:
    return stamp.sec * 10**9 + stamp.nanosec


def test_a_moving_target_has_a_forecast(tracker):
    frames = [MOVING.frame(index) for index in range(10)]
    tracker.select(target_id=1, mask=mask_to_image(frames[0].masks[0], tracker.header()))
    stamp = time.time_ns()
    for frame in frames:
        answer = tracker.track(frame.image, stamp)
        stamp += round(FRAME_SECONDS * 1e9)
    # The next test's stamps must be later than these.
    time.sleep(max(0, stamp - time.time_ns()) / 1e9)
    (target,) = answer.targets
    assert target.state == TrackedTarget.TRACKED
    prompt = target.motion_prompt
    assert prompt.valid
    ahead = nanoseconds(prompt.predicted_stamp) - nanoseconds(answer.header.stamp)
    assert ahead / 1e9 == pytest.approx(FRAME_SECONDS, abs=1e-5)

    earlier, last = (np.argwhere(frames[k].masks[0]).mean(0)[::-1] for k in (-5, -1))
    true_velocity = (last - earlier) / (4 * FRAME_SECONDS)
    velocity = np.array([prompt.velocity.x, prompt.velocity.y])
    speed, true_speed = np.linalg.norm(velocity), np.linalg.norm(true_velocity)
    assert velocity @ true_velocity > 0.7 * speed * true_speed, "the direction is right"
    assert 0.4 < speed / true_speed < 2.0, "pixels per second"

    points = np.array([(point.x, point.y) for point in prompt.key_points])
    assert points.shape == (5, 2) and np.isfinite(points).all()
    assert np.linalg.norm(points[0] - last) < 20
    assert prompt.box.width > 0 and prompt.box.height > 0
    assert prompt.box.x_offset + prompt.box.width <= 320
    assert 0 < prompt.uncertainty < 50


def test_stamps_that_do_not_increase_keep_the_targets(tracker, said):
    tracker.select(target_id=1, box=box_of(FIRST))
    stamp = time.time_ns()
    for step in range(4):
        answer = tracker.track(PICTURE, stamp - step)
    said("the stamps do not increase")
    assert ids(answer) == [1]
    assert not answer.targets[0].motion_prompt.valid


def test_the_overlay_is_published_to_whoever_subscribes(tracker):
    received = []
    subscription = tracker.node.create_subscription(
        Image, "mosam_tracker/overlay", received.append, 10
    )
    tracker.select(target_id=1, mask=mask_to_image(FIRST, tracker.header()))
    wait_until(lambda: tracker.track(PICTURE) and received, "an overlay")
    tracker.node.destroy_subscription(subscription)
    assert received[-1].encoding == "bgr8"
    assert (received[-1].width, received[-1].height) == (320, 240)
    assert received[-1].header.frame_id == "test_lens"


def test_diagnostics_count_the_frames(tracker):
    received = []
    subscription = tracker.node.create_subscription(
        DiagnosticArray, "/diagnostics", received.append, 10
    )
    tracker.track(PICTURE)
    wait_until(lambda: len(received) > 1, "diagnostics")
    tracker.node.destroy_subscription(subscription)
    (status,) = received[-1].status
    values = {value.key: value.value for value in status.values}
    assert status.name == "/mosam_tracker: frames"
    assert int(values["frames answered"]) <= int(values["frames received"])
    assert values["device"] in ("cpu", "cuda")
    assert float(values["own overhead p50 (ms)"]) < float(values["latency p50 (ms)"])


def test_the_newest_frame_wins_and_the_node_stays_responsive(tracker):
    tracker.select(target_id=1, box=box_of(FIRST))
    tracker.track(PICTURE)
    before = set(tracker.answers)
    sent, slowest_state = [], 0.0
    for index in range(180):
        sent.append(tracker.send(PICTURE))
        if index % 60 == 30:
            asked = time.monotonic()
            state = tracker.call("mosam_tracker/get_state", GetState, GetState.Request())
            slowest_state = max(slowest_state, time.monotonic() - asked)
            assert state.current_state.label == "active"
        time.sleep(1 / 200)
    final = tracker.track(PICTURE)
    answered = [stamp for stamp in tracker.answers if stamp not in before]
    assert ids(final) == [1]
    assert answered == sorted(answered), "frames were answered in the order of their stamps"
    assert len(answered) < len(sent), "what came too fast was dropped"
    assert any(stamp in sent[-60:] for stamp in answered), "recent frames were answered"
    assert slowest_state < 5.0


def test_ctrl_c_ends_the_node_quietly(process):
    """Comes last: it ends the process of the whole module."""
    assert process.interrupt() == 0
    assert "Traceback" not in process.log
