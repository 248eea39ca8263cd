"""Real nodes in real processes, and a client that talks to them over DDS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mosam_ros.demo import demo_environment

WAIT_SECONDS = 90
"""Patience with a process that starts, or answers, on a busy machine."""

ASK_AGAIN_SECONDS = 15
"""Longer than any service takes to answer."""


def wait_until(condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS):
    """Return the condition's first true value; fail naming `what` when none comes in time."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.02)
    return value


class NodeProcess:
    """A Python program in a process group of its own, with what it wrote."""

    def __init__(self, command: list[str], domain: int, log: Path) -> None:
        self.log_file = log
        environment = {
            **demo_environment(),
            "ROS_DOMAIN_ID": str(domain),
            "PYTHONUNBUFFERED": "1",
        }
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    def wait_for_log(self, text: str, after: int = 0) -> None:
        """Wait until the process has written `text` behind the first `after` characters."""

        def written() -> bool:
            if self.process.poll() is not None and text not in self.log[after:]:
                pytest.fail(f"the process ended without {text!r}:\n{self.log}")
            return text in self.log[after:]

        try:
            wait_until(written, f"{text!r} in the log")
        except pytest.fail.Exception as failure:
            pytest.fail(f"{failure}:\n{self.log}")

    def wait_for_end(self) -> int:
        try:
            return self.process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the process did not end:\n{self.log}")

    def interrupt(self) -> int:
        """End it as Ctrl-C does; returns the exit status."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        return self.wait_for_end()

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def make_client(domain: int):
    """A client in this process; a function, so that nothing of ROS is needed to collect tests."""
    import rclpy
    from rclpy.duration import Duration
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.qos import QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import Image
    from std_msgs.msg import Header

    from mosam_ros.dds import use_large_image_profile
    from mosam_ros.msg import TargetSelection, TrackedTargetArray
    from mosam_ros.nodes.conversions import color_to_image, labels_from_image

    class Client:
        """Sends images and selections to a tracker node and keeps what it publishes."""

        def __init__(self) -> None:
            use_large_image_profile()
            self.context = rclpy.Context()
            rclpy.init(context=self.context, domain_id=domain)
            self.node = rclpy.create_node("test_client", context=self.context)
            self.executor = SingleThreadedExecutor(context=self.context)
            self.executor.add_node(self.node)
            reliable = QoSProfile(depth=100)
            self.images = self.node.create_publisher(Image, "image", qos_profile_sensor_data)
            self.selections = self.node.create_publisher(TargetSelection, "select", reliable)
            self.answers: dict[int, TrackedTargetArray] = {}
            self.label_images: dict[int, Image] = {}
            self.node.create_subscription(
                TrackedTargetArray, "mosam_tracker/targets", self._keep(self.answers), reliable
            )
            self.node.create_subscription(
                Image, "mosam_tracker/masks", self._keep(self.label_images), reliable
            )
            self._thread = threading.Thread(target=self.executor.spin, daemon=True)
            self._thread.start()

        @staticmethod
        def _keep(store: dict) -> Callable:
            def keep(message) -> None:
                stamp = message.header.stamp
                store[stamp.sec * 10**9 + stamp.nanosec] = message

            return keep

        def close(self) -> None:
            self.executor.shutdown()
            self._thread.join()
            self.node.destroy_node()
            rclpy.shutdown(context=self.context)

        def wait_for_tracker(self) -> None:
            """Wait until both sides of every topic know each other."""

            def connected() -> bool:
                topics = self.node.get_topic_names_and_types()
                names = {name for name, _ in topics}
                return (
                    self.images.get_subscription_count() > 0
                    and self.selections.get_subscription_count() > 0
                    and {"/mosam_tracker/targets", "/mosam_tracker/masks"} <= names
                )

            wait_until(connected, "the tracker's topics")
            time.sleep(0.5)

        def header(self, stamp: int | None = None):
            stamp = time.time_ns() if stamp is None else stamp
            header = Header(frame_id="test_lens")
            header.stamp.sec, header.stamp.nanosec = divmod(stamp, 10**9)
            return header

        def send(self, pixels: np.ndarray, stamp: int | None = None) -> int:
            """Publish an RGB image without waiting; returns its stamp."""
            stamp = time.time_ns() if stamp is None else stamp
            self.images.publish(color_to_image(pixels, "rgb8", self.header(stamp)))
            return stamp

        def track(self, pixels: np.ndarray, stamp: int | None = None) -> TrackedTargetArray:
            """Publish an RGB image and return the targets found in it, with the masks there."""
            stamp = self.send(pixels, stamp)
            both = self.answers, self.label_images
            wait_until(lambda: all(stamp in store for store in both), "the answer to a frame")
            return self.answers[stamp]

        def labels(self, answer: TrackedTargetArray) -> np.ndarray:
            """The label image that belongs to an answer."""
            stamp = answer.header.stamp
            return labels_from_image(self.label_images[stamp.sec * 10**9 + stamp.nanosec])

        def select(self, **fields) -> None:
            """Publish a TargetSelection and give it the time to arrive before the next frame."""
            self.selections.publish(TargetSelection(**fields))
            self.selections.wait_for_all_acked(Duration(seconds=10))
            time.sleep(0.3)

        def clear(self) -> None:
            self.select(action=TargetSelection.CLEAR)

        def call(self, service: str, kind, request):
            """Call a service and return its response.

            What is asked before both sides have found each other is lost without a word, as is
            what a process that has just ended is still taken to hear: then it is asked again.
            """
            client = self.node.create_client(kind, service)
            futures = []

            def answered():
                if time.monotonic() >= start + len(futures) * ASK_AGAIN_SECONDS:
                    futures.append(client.call_async(request))
                return next((future for future in futures if future.done()), None)

            try:
                wait_until(client.service_is_ready, f"the service {service}")
                start = time.monotonic()
                return wait_until(answered, f"an answer of the service {service}").result()
            finally:
                self.node.destroy_client(client)

    return Client()
