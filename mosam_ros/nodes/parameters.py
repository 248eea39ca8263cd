"""The tracker node's parameters; those of the method have the default values of `TrackerConfig`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from mosam_ros.mosam.checkpoints import MODELS
from mosam_ros.mosam.motion.flow import FLOW_METHODS
from mosam_ros.mosam.tracker import SPARSE_ENCODERS, TrackerConfig
from mosam_ros.nodes.image_input import TRANSPORTS

LARGEST_INTEGER = 2**31 - 1
LARGEST_SCORE = 32.0
"""Scores are logits; this one is as good as certain."""


@dataclass(frozen=True)
class Setting:
    """What is said of a parameter.

    Attributes:
        description: for people.
        low, high: smallest and largest value of a number; None for anything else.
        step: between two whole numbers that are allowed.
    """

    description: str
    low: float | None = None
    high: float | None = None
    step: int = 1

    def descriptor(self, default: object) -> ParameterDescriptor:
        """For a parameter with this default value, which says its type."""
        descriptor = ParameterDescriptor(description=self.description)
        if self.low is None or self.high is None:
            return descriptor
        if isinstance(default, float):
            limits = FloatingPointRange(from_value=float(self.low), to_value=float(self.high))
            descriptor.floating_point_range = [limits]
        else:
            low, high = int(self.low), int(self.high)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=self.step)]
        return descriptor


NODE_SETTINGS: Mapping[str, tuple[Any, Setting]] = {
    "autostart": (True, Setting("Configure and activate when the node starts.")),
    "image_transport": (
        "raw",
        Setting(f"How images come: {' or '.join(TRANSPORTS)} (JPEG or PNG on image/compressed)."),
    ),
    "model": ("nano", Setting(f"Name of the model: {', '.join(MODELS)}.")),
    "checkpoint": ("", Setting("File with the model's weights; empty: the model's own.")),
    "motion_checkpoint": (
        "",
        Setting("File with the weights of the motion encoders; empty: the model's own."),
    ),
    "device": ("auto", Setting("cpu, cuda, cuda:1, ... or auto (CUDA where there is one).")),
    "precision": ("auto", Setting("fp32, fp16, bf16 or auto (fp32 on the CPU, fp16 on CUDA).")),
    "image_size": (
        0,
        Setting("Side of the model's input in pixels; 0: the model's own.", 0, LARGEST_INTEGER),
    ),
    "num_threads": (
        0,
        Setting("CPU threads for the model; 0: PyTorch's choice.", 0, LARGEST_INTEGER),
    ),
}
"""By name: the default value, and what is said of it."""

METHOD_SETTINGS: Mapping[str, Setting] = {
    "motion.sparse": Setting(
        "Prompt frames with the forecast key points (sparse motion, section 3.2.1 of the paper)."
    ),
    "motion.dense": Setting(
        "Prompt frames with the forecast box (dense motion, section 3.2.2 of the paper)."
    ),
    "motion.num_key_points": Setting(
        "Key points per target: 1, 5, 9, ... (figure 4a of the paper).", 1, 33, step=4
    ),
    "motion.sparse_encoder": Setting(
        f"How key points go on: {' or '.join(SPARSE_ENCODERS)} (by the motion encoder)."
    ),
    "motion.flow": Setting(
        f"Optical flow: {', '.join(FLOW_METHODS)}; dis needs no weights and no GPU, raft needs "
        "torchvision and a GPU to be fast, feature is the trained motion encoder."
    ),
    "motion.flow_interval": Setting(
        "Frames between the two images of the flow (figure 4b of the paper).", 1, 30
    ),
    "motion.reliable_iou": Setting(
        "Frames with a lower predicted IoU teach no motion and prompt nothing.", 0.0, 1.0
    ),
    "memory.temporal": Setting(
        "Choose the remembered frames by their scores (section 3.3.1 of the paper); false: the "
        "newest ones, as SAM 2 does."
    ),
    "memory.spatial": Setting("Remember unsure pixels as background (section 3.3.2 of the paper)."),
    "memory.iou_threshold": Setting(
        "Frames with a predicted IoU above this are remembered first (figure 4c of the paper).",
        0.0,
        1.0,
    ),
    "memory.occlusion_threshold": Setting(
        "... if their object score, a logit, is above this (figure 4c of the paper).",
        -LARGEST_SCORE,
        LARGEST_SCORE,
    ),
    "memory.rank_threshold": Setting(
        "Free places go to the best of the other frames with a predicted IoU above this "
        "(figure 4d of the paper).",
        0.0,
        1.0,
    ),
    "memory.interval": Setting("Frames between two candidates for the memory.", 1, 30),
    "memory.window": Setting("Candidates are of so many newest frames.", 1, 1000),
    "memory.keep_absent": Setting(
        "Newest frames remembered in any case where the target is absent from them; 0: as the "
        "paper writes the rule.",
        0,
        6,
    ),
    "memory.foreground_threshold": Setting(
        "Probability below which a pixel is unsure, for memory.spatial.", 0.0, 1.0
    ),
    "memory.max_prompted_frames": Setting(
        "Selected or refined frames remembered per target, the first one always.", 1, 32
    ),
    "lost_after": Setting(
        "Frames without a target after which it counts as lost instead of occluded.",
        1,
        LARGEST_INTEGER,
    ),
}
"""By name: `motion.flow` is `TrackerConfig().motion.flow`."""


def declarations() -> dict[str, tuple[Any, ParameterDescriptor]]:
    """Every parameter of the node by name: its default value and its descriptor."""
    defaults = method_defaults()
    settings = {
        **NODE_SETTINGS,
        **{name: (defaults[name], setting) for name, setting in METHOD_SETTINGS.items()},
    }
    return {
        name: (default, setting.descriptor(default))
        for name, (default, setting) in settings.items()
    }


def method_defaults() -> dict[str, Any]:
    """Every setting of the tracker by its parameter's name, with its default value."""
    return dict(_leaves(TrackerConfig()))


def _leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for entry in fields(config):
        value = getattr(config, entry.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{entry.name}.")
        else:
            yield prefix + entry.name, value


def tracker_config(value: Callable[[str], Any]) -> TrackerConfig:
    """The settings that the parameters say.

    Args:
        value: gives a parameter's value by its name.

    Raises:
        ValueError: values that do not go together.
    """
    return _filled(TrackerConfig(), value)


def _filled(config: Any, value: Callable[[str], Any], prefix: str = "") -> Any:
    changes = {}
    for entry in fields(config):
        name, default = prefix + entry.name, getattr(config, entry.name)
        if is_dataclass(default):
            changes[entry.name] = _filled(default, value, f"{name}.")
        elif name in METHOD_SETTINGS:
            changes[entry.name] = value(name)
    return replace(config, **changes)
