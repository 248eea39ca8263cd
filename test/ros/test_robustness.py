"""What a deployed tracker meets: silent cameras, QoS that does not match, live changes."""

import time

import crossing
import pytest
from ros_graph import wait_until

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402

from mosam_ros.msg import TrackedTarget  # noqa: E402
from mosam_ros.nodes.conversions import mask_to_image  # noqa: E402

pytestmark = pytest.mark.ros

STILL = crossing.frame(0)


def start_tracker(start, client, **parameters):
    process = start("tracker_node", **parameters)
    process.wait_for_log("active: waiting for images")
    client.wait_for_tracker()
    return process


def refusal(client, name: str, value) -> str:
    """Set a parameter; returns the reason why it could not be set, empty if it could."""
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    (result,) = client.call("mosam_tracker/set_parameters", SetParameters, request).results
    return "" if result.successful else result.reason or "no reason given"


def change(client, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return client.call("mosam_tracker/change_state", ChangeState, request).success


@pytest.fixture
def diagnostics(client):
    """What comes on /diagnostics from now on, as (level, message, values)."""
    received = []

    def keep(array):
        (status,) = array.status
        values = {value.key: value.value for value in status.values}
        received.append((status.level, status.message, values))

    subscription = client.node.create_subscription(DiagnosticArray, "/diagnostics", keep, 10)
    yield received
    client.node.destroy_subscription(subscription)


def test_a_camera_that_falls_silent_is_named_and_so_is_its_return(start, client, diagnostics):
    process = start_tracker(start, client, stall_after=2.0)
    client.select(target_id=1, mask=mask_to_image(crossing.mask(0, 0), client.header()))
    client.track(STILL)
    tracked = len(process.log)
    process.wait_for_log("no image on /image for", after=tracked)
    said = process.log.index("no image on /image for", tracked)
    wait_until(
        lambda: (
            diagnostics[-1][0] == DiagnosticStatus.WARN and "targets lost" in diagnostics[-1][2]
        ),
        "a warning level, with the target",
    )
    assert diagnostics[-1][1].startswith("no image for ")
    values = diagnostics[-1][2]
    assert (values["targets tracked"], values["targets lost"]) == ("1", "0")
    assert values["targets catching up"] == "0"
    assert float(values["target memory (MB)"]) > 0.0 and float(values["frames kept (MB)"]) > 0.0
    time.sleep(2.5)
    assert process.log.count("no image on /image for", tracked) == 1, "a silence is told once"
    assert client.track(STILL).targets
    process.wait_for_log("images come again, after", after=said)
    wait_until(lambda: diagnostics[-1][0] == DiagnosticStatus.OK, "an OK")
    assert process.interrupt() == 0


def test_a_camera_whose_qos_does_not_match_is_named_with_the_policy(start, client):
    """The client's camera is best effort; this tracker asks for more."""
    process = start("tracker_node", **{"qos_overrides./image.subscription.reliability": "reliable"})
    process.wait_for_log("a camera on /image cannot be heard: it offers less RELIABILITY than")
    process.wait_for_log("qos_overrides./image.subscription.reliability to what it offers")
    time.sleep(1.0)
    assert process.log.count("cannot be heard") == 1
    assert "Traceback" not in process.log
    assert process.interrupt() == 0


def test_an_override_of_one_topic_leaves_the_others_as_they_are(start, client):
    overrides = {
        "qos_overrides./image.subscription.reliability": "reliable",
        "qos_overrides./mosam_tracker/masks.publisher.durability": "transient_local",
    }
    process = start("tracker_node", **overrides)
    process.wait_for_log("active: waiting for images")
    node = client.node

    def asked(topic: str) -> str:
        (there,) = wait_until(lambda: node.get_subscriptions_info_by_topic(topic), topic)
        return there.qos_profile.reliability.name

    def offered(topic: str) -> str:
        (there,) = wait_until(lambda: node.get_publishers_info_by_topic(topic), topic)
        return there.qos_profile.durability.name

    assert (asked("/image"), asked("/camera_info")) == ("RELIABLE", "BEST_EFFORT")
    masks, targets = offered("/mosam_tracker/masks"), offered("/mosam_tracker/targets")
    assert (masks, targets) == ("TRANSIENT_LOCAL", "VOLATILE")
    assert process.interrupt() == 0


@pytest.mark.parametrize("matches", [False, True])
def test_a_subscriber_that_asks_for_what_came_before_is_told_of_or_served(start, client, matches):
    """Publishers are volatile unless they are told otherwise; then who comes late gets the last."""
    override = "qos_overrides./mosam_tracker/masks.publisher.durability"
    process = start_tracker(start, client, **({override: "transient_local"} if matches else {}))
    stamp = client.track(STILL).header.stamp
    received = []
    asked = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    subscription = client.node.create_subscription(
        Image, "mosam_tracker/masks", received.append, asked
    )
    told = "a subscriber of /mosam_tracker/masks hears nothing: it asks for more DURABILITY than"
    if matches:
        wait_until(lambda: received, "the last mask")
        assert received[0].header.stamp == stamp
        assert told not in process.log
    else:
        process.wait_for_log(told)
        assert f"the parameter {override} set to what it asks for" in process.log
        client.track(STILL)
        time.sleep(1.0)
        assert not received
        assert process.log.count("hears nothing") == 1
    client.node.destroy_subscription(subscription)
    assert process.interrupt() == 0
    assert "Traceback" not in process.log


def test_parameters_change_live_or_are_refused_with_the_reason(start, client):
    process = start_tracker(start, client)
    client.select(target_id=3, mask=mask_to_image(crossing.mask(0, 0), client.header()))
    client.track(STILL)
    assert not refusal(client, "model", "nano"), "as it is"
    other = "sam2.1_hiera_tiny"
    assert "needs reconfigure: deactivate, cleanup" in refusal(client, "model", other)
    assert "needs reconfigure" in refusal(client, "memory.window", 20)
    assert "use one of remove, refine" in refusal(client, "click_on_target", "kick")
    assert "range" in refusal(client, "memory.iou_threshold", 1.5)
    assert "read-only" in refusal(client, "autostart", False)
    assert "type" in refusal(client, "lost_after", "soon").lower()

    assert not refusal(client, "lost_after", 2)
    gray = STILL // 255 + 90
    states = [client.track(gray).targets[0].state for _ in range(5)]
    assert states[-1] == TrackedTarget.LOST, "after two frames, not thirty"
    assert states[0] == TrackedTarget.OCCLUDED

    assert change(client, Transition.TRANSITION_DEACTIVATE)
    assert "needs reconfigure" in refusal(client, "memory.window", 20)
    assert change(client, Transition.TRANSITION_CLEANUP)
    assert not refusal(client, "memory.window", 20)
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert process.interrupt() == 0
    assert "Traceback" not in process.log


def resident_bytes(process) -> int:
    """Memory of a process that is in use."""
    with open(f"/proc/{process.process.pid}/smaps_rollup") as lines:
        (line,) = [line for line in lines if line.startswith("Pss:")]
    return int(line.split()[1]) * 1024


def test_ten_lives_take_no_more_memory_than_two(start, client):
    process = start_tracker(start, client)
    down = (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP)
    up = (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE)
    used = []
    for _ in range(10):
        client.wait_for_tracker()
        client.select(target_id=1, mask=mask_to_image(crossing.mask(0, 0), client.header()))
        assert [target.id for target in client.track(STILL).targets] == [1]
        for transition in (*down, *up):
            assert change(client, transition)
        used.append(resident_bytes(process))
    client.wait_for_tracker()
    assert not client.track(STILL).targets, "a clean-up freed them"
    growth = used[-1] - used[1]
    assert growth < 40e6, f"grew by {growth / 1e6:.1f} MB: {[round(u / 1e6) for u in used]}"
    assert process.interrupt() == 0
    assert "Traceback" not in process.log
