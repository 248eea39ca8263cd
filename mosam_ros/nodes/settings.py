"""Parameters of the small nodes: declared from a table with ranges, read when they are used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node


@dataclass(frozen=True)
class NodeSetting:
    """One parameter.

    Attributes:
        default: its value where nobody gives another; its type is the parameter's.
        description: for people.
        low, high: smallest and largest value of a number.
        fixed: read once, when the node starts; a later change is refused.
    """

    default: bool | int | float | str
    description: str
    low: float = 0.0
    high: float = 0.0
    fixed: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """What ROS is told of the parameter."""
        descriptor = ParameterDescriptor(description=self.description, read_only=self.fixed)
        if self.low == self.high:
            return descriptor
        if isinstance(self.default, float):
            limits = FloatingPointRange(from_value=float(self.low), to_value=float(self.high))
            descriptor.floating_point_range = [limits]
        else:
            descriptor.integer_range = [
                IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)
            ]
        return descriptor


def declare_settings(node: Node, settings: Mapping[str, NodeSetting]) -> None:
    """Declare every parameter of a table on a node."""
    for name, setting in settings.items():
        node.declare_parameter(name, setting.default, setting.descriptor())


def setting_values(node: Node, settings: Mapping[str, NodeSetting]) -> dict:
    """The values that the parameters have now, by name."""
    return {name: node.get_parameter(name).value for name in settings}
