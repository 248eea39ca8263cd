"""A subscriber in a process of its own: prints a line of JSON for every message it gets."""

import json

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image

from mosam_ros.dds import use_large_image_profile
from mosam_ros.msg import TrackedTargetArray

TOPICS = {
    "image": (Image, qos_profile_sensor_data),
    "camera/ground_truth": (Image, QoSProfile(depth=100)),
    "mosam_tracker/targets": (TrackedTargetArray, QoSProfile(depth=100)),
    "mosam_tracker/masks": (Image, QoSProfile(depth=100)),
    "mosam_tracker/overlay": (Image, QoSProfile(depth=100)),
}


def report(topic: str, message) -> None:
    stamp = message.header.stamp
    line = {
        "topic": topic,
        "stamp": stamp.sec * 10**9 + stamp.nanosec,
        "frame_id": message.header.frame_id,
    }
    if isinstance(message, Image):
        line |= {"size": [message.width, message.height], "encoding": message.encoding}
    print(json.dumps(line), flush=True)


def main() -> None:
    use_large_image_profile()
    rclpy.init()
    node = Node("listener")
    for topic, (kind, qos) in TOPICS.items():
        node.create_subscription(kind, topic, lambda m, topic=topic: report(topic, m), qos)
    rclpy.spin(node)


main()
