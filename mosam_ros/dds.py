"""The Fast DDS profile that lets camera images pass between processes without loss."""

import os
import sys
from collections.abc import MutableMapping
from pathlib import Path

# Fast DDS renamed the variable after Jazzy; each release ignores the other's.
VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def large_image_profile() -> Path:
    """Return the path of `config/fastdds.xml`, installed or in the source tree."""
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    shares = [Path(prefix, "share", "mosam_ros") for prefix in prefixes if prefix]
    for folder in [*shares, Path(__file__).resolve().parents[1]]:
        path = folder / "config" / "fastdds.xml"
        if path.is_file():
            return path
    raise FileNotFoundError("mosam_ros's config/fastdds.xml is neither installed nor beside it")


def use_large_image_profile(environment: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Make Fast DDS use the profile in processes started with `environment`.

    For the running process, call it before `rclpy.init`. A profile that the user chose stays.
    Returns the variables that were set.
    """
    if any(environment.get(variable) for variable in VARIABLES):
        return {}
    chosen = dict.fromkeys(VARIABLES, str(large_image_profile()))
    environment.update(chosen)
    return chosen
