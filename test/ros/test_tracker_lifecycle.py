"""The tracker node as a managed node: transitions by service, and what cannot be configured."""

import time

import numpy as np
import pytest

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from lifecycle_msgs.msg import Transition  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from mosam_ros.mosam.checkpoints import WEIGHTS_FOLDER  # noqa: E402
from mosam_ros.msg import TargetSelection  # noqa: E402
from mosam_ros.nodes.conversions import mask_to_image  # noqa: E402

pytestmark = pytest.mark.ros

PICTURE = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
MASK = np.zeros((240, 320), bool)
MASK[60:140, 100:200] = True


def change(client, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return client.call("mosam_tracker/change_state", ChangeState, request).success


def state(client) -> str:
    response = client.call("mosam_tracker/get_state", GetState, GetState.Request())
    return response.current_state.label


def try_to_set(client, name: str, value) -> str:
    """Set a parameter; returns the reason why it could not be set, empty if it could."""
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    (result,) = client.call("mosam_tracker/set_parameters", SetParameters, request).results
    return "" if result.successful else result.reason or "no reason given"


def set_parameter(client, name: str, value) -> None:
    assert not try_to_set(client, name, value)


def test_what_cannot_be_configured_is_named_and_then_put_right(start, client, tmp_path):
    process = start("tracker_node", model="sam3_huge")
    process.wait_for_log("not configured: model: it is 'sam3_huge': use one of nano, ")
    assert state(client) == "unconfigured"

    set_parameter(client, "model", "nano")
    set_parameter(client, "checkpoint", str(tmp_path / "missing.pt"))
    assert not change(client, Transition.TRANSITION_CONFIGURE)
    process.wait_for_log(f"not configured: cannot read the checkpoint {tmp_path}/missing.pt")

    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes((WEIGHTS_FOLDER / "nano.pt").read_bytes()[:100_000])
    set_parameter(client, "checkpoint", str(truncated))
    assert not change(client, Transition.TRANSITION_CONFIGURE)
    process.wait_for_log("truncated.pt (100000 bytes) is truncated")
    assert state(client) == "unconfigured"

    set_parameter(client, "checkpoint", "")
    set_parameter(client, "device", "tpu:0")
    assert not change(client, Transition.TRANSITION_CONFIGURE)
    process.wait_for_log("not configured: ")

    set_parameter(client, "device", "auto")
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert state(client) == "inactive"
    assert process.interrupt() == 0
    assert "Traceback" not in process.log


def test_what_is_wrong_from_the_start_is_named_and_in_nobodys_way(start, client):
    """Each wrong value is named when the node configures; the other parameters can be set."""
    wrong = {"click_on_target": "kick", "motion.flow": "lucas", "image_transport": "pigeon"}
    process = start("tracker_node", **wrong)
    process.wait_for_log("not configured: ")
    for name, value in wrong.items():
        assert f"{name}: it is '{value}': use one of " in process.log
    assert process.log.count("not configured: ") == 1

    set_parameter(client, "memory.window", 20)
    set_parameter(client, "lost_after", 5)
    set_parameter(client, "image_transport", "raw")
    set_parameter(client, "motion.flow", "dis")
    before = len(process.log)
    assert not change(client, Transition.TRANSITION_CONFIGURE)
    process.wait_for_log("not configured: click_on_target: it is 'kick'", after=before)
    assert "lucas" not in process.log[before:]
    set_parameter(client, "click_on_target", "refine")
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert state(client) == "inactive"
    assert process.interrupt() == 0
    assert "Traceback" not in process.log


def test_what_cannot_be_activated_is_named_and_leaves_the_node_unconfigured(start, client):
    """The override is wrong, which turns out where the images are subscribed to."""
    override = "qos_overrides./image.subscription.reliability"
    process = start("tracker_node", **{override: "sometimes"})
    process.wait_for_log("not activated, and not configured any more: ")
    assert "Unexpected QoS override for policy `reliability`: `sometimes`" in process.log
    assert state(client) == "unconfigured"
    assert client.images.get_subscription_count() == 0
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert state(client) == "inactive"
    assert process.interrupt() == 0
    assert "Traceback" not in process.log


def test_a_managed_life(start, client):
    process = start("tracker_node", autostart=False)
    assert state(client) == "unconfigured"
    assert "range" in try_to_set(client, "memory.iou_threshold", 1.5)
    assert "valid step" in try_to_set(client, "motion.num_key_points", 4)
    assert "use one of dis, raft, feature" in try_to_set(client, "motion.flow", "lucas")
    set_parameter(client, "motion.num_key_points", 9)
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert state(client) == "inactive"
    assert client.images.get_subscription_count() == 0

    assert change(client, Transition.TRANSITION_ACTIVATE)
    client.wait_for_tracker()
    client.select(target_id=5, mask=mask_to_image(MASK, client.header()))
    assert [target.id for target in client.track(PICTURE).targets] == [5]

    assert change(client, Transition.TRANSITION_DEACTIVATE)
    unanswered = client.send(PICTURE)
    time.sleep(1.0)
    assert unanswered not in client.answers

    assert change(client, Transition.TRANSITION_ACTIVATE)
    client.wait_for_tracker()
    assert [target.id for target in client.track(PICTURE).targets] == [5], "targets were kept"

    assert client.call("mosam_tracker/clear", Trigger, Trigger.Request()).success
    assert change(client, Transition.TRANSITION_DEACTIVATE)
    assert change(client, Transition.TRANSITION_ACTIVATE)
    client.wait_for_tracker()
    assert not client.track(PICTURE).targets, "they were cleared, though no frame came after that"
    client.select(target_id=6, mask=mask_to_image(MASK, client.header()))
    assert [target.id for target in client.track(PICTURE).targets] == [6]

    assert change(client, Transition.TRANSITION_DEACTIVATE)
    assert change(client, Transition.TRANSITION_CLEANUP)
    assert state(client) == "unconfigured"
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert change(client, Transition.TRANSITION_ACTIVATE)
    client.wait_for_tracker()
    assert not client.track(PICTURE).targets, "a clean-up frees the targets"

    assert change(client, Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert state(client) == "finalized"
    assert process.interrupt() == 0
    assert "Traceback" not in process.log


def test_what_waits_for_a_frame_when_the_node_is_deactivated_is_done_or_told(start, client):
    process = start("tracker_node")
    process.wait_for_log("active: waiting for images")
    client.wait_for_tracker()
    for target_id in (4, 5):
        client.select(target_id=target_id, mask=mask_to_image(MASK, client.header()))
    assert [target.id for target in client.track(PICTURE).targets] == [4, 5]
    client.select(action=TargetSelection.REMOVE, target_id=4)
    client.select(action=TargetSelection.REMOVE, target_id=8)
    client.select(target_id=6, mask=mask_to_image(MASK, client.header()))
    assert change(client, Transition.TRANSITION_DEACTIVATE)
    process.wait_for_log("selection for target 8 ignored: there is no target 8")
    process.wait_for_log("1 selection(s) dropped that waited for a frame")
    assert change(client, Transition.TRANSITION_ACTIVATE)
    client.wait_for_tracker()
    assert [target.id for target in client.track(PICTURE).targets] == [5]
    assert process.interrupt() == 0
    assert "Traceback" not in process.log


def test_a_parameter_that_cannot_be_used_is_named_at_the_start(start):
    process = start("tracker_node", lost_after=0)
    assert process.wait_for_end() == 2
    assert "a parameter cannot be used:" in process.log and "range" in process.log
    assert "Traceback" not in process.log
