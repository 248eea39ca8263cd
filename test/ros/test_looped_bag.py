"""The tracker on simulated time, as `ros2 bag play --clock --loop` gives it."""

import time

import numpy as np
import pytest

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from builtin_interfaces.msg import Time  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from ros_graph import wait_until  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402

from mosam_ros.nodes.conversions import mask_to_image  # noqa: E402

pytestmark = pytest.mark.ros

PICTURE = np.random.default_rng(0).integers(0, 255, (240, 320, 3)).astype(np.uint8)
MASK = np.zeros((240, 320), bool)
MASK[60:140, 100:200] = True
LAP = [10**9 * half // 2 for half in range(200, 206)]


def test_a_looped_bag_clears_the_targets_once_a_lap(start, client):
    clock = client.node.create_publisher(Clock, "/clock", 10)
    heard = []
    client.node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
    process = start("tracker_node", use_sim_time=True)
    process.wait_for_log("active: waiting for images")
    client.wait_for_tracker()

    def play(stamp: int) -> list[int]:
        clock.publish(Clock(clock=Time(sec=stamp // 10**9, nanosec=stamp % 10**9)))
        client.answers.clear()
        client.label_images.clear()
        return [target.id for target in client.track(PICTURE, stamp).targets]

    for lap in range(3):
        before = len(process.log)
        assert play(LAP[0]) == []
        if lap:
            process.wait_for_log("jumped back by 2.5 s: all targets are cleared", after=before)
        client.select(target_id=lap + 1, mask=mask_to_image(MASK, client.header(LAP[1])))
        assert [play(stamp) for stamp in LAP[1:]] == [[lap + 1]] * (len(LAP) - 1)
        assert process.log[before:].count("jumped back") == bool(lap)

    count, now = len(heard), time.monotonic()
    wait_until(lambda: len(heard) >= count + 2, "diagnostics while the clock stands still", 10)
    assert time.monotonic() - now < 10
    assert process.interrupt() == 0
    assert "Traceback" not in process.log
