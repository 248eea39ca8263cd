"""The localizer in a process of its own, with the message_filters that is installed."""

import importlib.util
import threading
import time

import numpy as np
import pytest

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from geometry_msgs.msg import PoseArray  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, qos_profile_sensor_data  # noqa: E402
from ros_graph import NodeProcess, wait_until  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from mosam_ros.dds import use_large_image_profile  # noqa: E402
from mosam_ros.msg import (  # noqa: E402
    TargetPositionArray,
    TrackedTarget,
    TrackedTargetArray,
)
from mosam_ros.nodes.conversions import labels_to_image  # noqa: E402

pytestmark = pytest.mark.ros

HAS_FILTERS = importlib.util.find_spec("message_filters") is not None
needs_filters = pytest.mark.skipif(not HAS_FILTERS, reason="message_filters is not installed")

WIDTH, HEIGHT, FOCAL = 320, 240, 300.0
BOX = (slice(80, 160), slice(200, 260))
DISTANCE = 2.0
PLACE = np.array([(229.5 - 160) / FOCAL, (119.5 - 120) / FOCAL, 1.0]) * DISTANCE


class Sensors:
    """Publishes what tracker and depth camera would, and keeps the positions."""

    def __init__(self, domain: int) -> None:
        use_large_image_profile()
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("test_sensors", context=self.context)
        reliable = QoSProfile(depth=10)
        self.masks = self.node.create_publisher(Image, "mosam_tracker/masks", reliable)
        self.targets = self.node.create_publisher(
            TrackedTargetArray, "mosam_tracker/targets", reliable
        )
        self.depth = self.node.create_publisher(Image, "depth", qos_profile_sensor_data)
        self.info = self.node.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
        self.found: dict[int, TargetPositionArray] = {}
        self.poses: list[PoseArray] = []
        self.markers: list = []
        self._listen(reliable)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._thread = threading.Thread(target=self.executor.spin, daemon=True)
        self._thread.start()
        everything = self.masks, self.targets, self.depth, self.info
        wait_until(lambda: all(p.get_subscription_count() for p in everything), "the localizer")
        time.sleep(0.5)

    def _listen(self, qos: QoSProfile) -> None:
        def keep(message: TargetPositionArray) -> None:
            stamp = message.header.stamp
            self.found[stamp.sec * 10**9 + stamp.nanosec] = message

        self.node.create_subscription(TargetPositionArray, "mosam_localizer/positions", keep, qos)
        self.node.create_subscription(PoseArray, "mosam_localizer/poses", self.poses.append, qos)
        if importlib.util.find_spec("visualization_msgs"):
            from visualization_msgs.msg import MarkerArray

            self.node.create_subscription(
                MarkerArray, "mosam_localizer/markers", self.markers.append, qos
            )

    def close(self) -> None:
        self.executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def header(self, stamp: int) -> Header:
        header = Header(frame_id="lens")
        header.stamp.sec, header.stamp.nanosec = divmod(stamp, 10**9)
        return header

    def send(self, stamp: int, encoding: str = "16UC1", late: int = 0, z=DISTANCE) -> None:
        """One frame; the depth is stamped `late` ns later than the masks and sent before them."""
        depth = np.full((HEIGHT, WIDTH), 5.0)
        depth[BOX] = z
        invalid = np.random.default_rng(0).random(depth.shape) < 0.3
        if encoding == "16UC1":
            pixels = np.where(invalid, 0, 1000 * depth).astype(np.uint16)
        else:
            pixels = np.where(invalid, np.nan, depth).astype(np.float32)
        message = Image(header=self.header(stamp + late), height=HEIGHT, width=WIDTH)
        message.encoding, message.step = encoding, pixels.strides[0]
        message.data = pixels.tobytes()
        self.depth.publish(message)
        k = [FOCAL, 0.0, 160.0, 0.0, FOCAL, 120.0, 0.0, 0.0, 1.0]
        self.info.publish(
            CameraInfo(header=self.header(stamp + late), width=WIDTH, height=HEIGHT, k=k)
        )
        self.send_tracked(stamp)

    def send_tracked(self, stamp: int) -> None:
        """The tracker's part of a frame."""
        labels = np.zeros((HEIGHT, WIDTH), np.uint16)
        labels[BOX] = 7
        box = RegionOfInterest(x_offset=200, y_offset=80, width=60, height=80)
        hidden = TrackedTarget(id=9, state=TrackedTarget.OCCLUDED)
        self.targets.publish(
            TrackedTargetArray(
                header=self.header(stamp),
                targets=[TrackedTarget(id=7, label="cup", box=box), hidden],
            )
        )
        self.masks.publish(labels_to_image(labels, self.header(stamp)))

    def locate(self, stamp: int, **changes) -> TargetPositionArray:
        self.send(stamp, **changes)
        wait_until(lambda: stamp in self.found, "positions", seconds=20)
        return self.found[stamp]


@pytest.fixture(scope="module")
def localizer(start):
    return start("localizer_node", patience=2.0)


