"""The follower in a process of its own: what it commands, and a loop closed over DDS."""

import math
import threading
import time

import pytest

pytest.importorskip("mosam_ros.msg", reason="the messages are not built: run `make build`")
rclpy = pytest.importorskip("rclpy", reason="no ROS 2 here: run `make build`")

from geometry_msgs.msg import Point, Point32, Twist, Vector3  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import qos_profile_sensor_data  # noqa: E402
from rclpy.time import Time  # noqa: E402
from ros_graph import NodeProcess, wait_until  # noqa: E402
from rosgraph_msgs.msg import Clock  # noqa: E402
from sensor_msgs.msg import CameraInfo, RegionOfInterest  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from mosam_ros.msg import (  # noqa: E402
    MotionPrompt,
    TargetPosition,
    TargetPositionArray,
    TrackedTarget,
    TrackedTargetArray,
)

pytestmark = pytest.mark.ros

FOCAL = 320 / math.tan(1.05 / 2)


class Robot:
    """Publishes targets and positions, and turns as it is told."""

    def __init__(self, domain: int) -> None:
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("test_robot", context=self.context)
        self.targets = self.node.create_publisher(TrackedTargetArray, "mosam_tracker/targets", 10)
        self.positions = self.node.create_publisher(
            TargetPositionArray, "mosam_localizer/positions", 10
        )
        self.commands: list[Twist] = []
        self.heading = 0.0
        self._turn = 0.0
        self._since = time.monotonic()
        self.node.create_subscription(Twist, "cmd_vel", self._obey, 10)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._thread = threading.Thread(target=self.executor.spin, daemon=True)
        self._thread.start()

    def _obey(self, command: Twist) -> None:
        now = time.monotonic()
        self.heading += self._turn * (now - self._since)
        self._turn, self._since = command.angular.z, now
        self.commands.append(command)

    def close(self) -> None:
        self.executor.shutdown()
        self._thread.join()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def ready(self) -> None:
        both = self.targets, self.positions
        wait_until(lambda: all(p.get_subscription_count() for p in both), "the follower")
        wait_until(lambda: self.commands, "a command")

    def header(self) -> Header:
        return Header(stamp=self.node.get_clock().now().to_msg(), frame_id="lens")

    def show(self, *targets: TrackedTarget) -> Header:
        header = self.header()
        self.targets.publish(TrackedTargetArray(header=header, targets=targets))
        return header

    def answer(self) -> Twist:
        """A command made after what was published by now."""
        time.sleep(0.1)
        seen = len(self.commands)
        wait_until(lambda: len(self.commands) > seen + 1, "commands")
        return self.commands[-1]


class SimulatedRobot(Robot):
    """One in a simulation, in which a target on the left is seen all the time."""

    def __init__(self, domain: int) -> None:
        super().__init__(domain)
        self.now = 100.0
        self.clock = self.node.create_publisher(Clock, "/clock", 10)
        self._timer = None

    def header(self) -> Header:
        return Header(stamp=Time(seconds=self.now).to_msg(), frame_id="lens")

    def run(self) -> None:
        """Let time go on."""
        self._timer = self.node.create_timer(0.05, self._tick)

    def stop(self) -> None:
        """Let time stand still."""
        self._timer.cancel()

    def _tick(self) -> None:
        self.now += 0.05
        self.clock.publish(Clock(clock=self.header().stamp))
        self.show(target(x=200))


def target(x: float = 320, velocity: float | None = None, **fields) -> TrackedTarget:
    prompt = MotionPrompt(valid=velocity is not None, velocity=Vector3(x=float(velocity or 0)))
    return TrackedTarget(
        **{
            "id": 1,
            "centroid": Point32(x=float(x), y=240.0),
            "box": RegionOfInterest(x_offset=10, y_offset=10, width=50, height=120),
            "motion_prompt": prompt,
            **fields,
        }
    )


@pytest.fixture(scope="module")
def follower(start) -> NodeProcess:
    """With patience for a machine that is busy with other things."""
    return start("follower_node", box_height=0.5, stale_after=1.5, max_turn=3.0)


@pytest.fixture(scope="module")
def robot(domain, follower):
    robot = Robot(domain)
    robot.ready()
    yield robot
    robot.close()


def test_it_stands_until_there_is_a_target(robot):
    assert robot.answer() == Twist()
    robot.show()
    assert robot.answer() == Twist()


def test_it_turns_left_to_a_target_on_the_left_and_drives_to_a_small_one(robot):
    robot.show(target(x=280))
    command = robot.answer()
    assert command.angular.z > 0
    assert command.linear.x > 0
    robot.show(target(x=360, box=RegionOfInterest(width=50, height=400)))
    command = robot.answer()
    assert command.angular.z < 0
    assert command.linear.x == 0


