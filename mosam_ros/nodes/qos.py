"""QoS of the tracker's image and outputs: what overrides change, and what mismatches are told."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import (
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import PublisherEventCallbacks, SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import PublisherEventCallbacks, SubscriptionEventCallbacks

OUTPUT_OVERRIDES = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)
"""Policies of an output that can be given as `qos_overrides.<topic>.publisher.<policy>`."""


def newest_image() -> QoSProfile:
    """For images: the newest one, from cameras of any QoS. A new profile: overrides change it."""
    return QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


def reliable() -> QoSProfile:
    """For all else. A new profile, as overrides change it."""
    return QoSProfile(depth=10)


def image_options(node: Node, topic: str) -> dict[str, Any]:
    """Arguments of an image subscription: overrides, and an error where a camera does not match.

    Args:
        node: whose log is told, once.
        topic: its whole name.
    """
    told = False

    def tell(event: Any) -> None:
        nonlocal told
        if told:
            return
        told = True
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        node.get_logger().error(
            f"a camera on {topic} cannot be heard: it offers less {policy} than is asked for; set "
            f"the parameter qos_overrides.{topic}.subscription.{policy.lower()} to what it offers "
            "(see `ros2 topic info -v`)"
        )

    return {
        "event_callbacks": SubscriptionEventCallbacks(incompatible_qos=tell),
        "qos_overriding_options": QoSOverridingOptions.with_default_policies(),
    }


def output_options(node: Node, topic: str) -> dict[str, Any]:
    """Arguments of a publisher: overrides, and a warning for every subscriber that does not match.

    Args:
        node: whose log is told.
        topic: its whole name.
    """

    def tell(event: Any) -> None:
        policy = qos_policy_name_from_kind(event.last_policy_kind)
        cure = "let it ask for less"
        if QoSPolicyKind[policy] in OUTPUT_OVERRIDES:
            cure += (
                ", or start this node with the parameter "
                f"qos_overrides.{topic}.publisher.{policy.lower()} set to what it asks for"
            )
        node.get_logger().warning(
            f"a subscriber of {topic} hears nothing: it asks for more {policy} than is offered; "
            f"{cure} (see `ros2 topic info -v`)"
        )

    return {
        "event_callbacks": PublisherEventCallbacks(incompatible_qos=tell),
        "qos_overriding_options": QoSOverridingOptions(OUTPUT_OVERRIDES),
    }
