"""Which target the follower follows, and what it makes of the messages."""

import pytest

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from mosam_ros.following.controller import Motion  # noqa: E402
from mosam_ros.msg import TrackedTarget  # noqa: E402
from mosam_ros.nodes.follower_node import choose, twist  # noqa: E402

TARGETS = [
    TrackedTarget(id=2, state=TrackedTarget.LOST),
    TrackedTarget(id=4, state=TrackedTarget.TRACKED),
    TrackedTarget(id=5, state=TrackedTarget.TRACKED),
]


@pytest.mark.parametrize(
    ("wanted", "current", "chosen"),
    [
        (0, None, 4),  # the first one seen
        (0, 5, 5),  # stays
        (0, 2, 2),  # stays, though lost
        (0, 9, 4),  # gone: another
        (5, 4, 5),  # told to
        (9, 4, None),  # told to, but not there
    ],
)
def test_choice(wanted, current, chosen):
    target = choose(TARGETS, wanted, current)
    assert (target.id if target else None) == chosen


def test_without_targets_there_is_no_choice():
    assert choose([], 0, 3) is None


def test_a_command_has_the_axes_of_rep_103():
    message = twist(Motion(forward=0.3, turn=-0.5, tilt=0.1))
    assert (message.linear.x, message.linear.y, message.linear.z) == (0.3, 0, 0)
    assert (message.angular.x, message.angular.y, message.angular.z) == (0, 0.1, -0.5)
