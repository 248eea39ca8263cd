"""What `ros2 launch` would start: every process is replaced by `echo`, its command line is read."""

import os
from pathlib import Path

import pytest
import yaml

pytest.importorskip("launch_ros", reason="launch and launch_ros come with a ROS 2 installation")
launch = pytest.importorskip("launch")

from launch import actions  # noqa: E402
from launch.event_handlers import OnProcessStart  # noqa: E402
from launch.launch_description_sources import PythonLaunchDescriptionSource  # noqa: E402

from mosam_ros import dds  # noqa: E402

LAUNCH = Path(__file__).parents[1] / "launch"


@pytest.fixture
def started(monkeypatch):
    """Return a function that runs a launch file and gives the event of each process's start."""
    for variable in dds.VARIABLES:
        monkeypatch.setenv(variable, "")

    def run(name: str, **arguments: str) -> dict:
        events = {}

        def note(event, context):
            executable = next(part for part in event.cmd if "/lib/" in part)
            events[Path(executable).name] = event

        service = launch.LaunchService()
        service.include_launch_description(
            launch.LaunchDescription(
                [
                    actions.RegisterEventHandler(OnProcessStart(on_start=note)),
                    actions.SetLaunchConfiguration("launch-prefix", "echo"),
                    actions.IncludeLaunchDescription(
                        PythonLaunchDescriptionSource(str(LAUNCH / name)),
                        launch_arguments=arguments.items(),
                    ),
                ]
            )
        )
        assert service.run() == 0
        return events

    return run


def parameters(event) -> dict:
    """Merge the parameter files on the command line as the node does: later ones win."""
    merged = {}
    for flag, path in zip(event.cmd, event.cmd[1:], strict=False):
        if flag == "--params-file":
            for node in yaml.safe_load(Path(path).read_text()).values():
                merged |= node["ros__parameters"]
    return merged


def test_the_tracker_starts_alone_with_the_default_parameters(started):
    events = started("tracker.launch.py")
    assert list(events) == ["tracker_node"]
    command = events["tracker_node"].cmd
    assert "__node:=mosam_tracker" in command
    assert "image:=image" in command and "select:=select" in command
    assert "camera_info:=camera_info" in command
    defaults = yaml.safe_load((LAUNCH.parent / "config/tracker.yaml").read_text())
    assert parameters(events["tracker_node"]) == defaults["/**"]["ros__parameters"]


def test_arguments_reach_the_tracker(started):
    event = started(
        "tracker.launch.py",
        image="/camera/image_raw",
        select="/operator/select",
        namespace="robot",
        model="sam2.1_hiera_tiny",
        checkpoint="/data/weights.pt",
    )["tracker_node"]
    assert "image:=/camera/image_raw" in event.cmd and "select:=/operator/select" in event.cmd
    assert "__ns:=/robot" in event.cmd
    assert parameters(event)["model"] == "sam2.1_hiera_tiny"
    assert parameters(event)["checkpoint"] == "/data/weights.pt"


def test_a_depth_topic_starts_the_localizer(started):
    events = started(
        "tracker.launch.py", depth="/camera/depth", camera_info="/camera/info", namespace="robot"
    )
    assert sorted(events) == ["localizer_node", "tracker_node"]
    event = events["localizer_node"]
    assert "depth:=/camera/depth" in event.cmd and "camera_info:=/camera/info" in event.cmd
    assert "__node:=mosam_localizer" in event.cmd and "__ns:=/robot" in event.cmd
    assert "camera_info:=/camera/info" in events["tracker_node"].cmd
    defaults = yaml.safe_load((LAUNCH.parent / "config/localizer.yaml").read_text())
    assert parameters(event) == defaults["/**"]["ros__parameters"]


@pytest.mark.parametrize(
    ("image", "lens"),
    [
        ("/camera/image_raw", "/camera/camera_info"),
        ("camera/color/image_raw", "camera/color/camera_info"),
        ("/image", "/camera_info"),
        ("image", "camera_info"),
    ],
)
def test_the_lens_is_beside_the_image(started, image, lens):
    events = started("tracker.launch.py", image=image, depth="/camera/depth")
    assert sorted(events) == ["localizer_node", "tracker_node"]
    for event in events.values():
        assert f"camera_info:={lens}" in event.cmd


@pytest.mark.parametrize("name", ["tracker.launch.py", "demo.launch.py"])
def test_simulated_time_is_every_nodes_or_nobodys(started, name):
    for event in started(name, depth="/depth", use_sim_time="true").values():
        assert "use_sim_time:=True" in event.cmd
    for event in started(name, depth="/depth").values():
        assert not any("use_sim_time" in part for part in event.cmd)


def test_a_parameters_file_of_the_users_own_is_not_overruled(started, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("/**:\n  ros__parameters:\n    model: sam2.1_hiera_large\n")
    event = started("tracker.launch.py", params_file=str(path))["tracker_node"]
    assert parameters(event) == {"model": "sam2.1_hiera_large"}


def test_the_demo_starts_camera_tracker_and_recorder_on_the_same_topics(started):
    events = started("demo.launch.py", image="/cam", select="/pick")
    assert sorted(events) == ["camera_node", "demo_recorder", "tracker_node"]
    assert "__node:=camera" in events["camera_node"].cmd
    assert all("image:=/cam" in event.cmd for event in events.values())
    assert "select:=/pick" in events["tracker_node"].cmd
    assert "select:=/pick" in events["demo_recorder"].cmd


def test_every_process_gets_the_dds_profile(started):
    for event in started("demo.launch.py").values():
        for variable in dds.VARIABLES:
            assert event.env[variable] == str(dds.large_image_profile())


def test_a_dds_profile_of_the_users_own_stays(started, monkeypatch):
    monkeypatch.setenv(dds.VARIABLES[0], "mine.xml")
    event = started("tracker.launch.py")["tracker_node"]
    assert event.env[dds.VARIABLES[0]] == "mine.xml"
    assert not event.env[dds.VARIABLES[1]]


def test_rviz_is_shown_the_topics_that_the_nodes_hear(started, tmp_path, monkeypatch):
    (tmp_path / "share/ament_index/resource_index/packages").mkdir(parents=True)
    (tmp_path / "share/ament_index/resource_index/packages/rviz2").touch()
    (tmp_path / "lib/rviz2").mkdir(parents=True)
    (tmp_path / "lib/rviz2/rviz2").touch(mode=0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path), prepend=os.pathsep)

    command = started("tracker.launch.py", rviz="true", image="/cam/image", depth="/cam/depth")[
        "rviz2"
    ].cmd
    assert command[command.index("-d") + 1].endswith("config/tracker.rviz")
    for heard in ("/image:=/cam/image", "/depth:=/cam/depth", "/camera_info:=/cam/camera_info"):
        assert heard in command
    assert "rviz2" not in started("tracker.launch.py")
