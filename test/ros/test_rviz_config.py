"""config/tracker.rviz shows and sends what the running nodes publish and hear."""

from pathlib import Path

import pytest
import yaml
from ros_graph import wait_until

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from rcl_interfaces.srv import GetParameters  # noqa: E402

pytestmark = pytest.mark.ros

RVIZ = yaml.safe_load((Path(__file__).parents[2] / "config/tracker.rviz").read_text())
MANAGER = RVIZ["Visualization Manager"]
TYPES = {
    "rviz_default_plugins/Image": "sensor_msgs/msg/Image",
    "rviz_default_plugins/MarkerArray": "visualization_msgs/msg/MarkerArray",
    "rviz_default_plugins/PublishPoint": "geometry_msgs/msg/PointStamped",
}
NAMED = {
    part["Topic"]["Value"]: TYPES[part["Class"]]
    for part in MANAGER["Displays"] + MANAGER["Tools"]
    if "Topic" in part
}
LOCALIZER = {topic: kind for topic, kind in NAMED.items() if "/mosam_localizer/" in topic}
TRACKER = {topic: kind for topic, kind in NAMED.items() if topic not in LOCALIZER}


def wait_for_topics(client, wanted: dict[str, str]) -> None:
    """Wait until the nodes have every topic with its type."""

    def there() -> bool:
        topics = dict(client.node.get_topic_names_and_types())
        return all(kind in topics.get(name, []) for name, kind in wanted.items())

    wait_until(there, f"the topics {sorted(wanted)}")


def test_overlay_masks_markers_and_clicks_are_wired():
    assert set(TRACKER) == {"/mosam_tracker/overlay", "/mosam_tracker/masks", "/clicked_point"}
    assert set(LOCALIZER) == {"/mosam_localizer/markers"}
    assert all("Enabled" in display and display["Enabled"] for display in MANAGER["Displays"])


def test_the_cloud_is_of_what_the_nodes_hear(client, start):
    """The launch file remaps these for RViz as it does for the tracker and the localizer."""
    (cloud,) = (d for d in MANAGER["Displays"] if d["Class"].endswith("/DepthCloud"))
    heard = {cloud["Color Image Topic"], cloud["CameraInfo Topic"]}
    assert cloud["Depth Map Topic"] == "/depth"
    process = start("tracker_node")
    process.wait_for_log("active: waiting for images")
    kinds = {"/image": "sensor_msgs/msg/Image", "/camera_info": "sensor_msgs/msg/CameraInfo"}
    assert heard == kinds.keys()
    wait_for_topics(client, kinds)
    process.interrupt()


def test_the_tracker_has_the_topics(client, start):
    start("tracker_node").wait_for_log("active: waiting for images")
    wait_for_topics(client, TRACKER)


def test_the_localizer_has_the_topics(client, start):
    pytest.importorskip("message_filters", reason="the localizer needs message_filters")
    start("localizer_node")
    wait_for_topics(client, LOCALIZER)


@pytest.mark.parametrize("camera", ["camera_node", "turning_camera_node"])
def test_the_fixed_frame_is_that_of_the_demos_cameras(client, start, camera):
    process = start(camera)
    response = client.call(
        "camera/get_parameters", GetParameters, GetParameters.Request(names=["frame_id"])
    )
    process.interrupt()
    assert response.values[0].string_value == MANAGER["Global Options"]["Fixed Frame"]
