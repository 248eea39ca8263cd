"""See a target being tracked in a running ROS 2 graph.

    python -m mosam_ros.demo --seed 3
    python -m mosam_ros.demo --video cups.mp4 --box "210 140 80 95"
    python -m mosam_ros.demo --follow

Starts a camera, the tracker and a recorder as processes of their own. The recorder selects the
target by message and writes overlay.mp4, contact_sheet.png and summary.json. With --follow the
camera is on a robot that turns, and a follower keeps the target in front of it; the recorder writes
follow.mp4, follow_contact_sheet.png and follow_summary.json.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mosam_ros.dds import use_large_image_profile
from mosam_ros.demo_report import parse_box
from mosam_ros.frame_sources import SYNTHETIC, source_size
from mosam_ros.synthetic.turning_scene import DURATION

STOP_SECONDS = 5.0
"""How long a process may take to end after Ctrl-C."""

STALL_SECONDS = 30.0
"""The demo's camera may be silent for so long, while it renders its scene and after its end."""


class DemoError(Exception):
    """The demo cannot go on; the message says why."""


@dataclass(frozen=True)
class DemoProcess:
    """One node of the demo in a process group of its own."""

    name: str
    process: subprocess.Popen

    @classmethod
    def start(cls, module: str, environment: dict[str, str], **parameters: object) -> DemoProcess:
        """Start `mosam_ros.nodes.<module>` with these parameters."""
        command = [sys.executable, "-m", f"mosam_ros.nodes.{module}", "--ros-args"]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={_yaml(value)}"]
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        return cls(module.removesuffix("_node"), process)

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C does."""
        self._signal(signal.SIGINT)

    def stop(self) -> None:
        """End it, by force if need be."""
        self.interrupt()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self.process.wait()

    def _signal(self, number: int) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)


def _yaml(value: object) -> str:
    """A parameter's value for the command line; text is quoted, so that it stays text."""
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value)


