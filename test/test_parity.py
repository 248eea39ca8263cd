"""The streaming tracker against sam2's own SAM2VideoPredictor on the same weights and video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image

from mosam_ros.mosam.checkpoints import LoadedModel, build_model, load_config, load_model
from mosam_ros.mosam.prompts import Prompt
from mosam_ros.mosam.tracker import MosamTracker, TrackerConfig
from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, SceneConfig, SyntheticScene

NUM_FRAMES = 44
LATE_FRAME = 20
SCENE = SceneConfig(height=256, width=256, num_frames=NUM_FRAMES, full_occlusions=1)

Logits = dict[int, list[np.ndarray]]


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """A synthetic clip as the folder of JPEG frames that sam2's predictor reads."""
    folder = tmp_path_factory.mktemp("video")
    scene = SyntheticScene(FIRST_HELD_OUT_SEED + 3, SCENE)
    for t in range(NUM_FRAMES):
        Image.fromarray(scene.frame(t).image).save(folder / f"{t:05d}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def frames(video: Path) -> list[np.ndarray]:
    return [np.array(Image.open(path)) for path in sorted(video.glob("*.jpg"))]


@pytest.fixture(scope="module")
def prompts() -> dict[int, Prompt]:
    """Target 1 by its mask, target 2 by its box."""
    return {1: Prompt.from_mask(true_masks(0)[0]), 2: box_around(true_masks(0)[1])}


def true_masks(t: int) -> np.ndarray:
    return SyntheticScene(FIRST_HELD_OUT_SEED + 3, SCENE).frame(t).masks


def box_around(mask: np.ndarray) -> Prompt:
    y, x = np.nonzero(mask)
    return Prompt.from_box(x.min(), y.min(), x.max(), y.max())


def bundled() -> LoadedModel:
    return load_model("nano", device="cpu")


def random_tiny() -> LoadedModel:
    torch.manual_seed(5)
    model = build_model("sam2.1_hiera_tiny", image_size=256)
    return LoadedModel("sam2.1_hiera_tiny", model, torch.device("cpu"), torch.float32)


def reference_logits(
    loaded: LoadedModel, video: Path, prompts: dict[int, Prompt], first: dict[int, int]
) -> Logits:
    """Mask logits of sam2's predictor, (S/4, S/4) per frame from each target's first frame on.

    The hole filling of sam2's predictor is off, for it needs a CUDA extension.
    """
    predictor = instantiate(
        load_config(loaded.name).model,
        _target_="sam2.sam2_video_predictor.SAM2VideoPredictor",
        image_size=loaded.model.image_size,
        sam_mask_decoder_extra_args=loaded.model.base.sam_mask_decoder_extra_args,
        binarize_mask_from_pts_for_mem_enc=True,
        fill_hole_area=0,
    ).eval()
    predictor.load_state_dict(loaded.model.base.state_dict())
    state = predictor.init_state(str(video))
    for target, prompt in prompts.items():
        if prompt.mask is not None:
            predictor.add_new_mask(state, first[target], target, prompt.mask)
        else:
            predictor.add_new_points_or_box(state, first[target], target, box=prompt.box)
    for _ in predictor.propagate_in_video(state, start_frame_idx=min(first.values())):
        pass
    logits: Logits = {}
    for target, index in state["obj_id_to_idx"].items():
        outputs = state["output_dict_per_obj"][index]
        merged = outputs["cond_frame_outputs"] | outputs["non_cond_frame_outputs"]
        logits[target] = [merged[t]["pred_masks"][0, 0].numpy() for t in sorted(merged)]
    return logits


def streamed_logits(
    loaded: LoadedModel,
    frames: list[np.ndarray],
    prompts: dict[int, Prompt],
    first: dict[int, int],
) -> Logits:
    tracker = MosamTracker(loaded, TrackerConfig.sam2())
    logits: Logits = {target: [] for target in prompts}
    for t, frame in enumerate(frames):
        for target, prompt in prompts.items():
            if first[target] == t:
                tracker.add(prompt, target_id=target)
        for result in tracker.track(frame).targets:
            logits[result.target_id].append(result.mask_logits)
    return logits


def largest_difference(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    assert len(a) == len(b) > 0
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("make_model", [bundled, random_tiny])
def test_streaming_equals_sam2_video_predictor(make_model, video, frames, prompts):
    loaded = make_model()
    first = {1: 0, 2: 0}
    expected = reference_logits(loaded, video, prompts, first)
    streamed = streamed_logits(loaded, frames, prompts, first)
    for target in prompts:
        assert len(streamed[target]) == NUM_FRAMES
        assert largest_difference(streamed[target], expected[target]) <= 1e-3


def test_streaming_equals_sam2_on_a_single_thread(video, frames, prompts):
    """Where PyTorch rounds some operations in other ways."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        test_streaming_equals_sam2_video_predictor(bundled, video, frames, prompts)
    finally:
        torch.set_num_threads(threads)


def test_a_late_target_equals_sam2_and_leaves_the_first_unchanged(video, frames, prompts):
    loaded = bundled()
    alone = streamed_logits(loaded, frames, {1: prompts[1]}, {1: 0})
    prompts = prompts | {2: box_around(true_masks(LATE_FRAME)[1])}
    late = {1: 0, 2: LATE_FRAME}
    together = streamed_logits(loaded, frames, prompts, late)
    assert largest_difference(alone[1], together[1]) <= 1e-4
    expected = reference_logits(loaded, video, {2: prompts[2]}, {2: LATE_FRAME})
    assert len(together[2]) == NUM_FRAMES - LATE_FRAME
    assert largest_difference(together[2], expected[2]) <= 1e-3
