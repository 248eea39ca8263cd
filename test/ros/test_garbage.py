"""Random messages never end the node, and never change the masks of another target."""

import random
import time

import crossing
import numpy as np
import pytest
from ros_graph import wait_until

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from garbage import PROTECTED, Garbage  # noqa: E402

from mosam_ros.evaluation.metrics import mask_iou  # noqa: E402
from mosam_ros.mosam.checkpoints import load_model  # noqa: E402
from mosam_ros.mosam.prompts import Prompt  # noqa: E402
from mosam_ros.mosam.results import TargetState  # noqa: E402
from mosam_ros.mosam.tracker import MosamTracker  # noqa: E402
from mosam_ros.msg import TargetSelection  # noqa: E402
from mosam_ros.nodes.conversions import color_to_image, mask_to_image  # noqa: E402
from mosam_ros.nodes.image_input import ImageError, image_to_rgb  # noqa: E402

pytestmark = pytest.mark.ros

MESSAGES = 10_000
PER_FRAME = 50
"""Garbage between two good frames."""

IMAGE_SHARE = 0.1
MOST_TARGETS = 4
STEP = 1 / 32
START = float(int(time.time()))


def pixels(index: int) -> np.ndarray:
    """The objects go to and fro."""
    there = index % 20
    return crossing.frame(min(there, 20 - there))


def header_at(seconds: float):
    from std_msgs.msg import Header

    header = Header(frame_id="test_lens")
    header.stamp.sec, header.stamp.nanosec = int(seconds), int(seconds % 1 * 1e9)
    return header


@pytest.fixture
def node():
    """A tracker node in this process, active; the test plays the part of its executor."""
    from mosam_ros.nodes.tracker_node import TrackerNode

    parameters = {
        "autostart": "false",
        "device": "cpu",
        "image_size": "128",
        "catch_up_limit": "0.001",
    }
    arguments = [a for k, v in parameters.items() for a in ("-p", f"{k}:={v}")]
    rclpy.init(
        args=["--ros-args", "--log-level", "error", *arguments], domain_id=random.randint(101, 200)
    )
    node = TrackerNode()
    node.trigger_configure()
    node.trigger_activate()
    yield node
    node.destroy_node()
    rclpy.shutdown()


def taken(node) -> None:
    wait_until(lambda: node._frames._frame is None, "the worker to take an image")


def answer(node, index: int):
    """The node's result for a good frame."""
    before = node._statistics.answered
    taken(node)
    node._on_image(color_to_image(pixels(index), "rgb8", header_at(START + index * STEP)))
    wait_until(lambda: node._statistics.answered > before, "the answer to a good frame")
    return node._selector.last_result


def is_usable(message) -> bool:
    try:
        image_to_rgb(message)
    except ImageError:
        return False
    return True


def test_10000_random_messages_leave_the_other_target_as_it_is(node):
    """Selections and images by the node's own callbacks, with a good frame after every 50.

    What the target looks like is compared with a tracker that never heard of the garbage.
    """
    garbage = Garbage(seed=11)
    quiet = MosamTracker(load_model("nano", device="cpu", image_size=128))
    mask = crossing.mask(1, 0)
    quiet.add(Prompt.from_mask(mask), target_id=PROTECTED)
    node._selector.put(
        TargetSelection(target_id=PROTECTED, mask=mask_to_image(mask, header_at(START)))
    )
    sent, others, changed = 0, 0, []
    for index in range(MESSAGES // PER_FRAME):
        stamp = START + index * STEP
        expected = quiet.track(pixels(index), stamp).targets[0]
        result = answer(node, index)
        found = {target.target_id: target for target in result.targets}
        assert PROTECTED in found, f"gone after {sent} messages"
        changed.append(np.count_nonzero(found[PROTECTED].mask != expected.mask))
        others += len(found) > 1
        surplus = list(found.keys() - {PROTECTED})[MOST_TARGETS:]
        for target_id in surplus[:PER_FRAME]:
            node._selector.put(TargetSelection(action=TargetSelection.REMOVE, target_id=target_id))
        for _ in range(PER_FRAME):
            if garbage.one_of(range(100)) < 100 * IMAGE_SHARE:
                message = garbage.image(stamp)
                if is_usable(message):  # by chance: not garbage, but another frame
                    message.encoding = "nv12"
                taken(node)
                node._on_image(message)
            else:
                node._selector.put(garbage.selection(stamp))
            sent += 1
    assert sent == MESSAGES
    assert node._worker.is_alive()
    assert others > 20, "some of the garbage made targets, beside which this one was tracked"
    assert expected.state is TargetState.TRACKED and expected.mask.any()
    # Another batch rounds otherwise, which may turn a pixel on the very edge.
    assert max(changed) <= 3, f"pixels that differ, by frame: {changed}"


def test_500_random_messages_over_dds_leave_the_node_at_work(start, client):
    process = start("tracker_node")
    process.wait_for_log("active: waiting for images")
    client.wait_for_tracker()
    still = crossing.frame(0)
    mask = crossing.mask(1, 0)
    client.select(target_id=PROTECTED, mask=mask_to_image(mask, client.header()))
    client.track(still)
    garbage = Garbage(seed=12)
    for index in range(500):
        newest = time.time()
        if index % 5 == 0:
            message = garbage.image(newest)
            if is_usable(message):
                message.encoding = "nv12"
            client.images.publish(message)
        else:
            client.selections.publish(garbage.selection(newest))
        time.sleep(0.005)
        if index % 50 == 49:
            client.track(still)
    answer = client.track(still)
    (target,) = [target for target in answer.targets if target.id == PROTECTED]
    assert target.state == int(TargetState.TRACKED)
    box = target.box
    found = np.zeros_like(mask)
    found[box.y_offset :, box.x_offset :][: box.height, : box.width] = True
    around = np.zeros_like(mask)
    rows, columns = np.nonzero(mask)
    around[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    assert mask_iou(found, around) > 0.7
    client.clear()
    assert not client.track(still).targets
    assert process.interrupt() == 0
    assert "Traceback" not in process.log
