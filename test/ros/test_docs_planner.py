"""The planner of docs/planner.md, exactly as it stands there, beside the real tracker."""

import re
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from ros_graph import NodeProcess, wait_until

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from mosam_ros.msg import TrackedTarget  # noqa: E402
from mosam_ros.synthetic import TARGET, SceneConfig, SyntheticScene  # noqa: E402

pytestmark = pytest.mark.ros

PAGE = Path(__file__).parents[2] / "docs/planner.md"
REACTION = 0.1
SCENE = SyntheticScene(
    33,
    SceneConfig(
        240,
        320,
        num_frames=16,
        num_objects=1,
        num_lookalikes=0,
        size=(0.3, 0.4),
        speed=0.012,
        camera_motion=0.0,
        clutter=0,
    ),
)
"""Its target goes up and to the right."""

LINE = re.compile(r"target 1: aim at (\S+) (\S+), give or take (\S+) px; seen (\S+) s ago")


@pytest.fixture(scope="module")
def planner(domain, tmp_path_factory):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    folder = tmp_path_factory.mktemp("planner")
    program = folder / "planner.py"
    program.write_text(blocks[0])
    process = NodeProcess([str(program)], domain, folder / "planner.log")
    yield process
    process.kill()


@pytest.fixture(scope="module")
def tracker(client, start, planner):
    start("tracker_node").wait_for_log("active: waiting for images")
    client.wait_for_tracker()
    wait_until(lambda: client.node.count_subscribers("mosam_tracker/targets") >= 2, "the planner")
    return client


def test_it_aims_at_where_the_target_will_be(tracker, planner):
    tracker.track(SCENE.frame(0).image)
    box = cv2.boundingRect(SCENE.frame(0).masks[TARGET].astype(np.uint8))
    tracker.select(box=[float(value) for value in box])
    answers = []
    for index in range(len(SCENE)):
        answers.append(tracker.track(SCENE.frame(index).image))
        time.sleep(0.05)
    lines = wait_until(
        lambda: (found := LINE.findall(planner.log)) and len(found) >= len(SCENE) and found,
        "a line for every frame",
    )
    assert lines[0][2] == "inf"
    for answer, line in zip(answers[-5:], lines[-5:], strict=True):
        x, y, spread, age = map(float, line)
        check_aim(answer, x, y, spread, age)
    truth = np.argwhere(SCENE.frame(len(SCENE) - 1).masks[TARGET]).mean(0)[::-1]
    seen = answers[-1].targets[0].centroid
    assert np.hypot(*(truth - (seen.x, seen.y))) < 10
    assert x > seen.x and y < seen.y


def check_aim(answer, x: float, y: float, spread: float, age: float) -> None:
    """It is the forecast of the same answer, carried on to when the robot reacts."""
    forecast, stamp = answer.targets[0].motion_prompt, answer.header.stamp
    assert forecast.valid
    interval = forecast.predicted_stamp.sec - stamp.sec
    interval += (forecast.predicted_stamp.nanosec - stamp.nanosec) / 1e9
    ahead = age - interval + REACTION
    point, velocity = forecast.key_points[0], forecast.velocity
    assert x == pytest.approx(point.x + velocity.x * ahead, abs=0.3)
    assert y == pytest.approx(point.y + velocity.y * ahead, abs=0.3)
    assert spread == pytest.approx(forecast.uncertainty, abs=0.06)
    assert 0 < age < 60


def test_it_waits_for_a_hidden_target(tracker, planner):
    wall = np.full_like(SCENE.frame(0).image, 90)
    for _ in range(10):
        answer = tracker.track(wall)
        if answer.targets[0].state != TrackedTarget.TRACKED:
            break
    wait_until(lambda: "target 1 is hidden: wait" in planner.log, "the planner to notice")
