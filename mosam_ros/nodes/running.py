"""How every node of this package is started and ended."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence

import cv2
import rclpy
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.task import Future

from mosam_ros.dds import use_large_image_profile


class StartError(ValueError):
    """The node cannot start; the message says why and what to do."""


def run_node(make_node: Callable[[], Node], args: Sequence[str] | None = None) -> int:
    """Make a node and spin it until Ctrl-C, or until its future `done` holds an exit status.

    Args:
        make_node: makes the node; may raise StartError.
        args: the command line, None for the process' own.

    Returns:
        The process' exit status: 2 when the node could not start, else `done`'s or 0.
    """
    use_large_image_profile()
    cv2.setNumThreads(1)  # the cores belong to the model
    rclpy.init(args=args)
    node = None
    status = 0
    try:
        node = make_node()
        status = _spin(node)
    except StartError as error:
        print(error, file=sys.stderr)
        status = 2
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        print(f"a parameter cannot be used: {error}", file=sys.stderr)
        status = 2
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        # Under ros2 launch Ctrl-C arrives twice; the second must not break the clean-up.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return status


def _spin(node: Node) -> int:
    done: Future | None = getattr(node, "done", None)
    if done is None:
        rclpy.spin(node)
        return 0
    rclpy.spin_until_future_complete(node, done)
    return int(done.result()) if done.done() else 0
