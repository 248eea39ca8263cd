"""The tracker node's parameters; those of the method have the default values of `TrackerConfig`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from functools import partial
from typing import Any

import torch

from mosam_ros.mosam.checkpoints import (
    MODELS,
    LoadedModel,
    load_model,
    load_motion_encoders,
)
from mosam_ros.mosam.motion.flow import FLOW_METHODS
from mosam_ros.mosam.tracker import LIVE_SETTINGS, SPARSE_ENCODERS, MosamTracker, TrackerConfig
from mosam_ros.mosam.views import LEAST_CONTEXT
from mosam_ros.nodes.image_input import TRANSPORTS
from mosam_ros.nodes.parameters import Change, Setting

LARGEST_INTEGER = 2**31 - 1
LARGEST_SCORE = 32.0
"""Scores are logits; this one is as good as certain."""

CLICKS = ("remove", "refine")
"""What a click on a target does."""

PRECISIONS = ("auto", "fp32", "fp16", "bf16")

METHOD_DEFAULTS = TrackerConfig().settings()

NODE_SETTINGS: Mapping[str, Setting] = {
    "autostart": Setting(True, "Configure and activate when the node starts.", change=Change.FIXED),
    "image_transport": Setting(
        "raw",
        f"How images come: {' or '.join(TRANSPORTS)} (JPEG or PNG on image/compressed).",
        choices=tuple(TRANSPORTS),
        change=Change.RECONFIGURE,
    ),
    "model": Setting(
        "nano",
        f"Name of the model: {', '.join(MODELS)}.",
        choices=tuple(MODELS),
        change=Change.RECONFIGURE,
    ),
    "checkpoint": Setting(
        "", "File with the model's weights; empty: the model's own.", change=Change.RECONFIGURE
    ),
    "motion_checkpoint": Setting(
        "",
        "File with the weights of the motion encoders; empty: the model's own.",
        change=Change.RECONFIGURE,
    ),
    "device": Setting(
        "auto",
        "cpu, cuda, cuda:1, ... or auto (CUDA where there is one).",
        change=Change.RECONFIGURE,
    ),
    "precision": Setting(
        "auto",
        "fp32, fp16, bf16 or auto (fp32 on the CPU, fp16 on CUDA).",
        choices=PRECISIONS,
        change=Change.RECONFIGURE,
    ),
    "image_size": Setting(
        0,
        "Side of the model's input in pixels; 0: the model's own.",
        0,
        LARGEST_INTEGER,
        change=Change.RECONFIGURE,
    ),
    "num_threads": Setting(
        0,
        "CPU threads for the model; 0: OMP_NUM_THREADS, or all cores but one.",
        0,
        LARGEST_INTEGER,
        change=Change.RECONFIGURE,
    ),
    "selection_buffer": Setting(
        2.0,
        "Seconds of frames kept for selections whose stamp names a past frame; 0: none.",
        0.0,
        60.0,
    ),
    "catch_up_limit": Setting(
        0.1,
        "Seconds per new frame for bringing targets selected in the past up to now; one past frame "
        "is tracked in any case.",
        0.001,
        10.0,
    ),
    "click_on_target": Setting(
        "remove",
        f"What a click on a target does: {' or '.join(CLICKS)} it.",
        choices=CLICKS,
    ),
    "rectified": Setting(
        False,
        "The images are rectified: for clicked_point P of camera_info counts, not K and the "
        "distortion.",
    ),
    "stall_after": Setting(
        3.0, "Seconds without an image after which log and diagnostics warn.", 0.1, 3600.0
    ),
}


_Said = partial(Setting, 0)
"""A setting of the method before its default value and its change are known."""

_METHOD: Mapping[str, Setting] = {
    "motion.sparse": _Said(
        "Prompt moving targets with the forecast key points (sparse motion, section 3.2.1 of the "
        "paper)."
    ),
    "motion.dense": _Said(
        "Prompt targets with the forecast box (dense motion, section 3.2.2 of the paper)."
    ),
    "motion.num_key_points": _Said(
        "Key points per target: 1, 5, 9, ... (figure 4a of the paper).", 1, 33, step=4
    ),
    "motion.sparse_encoder": _Said(
        f"How key points go on: {' or '.join(SPARSE_ENCODERS)} (by the motion encoder).",
        choices=SPARSE_ENCODERS,
    ),
    "motion.flow": _Said(
        f"Optical flow: {', '.join(FLOW_METHODS)}; dis needs no weights and no GPU, raft "
        "needs torchvision and a GPU to be fast, feature is the trained motion encoder.",
        choices=FLOW_METHODS,
    ),
    "motion.flow_interval": _Said(
        "Frames between the two images of the flow (figure 4b of the paper).", 1, 30
    ),
    "motion.reliable_iou": _Said(
        "Frames with a lower predicted IoU teach no motion and prompt nothing, unless the target "
        "was selected or refined in them.",
        0.0,
        1.0,
    ),
    "motion.prompt_iou": _Said(
        "Frames with a lower predicted IoU prompt nothing, though they may teach motion; 0: "
        "motion.reliable_iou alone decides, as the paper writes it.",
        0.0,
        1.0,
    ),
    "motion.max_overlap": _Said(
        "Key points are given for targets whose forecast box overlaps less (IoU) with their last "
        "one; 1: for all, as the paper writes it.",
        0.0,
        1.0,
    ),
    "motion.min_area_ratio": _Said(
        "A target whose mask is smaller than this share of its usual area is partly hidden and is "
        "not prompted; 0: it is, as the paper writes it.",
        0.0,
        1.0,
    ),
    "motion.min_iou_ratio": _Said(
        "A target whose predicted IoU is below this share of its usual one may be going behind "
        "something or out of the image and is not prompted; 0: it is, as the paper writes it.",
        0.0,
        1.0,
    ),
    "memory.temporal": _Said(
        "Choose the remembered frames by their scores (section 3.3.1 of the paper); false: "
        "the newest ones, as SAM 2 does."
    ),
    "memory.spatial": _Said("Remember unsure pixels as background (section 3.3.2 of the paper)."),
    "memory.iou_threshold": _Said(
        "Frames with a predicted IoU above this are remembered first (figure 4c of the paper).",
        0.0,
        1.0,
    ),
    "memory.occlusion_threshold": _Said(
        "... if their object score, a logit, is above this (figure 4c of the paper).",
        -LARGEST_SCORE,
        LARGEST_SCORE,
    ),
    "memory.rank_threshold": _Said(
        "Free places go to the best of the other frames with a predicted IoU above this "
        "(figure 4d of the paper, which takes 0.6).",
        0.0,
        1.0,
    ),
    "memory.interval": _Said("Frames between two candidates for the memory.", 1, 30),
    "memory.window": _Said("Candidates are of so many newest frames.", 1, 1000),
    "memory.keep_absent": _Said(
        "Newest frames remembered in any case where the target is absent from them; 0: as the "
        "paper writes the rule.",
        0,
        6,
    ),
    "memory.keep_unsure": _Said(
        "Remember the newest of these other frames too if the target has been in sight since the "
        "last sure one, and all where none is sure; false: as the paper writes the rule."
    ),
    "memory.min_score_ratio": _Said(
        "Frames whose object score is below this share of what is usual of the target are not "
        "remembered, unless it is absent from them or comes back in them; 0: they are, as the "
        "paper writes the rule.",
        0.0,
        1.0,
    ),
    "memory.foreground_threshold": _Said(
        "Probability below which a pixel is unsure, for memory.spatial.", 0.0, 1.0
    ),
    "memory.max_prompted_frames": _Said(
        "Selected or refined frames remembered per target, the first one always.", 1, 32
    ),
    "view.max_zoom": _Said(
        "A small target is looked for in a view around it, the image's sides over this at least; "
        "1: always in the whole image, as SAM 2 does; 0: what the model was trained for. A lost "
        "one is looked for in the whole image.",
        0.0,
        16.0,
    ),
    "view.context": _Said("Sides of a view in extents of its target.", LEAST_CONTEXT, 16.0),
    "lost_after": _Said(
        "Frames without a target after which it counts as lost instead of occluded.",
        1,
        LARGEST_INTEGER,
    ),
    "doubt_frames": _Said(
        "A target counts as occluded, and has no mask, from so many frames in a row on whose "
        "object score is far below what is usual of it, or below it while the mask is far from "
        "its forecast or short of the image's edge at which it leaves; 0: it has one whatever the "
        "score.",
        0,
        LARGEST_INTEGER,
    ),
    "max_targets": _Said(
        "Targets tracked at a time; more are refused, for each costs time and memory.",
        1,
        1000,
    ),
}

METHOD_SETTINGS: Mapping[str, Setting] = {
    name: replace(
        said,
        default=METHOD_DEFAULTS[name],
        change=Change.LIVE if name in LIVE_SETTINGS else Change.RECONFIGURE,
    )
    for name, said in _METHOD.items()
}
"""By name: `motion.flow` is `TrackerConfig().motion.flow`."""

TRACKER_SETTINGS: Mapping[str, Setting] = {**NODE_SETTINGS, **METHOD_SETTINGS}


PYTORCH_THREADS = torch.get_num_threads()
"""OMP_NUM_THREADS, or as many as there are cores."""


def default_threads() -> int:
    """CPU threads where `num_threads` is 0: what OMP_NUM_THREADS says, or all cores but one.

    The last core is left to the rest of the graph. Threads that share every core with other
    processes wait for each other many times per frame.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return PYTORCH_THREADS
    return max(1, PYTORCH_THREADS - 1)


