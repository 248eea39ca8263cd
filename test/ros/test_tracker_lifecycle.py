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

from mosam_ros.mosam.checkpoints import WEIGHTS_FOLDER  # noqa: E402
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


def set_parameter(client, name: str, value) -> None:
    request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
    response = client.call("mosam_tracker/set_parameters", SetParameters, request)
    assert response.results[0].successful, response.results[0].reason


def test_what_cannot_be_configured_is_named_and_then_put_right(start, client, tmp_path):
    process = start("tracker_node", model="sam3_huge")
    process.wait_for_log("not configured: unknown model 'sam3_huge': use nano")
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
    assert change(client, Transition.TRANSITION_CONFIGURE)
    assert state(client) == "inactive"
    assert process.interrupt() == 0
    assert "Traceback" not in process.log


def test_a_managed_life(start, client):
    process = start("tracker_node", autostart=False)
    assert state(client) == "unconfigured"
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
