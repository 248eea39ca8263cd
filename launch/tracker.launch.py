"""Start the tracker: `ros2 launch mosam_ros tracker.launch.py image:=/camera/image_raw`."""

import os

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from mosam_ros.dds import use_large_image_profile

SHARE = FindPackageShare("mosam_ros")


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
            ],
            output="screen",
            emulate_tty=True,
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
    ]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", PathJoinSubstitution([SHARE, "config", "tracker.rviz"])],
        remappings=[
            ("/mosam_tracker/overlay", "mosam_tracker/overlay"),
            ("/mosam_tracker/masks", "mosam_tracker/masks"),
        ],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    profile = [
        SetEnvironmentVariable(name, path)
        for name, path in use_large_image_profile(dict(os.environ)).items()
    ]
    return LaunchDescription([*arguments, *profile, OpaqueFunction(function=start_tracker), rviz])
