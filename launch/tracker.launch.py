"""Start the tracker: `ros2 launch mosam_ros tracker.launch.py image:=/camera/image_raw`.

With `depth:=/camera/depth_registered` also the localizer. The lens is taken from the `camera_info`
beside the image, here `/camera/camera_info`, unless `camera_info:=` names another topic.
"""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node, SetParameter
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from mosam_ros.dds import use_large_image_profile

SHARE = FindPackageShare("mosam_ros")


def lens_topic(context):
    """The `camera_info` given, else the one in the image's namespace."""
    if given := LaunchConfiguration("camera_info").perform(context):
        return given
    namespace, slash, _ = LaunchConfiguration("image").perform(context).rpartition("/")
    return f"{namespace}{slash}camera_info"


def start_tracker(context):
    parameters = [LaunchConfiguration("params_file")]
    for name in ("model", "checkpoint"):
        if text := LaunchConfiguration(name).perform(context):
            parameters.append({name: ParameterValue(text, value_type=str)})
    return [
        Node(
            package="mosam_ros",
            executable="tracker_node",
            name="mosam_tracker",
            namespace=LaunchConfiguration("namespace"),
            parameters=parameters,
            remappings=[
                ("image", LaunchConfiguration("image")),
                ("select", LaunchConfiguration("select")),
                ("camera_info", lens_topic(context)),
            ],
            output="screen",
            emulate_tty=True,
        )
    ]


def start_localizer(context):
    if not LaunchConfiguration("depth").perform(context):
        return []
    return [
        Node(
            package="mosam_ros",
            executable="localizer_node",
            name="mosam_localizer",
            namespace=LaunchConfiguration("namespace"),
            parameters=[LaunchConfiguration("localizer_params_file")],
            remappings=[
                ("depth", LaunchConfiguration("depth")),
                ("camera_info", lens_topic(context)),
            ],
            output="screen",
            emulate_tty=True,
        )
    ]


def start_rviz(context):
    if LaunchConfiguration("rviz").perform(context).lower() not in ("true", "1"):
        return []
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            namespace=LaunchConfiguration("namespace"),
            arguments=["-d", PathJoinSubstitution([SHARE, "config", "tracker.rviz"])],
            remappings=[
                ("/mosam_tracker/overlay", "mosam_tracker/overlay"),
                ("/mosam_tracker/masks", "mosam_tracker/masks"),
                ("/mosam_localizer/markers", "mosam_localizer/markers"),
                ("/clicked_point", "clicked_point"),
                ("/image", LaunchConfiguration("image")),
                ("/depth", LaunchConfiguration("depth").perform(context) or "depth"),
                ("/camera_info", lens_topic(context)),
            ],
        )
    ]


def generate_launch_description():
    arguments = [
        DeclareLaunchArgument("image", default_value="image", description="camera image topic"),
        DeclareLaunchArgument("select", default_value="select", description="selection topic"),
        DeclareLaunchArgument(
            "model", default_value="", description="model name; empty = as in params_file"
        ),
        DeclareLaunchArgument(
            "checkpoint", default_value="", description="weights file; empty = as in params_file"
        ),
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([SHARE, "config", "tracker.yaml"]),
            description="node parameters",
        ),
        DeclareLaunchArgument("rviz", default_value="false", description="open RViz: true, false"),
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the nodes"),
        DeclareLaunchArgument(
            "depth",
            default_value="",
            description="registered depth topic; starts the localizer; empty = no localizer",
        ),
        DeclareLaunchArgument(
            "camera_info",
            default_value="",
            description="topic of the image's lens; empty = camera_info beside the image",
        ),
        DeclareLaunchArgument(
            "localizer_params_file",
            default_value=PathJoinSubstitution([SHARE, "config", "localizer.yaml"]),
            description="parameters of the localizer",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            description="all nodes follow /clock: true; false = as in their parameter files",
        ),
    ]
    profile = [
        SetEnvironmentVariable(name, path)
        for name, path in use_large_image_profile(dict(os.environ)).items()
    ]
    simulated_time = SetParameter(
        "use_sim_time", True, condition=IfCondition(LaunchConfiguration("use_sim_time"))
    )
    nodes = [
        OpaqueFunction(function=start) for start in (start_tracker, start_localizer, start_rviz)
    ]
    return LaunchDescription([*arguments, *profile, simulated_time, *nodes])
