"""Random messages never end the node, and never change another target's masks by a single bit."""

import re
import time
from collections import Counter

import crossing
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ros_graph import wait_until

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from garbage import (  # noqa: E402
    PROTECTED,
    batches,
    selections,
    usable_images,
    wild_selections,
)
from geometry_msgs.msg import Point, PointStamped  # noqa: E402
from rclpy.qos import QoSProfile, qos_profile_sensor_data  # noqa: E402
from rclpy.serialization import deserialize_message, serialize_message  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from mosam_ros.mosam.catch_up import StreamTracker  # noqa: E402
from mosam_ros.mosam.checkpoints import load_model  # noqa: E402
from mosam_ros.mosam.prompts import Prompt  # noqa: E402
from mosam_ros.mosam.results import FrameResult  # noqa: E402
from mosam_ros.mosam.tracker import MosamTracker  # noqa: E402
from mosam_ros.msg import TargetSelection, TrackedTarget  # noqa: E402
from mosam_ros.nodes.conversions import (  # noqa: E402
    color_to_image,
    header_seconds,
    mask_to_image,
    targets_message,
)
from mosam_ros.nodes.image_input import image_to_rgb  # noqa: E402

pytestmark = pytest.mark.ros

BATCHES, PER_BATCH = 100, 100
"""10,000 messages, with a good frame after every 100."""

IMAGE_SIZE = 128

BUFFER_SECONDS = 2.0
STEP = 1 / 32
"""Seconds between good frames; their stamps are exact as floats."""

PAUSE = 0.0005
"""Seconds between messages, so that the node can hear nearly all."""


