"""Outputs that nobody subscribes to are neither made nor sent."""

import importlib.util
import json

import crossing
import pytest
from ros_graph import wait_until

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from sensor_msgs.msg import Image  # noqa: E402

from mosam_ros.msg import TrackedTargetArray  # noqa: E402
from mosam_ros.nodes.conversions import mask_to_image  # noqa: E402

pytestmark = pytest.mark.ros

STILL = crossing.frame(0)

CALLS = {
    "targets": {"targets_message", "publish"},
    "masks": {"label_image", "labels_to_image", "publish"},
    "overlay": {"targets_message", "label_image", "draw_overlay", "color_to_image", "publish"},
    "detections": {"detections_message", "publish"},
}
"""By output: what is called once per frame while somebody subscribes to it alone."""

HAS_VISION = importlib.util.find_spec("vision_msgs") is not None


@pytest.fixture(scope="module")
def tracker(start, client):
    """A tracker with a target, whose outputs nobody subscribes to."""
    process = start("counting_tracker")
    process.wait_for_log("active: waiting for images")
    client.wait_for_tracker()
    client.select(target_id=1, mask=mask_to_image(crossing.mask(0, 0), client.header()))
    assert client.track(STILL).targets
    for subscription in list(client.node.subscriptions):
        client.node.destroy_subscription(subscription)
    return process


def calls(tracker, client) -> dict[str, int]:
    """What the tracker called for one more frame."""

    def lines() -> list[str]:
        return [line for line in tracker.log.splitlines() if line.startswith("{")]

    before = len(lines())
    client.send(STILL)
    wait_until(lambda: len(lines()) > before, "a frame to be answered")
    return json.loads(lines()[-1])


def wait_for_calls(tracker, client, names: set[str]) -> None:
    """Wait until frames cost these calls, once each, and see that it stays so."""
    expected = dict.fromkeys(names, 1)
    wait_until(lambda: calls(tracker, client) == expected, f"frames that call {names}", 30)
    assert [calls(tracker, client) for _ in range(3)] == [expected] * 3


def test_without_a_subscriber_nothing_is_made(tracker, client):
    wait_for_calls(tracker, client, set())


@pytest.mark.parametrize("output", CALLS)
def test_only_what_is_subscribed_to_is_made(tracker, client, output):
    kind = TrackedTargetArray if output == "targets" else Image
    if output == "detections":
        if not HAS_VISION:
            pytest.skip("vision_msgs comes with a ROS 2 installation, not from PyPI")
        from vision_msgs.msg import Detection2DArray as kind
    received = []
    topic = f"mosam_tracker/{output}"
    subscription = client.node.create_subscription(kind, topic, received.append, 10)
    try:
        wait_for_calls(tracker, client, CALLS[output])
        wait_until(lambda: received, topic)
    finally:
        client.node.destroy_subscription(subscription)
    wait_for_calls(tracker, client, set())
