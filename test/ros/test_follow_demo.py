"""A robot follows a target: camera, tracker, follower and recorder as processes, a closed loop."""

import json
import subprocess
import sys

import cv2
import pytest

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from mosam_ros.synthetic.turning_scene import DURATION  # noqa: E402

pytestmark = pytest.mark.ros


@pytest.mark.slow
def test_the_target_stays_in_the_middle_and_the_robot_stands_while_it_is_hidden(tmp_path):
    command = [sys.executable, "-m", "mosam_ros.demo", "--follow", "--output", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "within 15% of the center" in done.stdout
    summary = json.loads((tmp_path / "follow_summary.json").read_text())
    assert summary["frames_sent"] >= 10 * DURATION - 2
    assert summary["frames_answered"] >= 0.9 * summary["frames_sent"]
    assert summary["frames_judged"] > 0.6 * summary["frames_sent"]
    # The robot stands while the target is hidden, and has to notice that it is back.
    assert summary["near_center"] >= 0.85
    assert summary["mean_offset"] < 0.15
    assert summary["hidden_seconds"] > 1.0
    assert summary["hidden_commands"] > 0 and summary["stood_still"] is True
    # More than half of what the camera sees at once: it is no target that stays in view.
    assert summary["swept_degrees"] > 45
    assert cv2.VideoCapture(str(tmp_path / "follow.mp4")).read()[0]
    assert cv2.imread(str(tmp_path / "follow_contact_sheet.png")) is not None


def test_following_needs_a_camera_that_turns(capsys):
    from mosam_ros.demo import parse_arguments

    with pytest.raises(SystemExit) as ended:
        parse_arguments(["--follow", "--video", "a.mp4", "--box", "1 2 3 4"])
    assert ended.value.code == 2
    assert "--follow goes without --video" in capsys.readouterr().err
