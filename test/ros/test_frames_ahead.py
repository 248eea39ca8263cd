"""The demo's camera prepares frames before they are due."""

import threading

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from ros_graph import wait_until  # noqa: E402

from mosam_ros.frame_sources import CameraFrame  # noqa: E402
from mosam_ros.nodes.camera_node import _FramesAhead  # noqa: E402

FRAME = CameraFrame(np.zeros((2, 2, 3), np.uint8), "rgb8")


def test_a_scene_is_not_played_before_the_wanted_frames_are_there():
    go_on = threading.Event()

    def frames():
        yield from [FRAME] * 40
        go_on.wait()
        yield from [FRAME] * 40

    ahead = _FramesAhead(frames(), wanted=60)
    wait_until(lambda: ahead._queue.qsize() == 40, "the first frames")
    assert not ahead.ready
    go_on.set()
    wait_until(lambda: ahead.ready, "the wanted frames")


def test_a_source_with_fewer_frames_is_played_as_it_is():
    ahead = _FramesAhead(iter([FRAME] * 3), wanted=60)
    wait_until(lambda: ahead.ready, "the end of the source")
    assert [ahead.next() for _ in range(4)] == [FRAME] * 3 + [None]