def repeatable(examples: int):
    """The same examples in every run. The node remembers, so none of them can be made smaller."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def header_at(seconds: float) -> Header:
    """Exact where `seconds` is a multiple of 2**-9."""
    header = Header(frame_id="test_lens")
    header.stamp.sec, header.stamp.nanosec = int(seconds), int(seconds % 1 * 1e9)
    return header


class Graph:
    """A tracker node in its own process, and a reference that hears nothing but the frames.

    Attributes:
        now: stamp of the newest good frame, seconds.
    """

    def __init__(self, process, client) -> None:
        self.process, self.client = process, client
        self.now = 1_700_000_000.0
        self._model = load_model("nano", device="cpu", image_size=IMAGE_SIZE)
        self._frames = 0
        make = client.node.create_publisher
        self._publishers = {
            TargetSelection: client.selections,
            Image: client.images,
            Point: make(Point, "image_mouse_left", QoSProfile(depth=100)),
            PointStamped: make(PointStamped, "clicked_point", QoSProfile(depth=100)),
            CameraInfo: make(CameraInfo, "camera_info", qos_profile_sensor_data),
        }
        wait_until(
            lambda: all(p.get_subscription_count() for p in self._publishers.values()),
            "the tracker's topics",
        )

    def say(self, messages) -> None:
        for message in messages:
            self._publishers[type(message)].publish(message)
            time.sleep(PAUSE)

    def select_protected(self) -> None:
        """Select the target anew, after all others are gone; in the reference too.

        Time goes on by so much that what was before says nothing about motion any more.
        """
        self._frames = 0
        self.now += 2.0**20
        mask = crossing.mask(1, 0)
        self.say([TargetSelection(action=TargetSelection.CLEAR)])
        self.client.select(target_id=PROTECTED, mask=mask_to_image(mask, Header()))
        self._quiet = StreamTracker(MosamTracker(self._model), BUFFER_SECONDS)
        self._expected = Prompt.from_mask(mask)

    def good_frame(self) -> Image:
        """The next one, in which the objects go to and fro."""
        there = self._frames % 20
        self._frames += 1
        self.now += STEP
        pixels = crossing.frame(min(there, 20 - there))
        return color_to_image(pixels, "rgb8", header_at(self.now))

    def answer(self, message: Image):
        """Publish a frame.

        Returns:
            The targets and label image that the node found, and the reference's result.
        """
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        both = self.client.answers, self.client.label_images
        for store in both:
            store.pop(stamp, None)
        self.client.images.publish(message)
        self._quiet.take(image_to_rgb(message), header_seconds(message.header))
        if self._expected is not None:
            self._quiet.select(self._expected, target_id=PROTECTED)
            self._expected = None
        result = self._quiet.track()
        wait_until(
            lambda: all(stamp in store for store in both),
            f"the answer to {message.width}x{message.height} {message.encoding} {message.header}",
            seconds=20,
        )
        return self.client.answers[stamp], self.client.labels(self.client.answers[stamp]), result

    def remove_others(self, targets) -> int:
        """Returns how many there were beside the protected one; the next frame has none of them."""
        others = [target.id for target in targets.targets if target.id != PROTECTED]
        self.say(
            TargetSelection(action=TargetSelection.REMOVE, target_id=target_id)
            for target_id in others
        )
        time.sleep(0.05)
        return len(others)

    def require_well(self) -> None:
        assert self.process.process.poll() is None, self.process.log[-2000:]
        errors = re.findall(r"^\[ERROR\].*|^Traceback.*", self.process.log, re.MULTILINE)
        assert not errors, errors[:5]


@pytest.fixture(scope="module")
def graph(start, client):
    parameters = {
        "device": "cpu",
        "image_size": IMAGE_SIZE,
        "catch_up_limit": 0.001,
        "num_threads": torch.get_num_threads(),  # the last bit depends on how many there are
    }
    process = start("tracker_node", **parameters)
    process.wait_for_log("active: waiting for images")
    client.wait_for_tracker()
    graph = Graph(process, client)
    yield graph
    assert process.interrupt() == 0
    assert "Traceback" not in process.log


def as_sent(result: FrameResult, header) -> list[TrackedTarget]:
    """What a node says of a result, with numbers as precise as on the wire."""
    return [
        deserialize_message(serialize_message(target), TrackedTarget)
        for target in targets_message(result, header).targets
    ]


def require_same(targets, labels: np.ndarray, result: FrameResult) -> bool:
    """The protected target is that of the run without garbage, to the last bit.

    Others may lie over its mask in the label image.

    Returns:
        Whether it is there, and TRACKED.
    """
    found = [target for target in targets.targets if target.id == PROTECTED]
    assert found == as_sent(result, targets.header)
    if not found:
        return False
    mask, seen = result.targets[0].mask, labels == PROTECTED
    assert not (seen & ~mask).any() and labels[mask].all()
    if len(targets.targets) == 1:
        assert np.array_equal(seen, mask)
    return found[0].state == TrackedTarget.TRACKED


def test_10000_random_messages_leave_the_other_target_as_it_is(graph):
    graph.select_protected()
    kinds, done = Counter(), Counter()
    heard = len(graph.process.log)

    @repeatable(BATCHES)
    @given(st.data())
    def every_batch(data):
        batch = data.draw(batches(graph.now, PER_BATCH))
        graph.say(batch)
        kinds.update(type(message).__name__ for message in batch)
        done["batches"] += 1
        for _ in range(1 + (done["batches"] % 4 == 0)):
            targets, labels, result = graph.answer(graph.good_frame())
            assert require_same(targets, labels, result), "it is in sight in every frame"
            others = graph.remove_others(targets)
            done["beside others" if others else "alone"] += 1

    every_batch()
    graph.require_well()
    assert sum(kinds.values()) >= BATCHES * PER_BATCH and len(kinds) == 5
    assert done["beside others"] > 20 and done["alone"] > 10, done
    said = kinds["TargetSelection"] + kinds["Point"] + kinds["PointStamped"]
    told = re.findall(
        r"selection (?:for .* )?ignored: | selected| removed| refined", graph.process.log[heard:]
    )
    assert len(told) > 0.8 * said, f"{len(told)} of {said}: most were heard, and each was told of"


def test_noise_with_any_stamp_is_a_frame_like_others(graph):
    """Noise is a frame, of any size: the target sees the same ones with garbage as without."""
    done = Counter()

    @repeatable(12)
    @given(st.data())
    def every_batch(data):
        graph.select_protected()
        assert require_same(*graph.answer(graph.good_frame()))
        for quarter in (0.25, 0.5):
            graph.say(data.draw(st.lists(selections(graph.now), max_size=3)))
            soon = header_at(graph.now + quarter * STEP).stamp
            require_same(*graph.answer(data.draw(usable_images(graph.now, soon))))
        done["there"] += require_same(*graph.answer(graph.good_frame()))

    every_batch()
    graph.require_well()
    assert done["there"] > 3, done


def test_after_random_clears_and_removals_a_target_is_tracked_as_ever(graph):
    @repeatable(6)
    @given(st.data())
    def every_batch(data):
        graph.say(data.draw(batches(graph.now, PER_BATCH, wild_selections(graph.now))))
        graph.select_protected()
        for _ in range(3):
            targets, labels, result = graph.answer(graph.good_frame())
            assert require_same(targets, labels, result)
            assert len(targets.targets) == 1

    every_batch()
    graph.require_well()
