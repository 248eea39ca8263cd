"""Track a target in a synthetic scene: camera, tracker and recorder."""

from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, Shutdown
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

FRAMES = 160
SEED = 1


def generate_launch_description():
    tracker = IncludeLaunchDescription(
        PathJoinSubstitution([FindPackageShare("mosam_ros"), "launch", "tracker.launch.py"])
    )
    namespace = LaunchConfiguration("namespace")
    image = ("image", LaunchConfiguration("image"))
    select = ("select", LaunchConfiguration("select"))
    camera = Node(
        package="mosam_ros",
        executable="camera_node",
        name="camera",
        namespace=namespace,
        # The tracker and the recorder: the scene starts once both listen.
        parameters=[{"seed": SEED, "num_frames": FRAMES, "wait_for_subscribers": 2}],
        remappings=[image],
        output="screen",
        emulate_tty=True,
    )
    recorder = Node(
        package="mosam_ros",
        executable="demo_recorder",
        name="demo_recorder",
        namespace=namespace,
        parameters=[{"seed": SEED, "expected_frames": FRAMES}],
        remappings=[image, select],
        output="screen",
        emulate_tty=True,
        on_exit=Shutdown(reason="the recording is complete"),
    )
    # The tracker's file comes first: it declares the arguments and sets the DDS profile for all.
    return LaunchDescription([tracker, camera, recorder])
