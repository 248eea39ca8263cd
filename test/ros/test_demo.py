"""The demo from its command line to its files."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from ros_graph import wait_until  # noqa: E402

from mosam_ros.demo import DemoError, DemoProcess, StopRequest, parse_arguments, watch  # noqa: E402

pytestmark = pytest.mark.ros

KEYS = {
    "source",
    "seed",
    "frames_sent",
    "frames_answered",
    "frames_dropped",
    "tracker_ms_p50",
    "tracker_ms_p99",
    "latency_ms_p50",
    "latency_ms_p99",
    "iou_visible",
    "iou_first_mask_repeated",
    "hidden_frames",
    "hidden_presence_correct",
    "forecasts",
    "forecast_iou",
    "last_box_iou",
}


def run_demo(*arguments: object, timeout: float = 300) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mosam_ros.demo", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "video.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (160, 120))
    for index in range(40):
        picture = np.full((120, 160, 3), 90, np.uint8)
        cv2.circle(picture, (60 + index // 2, 60), 20, (0, 0, 255), -1)
        writer.write(picture)
    writer.release()
    return path


@pytest.mark.slow
def test_a_synthetic_scene(tmp_path):
    done = run_demo("--frames", 60, "--rate", 5, "--output", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "frames answered" in done.stdout
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary.keys() == KEYS
    assert summary["frames_sent"] == 60
    assert summary["frames_answered"] + summary["frames_dropped"] == 60
    assert 0 < summary["iou_first_mask_repeated"] < 1
    assert 0.2 < summary["iou_visible"] <= 1
    assert summary["hidden_frames"] > 0
    assert summary["forecasts"] > 0
    assert 0 < summary["forecast_iou"] <= 1 and 0 < summary["last_box_iou"] <= 1
    assert summary["latency_ms_p50"] >= summary["tracker_ms_p50"] > 0
    assert cv2.imread(str(tmp_path / "contact_sheet.png")) is not None
    assert cv2.VideoCapture(str(tmp_path / "overlay.mp4")).read()[0]


@pytest.mark.slow
def test_a_video_with_a_box(tmp_path, video):
    done = run_demo("--video", video, "--box", "40 40 40 40", "--rate", 5, "--output", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["source"] == str(video) and summary["seed"] is None
    assert summary["frames_answered"] > 0
    assert summary["forecasts"] > 0 and summary["forecast_iou"] > 0.5
    assert summary["iou_visible"] is None and summary["hidden_presence_correct"] is None
    assert (tmp_path / "overlay.mp4").exists()


def processes(**programs: str) -> list[DemoProcess]:
    """Python programs that play the recorder, the tracker and the camera."""
    idle = "import time; time.sleep(60)"
    return [
        DemoProcess(
            name,
            subprocess.Popen(
                [sys.executable, "-c", programs.get(name, idle)], start_new_session=True
            ),
        )
        for name in ("recorder", "tracker", "camera")
    ]


@pytest.mark.parametrize(
    ("programs", "failure"),
    [
        ({"tracker": "raise SystemExit(3)"}, "the tracker ended with status 3"),
        ({"tracker": "pass"}, "the tracker ended with status 0"),
        ({"camera": "raise SystemExit(1)"}, "the camera ended with status 1"),
    ],
)
def test_a_process_that_dies_is_named(programs, failure):
    started = processes(**programs)
    try:
        with pytest.raises(DemoError, match=failure):
            watch(started, StopRequest())
    finally:
        for process in started:
            process.stop()
    assert all(process.process.poll() is not None for process in started)


def test_the_recorders_exit_status_is_the_demos():
    started = processes(recorder="raise SystemExit(7)", camera="pass")
    try:
        assert watch(started, StopRequest()) == 7
    finally:
        for process in started:
            process.stop()


def children(pid: int) -> list[int]:
    """Processes that this one has started."""
    return [int(x) for x in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_leaves_no_node_behind(number, tmp_path):
    command = [sys.executable, "-m", "mosam_ros.demo", "--output", str(tmp_path)]
    demo = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    try:
        nodes = wait_until(lambda: len(found := children(demo.pid)) == 3 and found, "three nodes")
        demo.send_signal(number)
        assert demo.wait(60) == 128 + number
        assert not [pid for pid in nodes if Path(f"/proc/{pid}").exists()]
    finally:
        demo.kill()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--video", "nowhere.mp4", "--box", "1 2 3 4"], "no video and no folder nowhere.mp4"),
        (["--video", "VIDEO"], "needs --box 'x y width height'"),
        (["--video", "VIDEO", "--box", "1", "2", "3"], "'1 2 3' is not 'x y width height'"),
        (["--video", "VIDEO", "--box", "200 0 10 10"], "outside the video of 160x120 pixels"),
        (["--box", "1 2 3 4"], "--box goes with --video"),
        (["--rate", "0"], "--rate is 0"),
    ],
)
def test_wrong_arguments_are_named_in_one_line(arguments, text, video, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments([str(video) if word == "VIDEO" else word for word in arguments])
    assert ended.value.code == 2
    complaint = capsys.readouterr().err
    assert text in complaint and len(complaint.splitlines()) == 1
