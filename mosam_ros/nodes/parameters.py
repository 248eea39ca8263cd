"""Parameters of all nodes: a table per node says their types, ranges and when they can change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node
from rclpy.parameter import Parameter


class Change(Enum):
    """When a parameter can be changed."""

    LIVE = "at any time"
    RECONFIGURE = "while the node is unconfigured"
    FIXED = "only at the start"


@dataclass(frozen=True)
class Setting:
    """One parameter.

    Attributes:
        default: its value where nobody gives another; its type is the parameter's.
        description: for people.
        low, high: smallest and largest value of a number.
        step: between two whole numbers that are allowed.
        choices: the texts that are allowed; empty: any.
        change: when it can be changed.
    """

    default: bool | int | float | str
    description: str
    low: float = 0.0
    high: float = 0.0
    step: int = 1
    choices: Sequence[str] = ()
    change: Change = Change.LIVE

    def descriptor(self) -> ParameterDescriptor:
        """What ROS is told of the parameter."""
        descriptor = ParameterDescriptor(
            description=self.description, read_only=self.change is Change.FIXED
        )
        if self.low == self.high:
            return descriptor
        if isinstance(self.default, float):
            limits = FloatingPointRange(from_value=float(self.low), to_value=float(self.high))
            descriptor.floating_point_range = [limits]
        else:
            low, high = int(self.low), int(self.high)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=self.step)]
        return descriptor

    def problem(self, value: Any, configured: bool) -> str:
        """Why it cannot have a value now, beyond what its descriptor says; empty: it can.

        Args:
            value: of the parameter's type and in its range.
            configured: whether the node is.
        """
        if self.choices and value not in self.choices:
            return f"it is {value!r}: use one of {', '.join(self.choices)}"
        if configured and self.change is Change.RECONFIGURE:
            return "needs reconfigure: deactivate, cleanup, set it, configure"
        return ""


def declare_settings(node: Node, settings: Mapping[str, Setting]) -> None:
    """Declare every parameter of a table on a node."""
    for name, setting in settings.items():
        node.declare_parameter(name, setting.default, setting.descriptor())


def setting_values(node: Node, settings: Mapping[str, Setting]) -> dict[str, Any]:
    """The values that the parameters have now, by name."""
    return {name: node.get_parameter(name).value for name in settings}


def require_valid(settings: Mapping[str, Setting], values: Mapping[str, Any]) -> None:
    """Check the values that a node is to be configured with.

    Those given at the start have not been checked for more than type and range, by ROS.

    Args:
        settings: the table.
        values: of all its parameters, by name.

    Raises:
        ValueError: some cannot be used; names each of them.
    """
    problems = {
        name: problem
        for name, setting in settings.items()
        if (problem := setting.problem(values[name], configured=False))
    }
    if problems:
        raise ValueError("; ".join(f"{name}: {problem}" for name, problem in problems.items()))


def settings_problem(
    settings: Mapping[str, Setting],
    changes: Sequence[Parameter],
    values: Mapping[str, Any],
    configured: bool,
) -> str:
    """Why parameters cannot be changed now; empty: they can, or are none of the table's.

    Args:
        settings: the table.
        changes: what is asked for; what a parameter is already it may stay.
        values: that the table's parameters have now, by name.
        configured: whether the node is.
    """
    for change in changes:
        if change.name not in settings or change.value == values[change.name]:
            continue
        if problem := settings[change.name].problem(change.value, configured):
            return f"{change.name}: {problem}"
    return ""