def test_a_camera_info_without_a_size_or_a_focal_length_is_ignored(robot):
    """Else the image's center would be its corner, and the target on the right of it."""
    publisher = robot.node.create_publisher(CameraInfo, "camera_info", qos_profile_sensor_data)
    wait_until(publisher.get_subscription_count, "the follower")
    time.sleep(0.5)
    for width, height, focal in ((0, 0, FOCAL), (20, 20, math.nan)):
        k = [focal, 0.0, 10.0, 0.0, focal, 10.0, 0.0, 0.0, 1.0]
        publisher.publish(CameraInfo(width=width, height=height, k=k))
        time.sleep(0.2)
        robot.show(target(x=200))
        assert robot.answer().angular.z > 0
    robot.node.destroy_publisher(publisher)


def test_it_stops_at_once_for_a_target_that_is_lost(robot):
    robot.show(target(x=200))
    assert robot.answer().angular.z > 0
    robot.show(target(x=200, state=TrackedTarget.LOST))
    assert robot.answer() == Twist()


def test_it_stops_for_a_target_that_is_hidden_for_long(robot):
    robot.show(target(x=200))
    assert robot.answer().angular.z > 0
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        robot.show(target(state=TrackedTarget.OCCLUDED))
        time.sleep(0.1)
    assert robot.answer() == Twist()


def test_it_stops_when_the_stream_ends(robot):
    robot.show(target(x=200))
    assert robot.answer().angular.z > 0
    wait_until(lambda: robot.commands[-1] == Twist(), "the robot to stop", seconds=10)


def test_a_stamp_that_cannot_be_is_as_old_as_it_says(robot, follower):
    """A negative one cannot be read by rclpy: the robot stands, and the node lives on."""
    robot.show(target(x=200))
    assert robot.answer().angular.z > 0
    message = TrackedTargetArray(header=robot.header(), targets=[target(x=200)])
    message.header.stamp.sec = -5
    robot.targets.publish(message)
    wait_until(lambda: robot.commands[-1] == Twist(), "the robot to stop", seconds=10)
    robot.show(target(x=200))
    assert robot.answer().angular.z > 0
    assert "Traceback" not in follower.log


@pytest.fixture
def simulated(domain, tmp_path):
    """A robot and its follower by simulated time, which does not go yet."""
    command = ["-m", "mosam_ros.nodes.follower_node", "--ros-args", "-p", "use_sim_time:=true"]
    other = domain % 100 + 1
    follower = NodeProcess(command, other, tmp_path / "follower.log")
    robot = SimulatedRobot(other)
    yield robot, follower
    robot.close()
    follower.kill()


def test_it_stands_while_simulated_time_stands_still(simulated):
    robot, follower = simulated
    still = "the robot stands: ROS time has stood still"
    robot.ready()
    assert set(map(str, robot.commands)) == {str(Twist())}
    follower.wait_for_log(still)

    robot.run()
    follower.wait_for_log("ROS time goes on")
    wait_until(lambda: robot.commands[-1].angular.z > 0, "the robot to turn")
    robot.stop()
    time.sleep(0.3)
    seen = len(robot.commands)
    time.sleep(1.5)
    assert Twist() not in robot.commands[seen:], "a simulation may wait for a slow tracker"
    wait_until(lambda: robot.commands[-1] == Twist(), "the robot to stop", seconds=10)
    assert robot.answer() == Twist()
    assert follower.log.count(still) == 2


def test_it_keeps_a_turning_target_in_the_middle(robot):
    robot.show()
    robot.answer()
    start, last = time.monotonic(), None
    robot.heading, offsets = 0.0, []
    while (now := time.monotonic() - start) < 7.0:
        bearing = 0.25 * now - robot.heading
        x = 320 - FOCAL * math.tan(bearing)
        velocity = None if last is None else (x - last[1]) / (now - last[0])
        robot.show(target(x=x, velocity=velocity))
        last = (now, x)
        offsets.append((now, (x - 320) / 320))
        time.sleep(0.1)
    assert max(abs(offset) for now, offset in offsets if now > 2.5) <= 0.15


def test_it_keeps_the_distance_that_the_localizer_measures(follower, robot):
    from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
    from rcl_interfaces.srv import SetParameters

    value = ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=2.0)
    request = SetParameters.Request(parameters=[Parameter(name="distance", value=value)])
    service = robot.node.create_client(SetParameters, "mosam_follower/set_parameters")
    wait_until(service.service_is_ready, "the parameter service")
    future = service.call_async(request)
    wait_until(future.done, "the parameter")
    assert future.result().results[0].successful

    def drive(distance: float) -> float:
        header = robot.show(target())
        item = TargetPosition(id=1, valid=True, position=Point(z=distance))
        robot.positions.publish(TargetPositionArray(header=header, positions=[item]))
        time.sleep(0.1)
        robot.show(target())
        return robot.answer().linear.x

    turns = []

    def told() -> bool:
        robot.show(target(x=200))
        turns.append(robot.answer())
        return "robot only turns: distance is set, but no position of target 1" in follower.log

    wait_until(told, "the warning", seconds=30)
    assert turns[-1].angular.z > 0 and turns[-1].linear.x == 0
    assert drive(3.0) > 0
    assert drive(1.0) == 0