@pytest.fixture(scope="module")
def sensors(domain, localizer):
    sensors = Sensors(domain)
    yield sensors
    sensors.close()


@pytest.mark.skipif(HAS_FILTERS, reason="message_filters is installed")
def test_without_message_filters_it_says_what_to_install_and_ends(start):
    localizer = start("localizer_node")
    assert localizer.wait_for_end() == 2
    assert "needs message_filters" in localizer.log and "sudo apt install" in localizer.log
    assert "Traceback" not in localizer.log


@needs_filters
def test_a_tracker_that_has_not_published_yet_is_waited_for_in_patience(localizer):
    """As while it loads its model. Comes first: nothing was sent to the module's localizer yet."""
    waiting = "the tracker has published nothing on /mosam_tracker/masks and /mosam_tracker/targets"
    localizer.wait_for_log(waiting)
    assert "where 0 publisher(s) are" in localizer.log
    time.sleep(2.5)
    assert localizer.log.count(waiting) == 1
    assert "ERROR" not in localizer.log and "no positions" not in localizer.log


@needs_filters
def test_it_speaks_of_waiting_also_while_simulated_time_stands_still(domain, tmp_path):
    command = ["-m", "mosam_ros.nodes.localizer_node", "--ros-args", "-p", "use_sim_time:=true"]
    localizer = NodeProcess(command, domain % 100 + 1, tmp_path / "localizer.log")
    try:
        localizer.wait_for_log("the tracker has published nothing on")
    finally:
        localizer.kill()


@needs_filters
def test_once_it_has_published_a_silent_topic_is_an_error(sensors, localizer):
    started = time.monotonic()
    while "no positions for" not in localizer.log and time.monotonic() < started + 20:
        sensors.send_tracked(time.time_ns())
        time.sleep(0.2)
    assert time.monotonic() - started >= 1.8, "the patience begins with the tracker"
    localizer.wait_for_log("nothing arrives on /depth and /camera_info")
    assert localizer.log.count("[ERROR]") == 1
    sensors.locate(time.time_ns())


@needs_filters
@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
@pytest.mark.parametrize("late", [0, 12_000_000, -12_000_000])
def test_a_target_is_located(sensors, encoding, late):
    stamp = time.time_ns()
    answer = sensors.locate(stamp, encoding=encoding, late=late)
    assert answer.header == sensors.header(stamp)
    cup, hidden = answer.positions
    assert (cup.id, cup.label, cup.valid) == (7, "cup", True)
    place = np.array([cup.position.x, cup.position.y, cup.position.z])
    assert np.linalg.norm(place - PLACE) <= 0.02 * DISTANCE
    assert cup.extent.x == pytest.approx(60 * DISTANCE / FOCAL, rel=0.03)
    assert (hidden.id, hidden.valid) == (9, False)
    wait_until(lambda: sensors.poses, "a PoseArray")
    assert len(sensors.poses[-1].poses) == 1
    if importlib.util.find_spec("visualization_msgs"):
        wait_until(lambda: sensors.markers, "a MarkerArray")
        assert {marker.id for marker in sensors.markers[-1].markers} == {7}


@needs_filters
def test_a_velocity_is_measured(sensors):
    start = time.time_ns()
    for index in range(20):
        stamp = start + index * 100_000_000
        cup = sensors.locate(stamp, encoding="32FC1", z=DISTANCE + 0.03 * index).positions[0]
    assert cup.velocity.z == pytest.approx(0.3, abs=0.06)


@needs_filters
def test_time_that_jumps_back_is_followed(sensors):
    start = time.time_ns()
    for index in range(40):
        sensors.send(start + index * 33_000_000, late=-400_000_000)
        time.sleep(0.01)
    earlier = start - 3600 * 10**9
    for index in range(3):
        sensors.locate(earlier + index * 33_000_000)


@needs_filters
def test_nothing_that_pairs_is_explained_once(sensors, localizer):
    sensors.locate(time.time_ns())
    before = len(localizer.log)
    end = time.monotonic() + 4.0
    while time.monotonic() < end:
        sensors.send(time.time_ns(), late=-25_000_000)
        time.sleep(0.3)
    localizer.wait_for_log("the stamps on /depth are 0.025 s earlier", before)
    assert localizer.log[before:].count("no positions for") == 1
    sensors.locate(time.time_ns())
    localizer.wait_for_log("the topics pair", before)


@needs_filters
def test_a_silent_topic_is_named(sensors, localizer):
    before = len(localizer.log)
    localizer.wait_for_log("nothing arrives on", before)


@needs_filters
def test_an_encoding_that_is_no_depth_is_refused_and_the_node_goes_on(sensors, localizer):
    sensors.send(time.time_ns(), encoding="64FC1")
    localizer.wait_for_log("the depth's encoding is '64FC1'")
    sensors.locate(time.time_ns())


@needs_filters
def test_a_negative_stamp_is_told_and_ignored(sensors, localizer):
    sensors.send(-5 * 10**9)
    localizer.wait_for_log("is ignored: its stamp is negative")
    sensors.locate(time.time_ns())