def parse_arguments(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Read and check the command line; ends the process with one clear line if it will not do."""
    parser = argparse.ArgumentParser(prog="python -m mosam_ros.demo", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, default=1, help="which synthetic scene; 1 if not given")
    parser.add_argument("--video", type=Path, help="a video file or a folder of images instead")
    parser.add_argument(
        "--box",
        nargs="+",
        metavar="PIXELS",
        help="x y width height of the target in the video's first image",
    )
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder")
    parser.add_argument("--frames", type=int, default=160, help="length of the synthetic scene")
    parser.add_argument(
        "--follow", action="store_true", help="follow a target with a simulated robot instead"
    )
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second")
    arguments = parser.parse_args(args)
    try:
        _check(arguments)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    return arguments


def _check(arguments: argparse.Namespace) -> None:
    arguments.box = parse_box(" ".join(arguments.box or []))
    if arguments.seed < 0:
        raise ValueError(f"--seed is {arguments.seed}: give 0 or more")
    if arguments.rate <= 0:
        raise ValueError(f"--rate is {arguments.rate:g}: give more than 0 frames per second")
    if arguments.follow and arguments.video is not None:
        raise ValueError("--follow goes without --video: the camera has to turn")
    if arguments.video is None:
        if arguments.box is not None:
            raise ValueError("--box goes with --video: a synthetic scene knows its target")
        return
    height, width = source_size(arguments.video)
    if arguments.box is None:
        raise ValueError(
            f"--video needs --box 'x y width height': the target in its first image, which has "
            f"{width}x{height} pixels"
        )
    x, y, box_width, box_height = arguments.box
    if x >= width or y >= height or x + box_width <= 0 or y + box_height <= 0:
        raise ValueError(
            f"the box {x:g} {y:g} {box_width:g} {box_height:g} lies outside the video of "
            f"{width}x{height} pixels"
        )


def demo_environment() -> dict[str, str]:
    """The environment of the demo's processes: this machine only, apart from other graphs."""
    environment = dict(os.environ)
    environment.setdefault("ROS_DOMAIN_ID", str(random.randint(1, 100)))
    if environment.get("ROS_DISTRO") == "humble":
        environment.setdefault("ROS_LOCALHOST_ONLY", "1")
    else:
        environment.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    use_large_image_profile(environment)
    return environment


def start_processes(arguments: argparse.Namespace) -> Iterator[DemoProcess]:
    """Start the recorder, then the others, the camera at last; each is started when asked for."""
    environment = demo_environment()
    domain = f"ROS_DOMAIN_ID={environment['ROS_DOMAIN_ID']}"
    print(f"== starting the demo's processes with {domain}", flush=True)
    if environment.get("DISPLAY") and shutil.which("rviz2"):
        print(f"== to watch: {domain} rviz2 -d config/tracker.rviz", flush=True)
    start = _start_following if arguments.follow else _start_tracking
    return start(arguments, environment)


def _start_tracking(
    arguments: argparse.Namespace, environment: dict[str, str]
) -> Iterator[DemoProcess]:
    synthetic = arguments.video is None
    source = SYNTHETIC if synthetic else str(arguments.video)
    yield DemoProcess.start(
        "demo_recorder",
        environment,
        box="" if synthetic else " ".join(f"{value:g}" for value in arguments.box),
        output_dir=str(arguments.output),
        source=source,
        seed=arguments.seed,
        expected_frames=arguments.frames if synthetic else 0,
    )
    yield DemoProcess.start("tracker_node", environment, stall_after=STALL_SECONDS)
    yield DemoProcess.start(
        "camera_node",
        environment,
        source=source,
        seed=arguments.seed,
        num_frames=arguments.frames,
        rate=arguments.rate,
        wait_for_subscribers=2,
    )


def _start_following(
    arguments: argparse.Namespace, environment: dict[str, str]
) -> Iterator[DemoProcess]:
    yield DemoProcess.start(
        "follow_recorder",
        environment,
        output_dir=str(arguments.output),
        seed=arguments.seed,
        expected_frames=round(arguments.rate * DURATION),
        use_sim_time=True,
    )
    yield DemoProcess.start("tracker_node", environment, use_sim_time=True)
    yield DemoProcess.start("follower_node", environment, use_sim_time=True)
    yield DemoProcess.start(
        "turning_camera_node",
        environment,
        seed=arguments.seed,
        rate=arguments.rate,
    )


class StopRequest:
    """The signal that asked the demo to end, by Ctrl-C, `kill` or a terminal that closes. It
    interrupts nothing, so that no process that is just being started is forgotten. What is ignored,
    as under nohup, stays so.
    """

    number = 0
    """Of the signal; 0 if there was none."""

    def listen(self) -> None:
        """From now on note signals instead of ending."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def _note(self, number: int, _frame: object) -> None:
        self.number = number


def watch(processes: Sequence[DemoProcess], request: StopRequest) -> int:
    """Wait for the recorder, the first of the processes, and return its exit status, or that of a
    program ended by a signal.

    Raises:
        DemoError: another process ended before its time; only the camera, the last one, may.
    """
    recorder, *others = processes
    while recorder.process.poll() is None:
        if request.number:
            print("\n== stopped", file=sys.stderr)
            return 128 + request.number
        for entry in others:
            status = entry.process.poll()
            in_order = entry is processes[-1] and status == 0
            if status is not None and not in_order:
                raise DemoError(f"the {entry.name} ended with status {status}, see above")
        time.sleep(0.2)
    return recorder.process.returncode


def main(args: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(args)
    request = StopRequest()
    request.listen()
    processes: list[DemoProcess] = []
    try:
        for process in start_processes(arguments):
            processes.append(process)
        return watch(processes, request)
    except DemoError as error:
        print(f"the demo failed: {error}", file=sys.stderr)
        return 1
    finally:
        for process in processes:
            process.interrupt()
        for process in processes:
            process.stop()


if __name__ == "__main__":
    raise SystemExit(main())