def make_tracker(values: Mapping[str, Any]) -> tuple[MosamTracker, LoadedModel]:
    """The tracker that the parameters describe, and its model; sets PyTorch's threads.

    Args:
        values: of all parameters, by name.

    Raises:
        ValueError: no such model, weights file or device, or values that do not go together.
    """
    config = tracker_config(values)
    threads = values["num_threads"] or default_threads()
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    loaded = load_model(
        values["model"],
        values["checkpoint"] or None,
        values["device"],
        values["precision"],
        values["image_size"] or None,
    )
    encoders = None
    if config.motion.trained:
        encoders = load_motion_encoders(loaded, values["motion_checkpoint"] or None)
    return MosamTracker(loaded, config, encoders), loaded


def tracker_config(values: Mapping[str, Any]) -> TrackerConfig:
    """The settings that the parameters say.

    Args:
        values: of all parameters, by name.

    Raises:
        ValueError: values that do not go together.
    """
    return _filled(TrackerConfig(), values)


def _filled(config: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    changes = {}
    for entry in fields(config):
        name, default = prefix + entry.name, getattr(config, entry.name)
        if is_dataclass(default):
            changes[entry.name] = _filled(default, values, f"{name}.")
        else:
            changes[entry.name] = values[name]
    return replace(config, **changes)
