"""Transitions that fail half way: one reason in the log, nothing left over, and a second try. And
what only a look inside shows: the warm-up, PyTorch's threads, a failure that belongs to no frame.

The node is in this process, where the test takes its topics' names for other types first.
"""

import random

import crossing
import pytest
import torch
from ros_graph import wait_until

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from rclpy.lifecycle import TransitionCallbackReturn  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.time import Time  # noqa: E402
from std_msgs.msg import Header, String  # noqa: E402

from mosam_ros.mosam.catch_up import _CatchUp  # noqa: E402
from mosam_ros.mosam.tracker import MosamTracker  # noqa: E402
from mosam_ros.msg import TargetSelection  # noqa: E402
from mosam_ros.nodes import tracker_parameters  # noqa: E402
from mosam_ros.nodes.conversions import color_to_image  # noqa: E402
from mosam_ros.nodes.tracker_parameters import default_threads  # noqa: E402

pytestmark = pytest.mark.ros

SUCCESS = TransitionCallbackReturn.SUCCESS
OUTPUTS = [f"/mosam_tracker/{name}" for name in ("targets", "masks", "overlay")]


@pytest.fixture
def node():
    from mosam_ros.nodes.tracker_node import TrackerNode

    arguments = [a for text in ("autostart:=false", "image_size:=128") for a in ("-p", text)]
    rclpy.init(args=["--ros-args", *arguments], domain_id=random.randint(101, 200))
    node = TrackerNode()
    yield node
    node.destroy_node()
    rclpy.shutdown()


@pytest.fixture
def other(node):
    """A node that makes topics unusable for the tracker, as they have one type per process."""
    other = rclpy.create_node("other")
    yield other
    other.destroy_node()


def state(node) -> str:
    return node._state_machine.current_state[1]


def reasons(capfd, start: str) -> list[str]:
    """Lines of the log with a word of warning or worse."""
    lines = capfd.readouterr().err.splitlines()
    assert not [line for line in lines if "Traceback" in line]
    return [line for line in lines if "[ERROR]" in line and start in line]


def header(seconds: float) -> Header:
    return Header(stamp=Time(seconds=seconds).to_msg())


def answers(node, stamp: float = 0.0) -> int:
    """Frames answered after one more was sent."""
    before = node._statistics.answered
    node._on_image(color_to_image(crossing.frame(0), "rgb8", header(stamp)))
    wait_until(lambda: node._statistics.answered > before, "an answer")
    return node._statistics.answered


@pytest.mark.parametrize("topic", [OUTPUTS[0], OUTPUTS[2], "/diagnostics"])
def test_an_output_that_cannot_be_made_leaves_the_node_unconfigured(node, other, capfd, topic):
    taken = other.create_publisher(String, topic, 10)
    assert node.trigger_configure() != SUCCESS
    assert state(node) == "unconfigured"
    (reason,) = reasons(capfd, "not configured: ")
    assert topic in reason
    made = {"/diagnostics", *OUTPUTS} - {topic}
    assert [name for name in made if other.count_publishers(name)] == [], "nothing is left over"
    assert node._stream is None, "the model is freed"

    other.destroy_publisher(taken)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    assert answers(node) == 1


@pytest.mark.parametrize("topic", ["/image", "/clicked_point"])
def test_an_input_that_cannot_be_made_leaves_the_node_unconfigured(node, other, capfd, topic):
    taken = other.create_publisher(String, topic, 10)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() != SUCCESS
    assert state(node) == "unconfigured"
    (reason,) = reasons(capfd, "not activated, and not configured any more: ")
    assert topic in reason
    assert other.count_subscribers("/select") == other.count_publishers(OUTPUTS[0]) == 0
    assert node._worker is None

    other.destroy_publisher(taken)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS
    assert answers(node) == 1
    assert node.trigger_deactivate() == node.trigger_cleanup() == SUCCESS
    assert state(node) == "unconfigured"


def test_configuring_runs_every_stage_once(node, monkeypatch):
    warmed = []
    monkeypatch.setattr(MosamTracker, "warm_up", lambda tracker: warmed.append(tracker))
    assert node.trigger_configure() == SUCCESS
    assert len(warmed) == 1


def test_one_core_is_left_to_the_graph_unless_omp_num_threads_says_otherwise(node, monkeypatch):
    monkeypatch.setattr(tracker_parameters, "PYTORCH_THREADS", 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert default_threads() == 2
    monkeypatch.setattr(tracker_parameters, "PYTORCH_THREADS", 1)
    assert default_threads() == 1
    monkeypatch.setattr(tracker_parameters, "PYTORCH_THREADS", 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert default_threads() == 3
    before = torch.get_num_threads()
    try:
        set_threads_in_turn(node)
    finally:
        torch.set_num_threads(before)


def set_threads_in_turn(node):
    for asked, expected in ((1, 1), (0, 3)):
        node.set_parameters([Parameter("num_threads", value=asked)])
        assert node.trigger_configure() == SUCCESS
        assert torch.get_num_threads() == expected
        assert node.trigger_cleanup() == SUCCESS


def test_a_selection_of_the_past_that_fails_is_named_and_costs_no_frame(node, capfd, monkeypatch):
    assert node.trigger_configure() == node.trigger_activate() == SUCCESS
    assert answers(node, 1.0) == 1

    def fails(catch_up, *arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(_CatchUp, "step", fails)
    box = [100.0, 90.0, 60.0, 60.0]
    node._selector.put(TargetSelection(box=box, target_id=7, header=header(1.0)))
    assert answers(node, 1.2) == 2
    wait_until(lambda: not node._stream.catching_up, "the failure")
    (reason,) = reasons(capfd, "a selection of the past failed (RuntimeError: out of memory)")
    assert reason.endswith("select target 7 again")
    assert answers(node, 1.4) == 3
