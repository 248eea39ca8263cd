"""A ROS graph per test module: its domain, its client, its processes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ros_graph import NodeProcess, make_client


@pytest.fixture(scope="module")
def domain() -> int:
    """A ROS domain of the module's own."""
    return random.randint(1, 100)


@pytest.fixture(scope="module")
def client(domain) -> Iterator:
    client = make_client(domain)
    yield client
    client.close()


@pytest.fixture(scope="module")
def start(domain, tmp_path_factory) -> Iterator[Callable[..., NodeProcess]]:
    """Start a node, `start("camera_node", rate=30.0)`, or a script of this folder."""
    processes: list[NodeProcess] = []
    folder = tmp_path_factory.mktemp("logs")

    def start(name: str, **parameters) -> NodeProcess:
        script = Path(__file__).parent / f"{name}.py"
        command = [str(script)] if script.exists() else ["-m", f"mosam_ros.nodes.{name}"]
        if parameters:
            command.append("--ros-args")
        for key, value in parameters.items():
            text = f"'{value}'" if isinstance(value, str) else str(value)
            command += ["-p", f"{key}:={text}"]
        process = NodeProcess(command, domain, folder / f"{len(processes)}_{name}.log")
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
