"""The same video on the GPU as on the CPU, in every precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mosam_ros.evaluation.metrics import mask_iou
from mosam_ros.mosam.checkpoints import load_model
from mosam_ros.mosam.prompts import Prompt
from mosam_ros.mosam.results import FrameResult
from mosam_ros.mosam.tracker import MosamTracker, TrackerConfig
from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, SceneConfig, SyntheticScene

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here"),
]

SCENE = SceneConfig(height=240, width=320, num_frames=20, num_objects=3, speed=0.01)


@pytest.fixture(scope="module")
def clip():
    scene = SyntheticScene(FIRST_HELD_OUT_SEED + 3, SCENE)
    return [scene.frame(t) for t in range(SCENE.num_frames)]


def follow(clip, device: str, precision: str, config: TrackerConfig) -> list[FrameResult]:
    """Three targets, prompted by a mask, a box and a point."""
    tracker = MosamTracker(load_model("nano", device=device, precision=precision), config)
    masks = clip[0].masks
    rows, columns = np.nonzero(masks[1])
    x, y = (int(np.median(np.nonzero(masks[2])[axis])) for axis in (1, 0))
    tracker.add(Prompt.from_mask(masks[0]))
    tracker.add(Prompt.from_box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    tracker.add(Prompt.from_points([(x, y)], [1]))
    return [tracker.track(frame.image) for frame in clip]


@pytest.mark.parametrize("config", [TrackerConfig(), TrackerConfig.sam2()], ids=["mosam", "sam2"])
@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.98), ("fp16", 0.95), ("bf16", 0.9)])
def test_the_gpu_gives_the_masks_of_the_cpu(clip, config, precision, least):
    on_cpu = follow(clip, "cpu", "fp32", config)
    on_gpu = follow(clip, "cuda", precision, config)
    ious = [
        mask_iou(a.mask, b.mask)
        for one, other in zip(on_cpu, on_gpu, strict=True)
        for a, b in zip(one.targets, other.targets, strict=True)
        if a.area
    ]
    assert len(ious) > 40
    assert np.mean(ious) > least
