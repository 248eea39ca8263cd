"""The `mosam` command."""

from __future__ import annotations

import importlib
import os
import sys

COMMANDS = {
    ("demo",): ("mosam_ros.demo", "track an object in a running ROS 2 graph, with a report"),
    ("replay",): ("mosam_ros.replay", "track objects in a recorded bag, without a ROS graph"),
    ("train", "base"): ("mosam_ros.training.base", "train the small model from scratch"),
    ("train", "motion"): ("mosam_ros.training.motion", "train the motion encoders"),
    ("train", "release"): ("mosam_ros.training.release", "ship trained weights in the package"),
    ("train", "validate"): ("mosam_ros.training.validate", "measure a model on held-out clips"),
}

REPRODUCIBLE = {"MKL_CBWR": "AUTO"}
"""Environment in which MKL promises the same bits in every run, for a few percent of the speed.
It is read when PyTorch is imported.
"""


def main() -> int:
    """Run the command that the first words name; its own --help tells the rest."""
    words = sys.argv[1:]
    for name, (module, _) in COMMANDS.items():
        if tuple(words[: len(name)]) == name:
            if name == ("replay",):
                os.environ.update(REPRODUCIBLE | os.environ)
            sys.argv = [" ".join(("mosam", *name)), *words[len(name) :]]
            try:
                command = importlib.import_module(module)
            except ModuleNotFoundError as error:
                print(f"{sys.argv[0]}: {error}; the README says how to install", file=sys.stderr)
                return 1
            return command.main() or 0
    print("usage: mosam COMMAND [options]\n")
    for name, (_, purpose) in COMMANDS.items():
        print(f"  mosam {' '.join(name):<16} {purpose}")
    return 0 if words in (["--help"], ["-h"]) else 2


if __name__ == "__main__":
    sys.exit(main())
