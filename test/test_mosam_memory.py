"""How the tracker uses MoSAM's memory selection: which frames are recalled, which pixels kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mosam_ros.mosam.checkpoints import LoadedModel, load_model
from mosam_ros.mosam.memory import Sam2Memory, TemporalSelection
from mosam_ros.mosam.prompts import Prompt
from mosam_ros.mosam.sam2_model import ImageFeatures, MemorySelection, Prediction
from mosam_ros.mosam.tracker import (
    MemoryConfig,
    MosamTracker,
    MotionConfig,
    TrackerConfig,
    ViewConfig,
)
from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, SceneConfig, SyntheticScene

SCENE = SceneConfig(
    height=240, width=320, num_frames=12, num_objects=2, speed=0.01, size=(0.3, 0.4)
)
NO_MOTION = MotionConfig(sparse=False, dense=False)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("nano", device="cpu")


@pytest.fixture(scope="module")
def clip():
    scene = SyntheticScene(FIRST_HELD_OUT_SEED + 7, SCENE)
    return [scene.frame(t) for t in range(SCENE.num_frames)]


def tracking(loaded, memory: MemoryConfig, clip) -> MosamTracker:
    """A tracker that has followed the first object through a clip."""
    tracker = MosamTracker(loaded, TrackerConfig(NO_MOTION, memory))
    tracker.add(Prompt.from_mask(clip[0].masks[0]), target_id=1)
    for frame in clip:
        tracker.track(frame.image)
    return tracker


@pytest.mark.parametrize(("spatial", "threshold"), [(True, 0.7), (False, 0.0)])
def test_pixels_are_filtered_in_all_frames_but_the_users(
    loaded, clip, monkeypatch, spatial, threshold
):
    seen = []
    encode = loaded.model.encode_memory

    def recording(features, prediction, binarize, foreground_threshold=0.0):
        seen.append((binarize, foreground_threshold))
        return encode(features, prediction, binarize, foreground_threshold)

    monkeypatch.setattr(loaded.model, "encode_memory", recording)
    memory = MemoryConfig(spatial=spatial, foreground_threshold=0.7)
    tracker = MosamTracker(loaded, TrackerConfig(NO_MOTION, memory, ViewConfig(max_zoom=1.0)))
    tracker.add(Prompt.from_mask(clip[0].masks[0]), target_id=1)
    for t, frame in enumerate(clip[:5]):
        if t == 3:
            tracker.refine(1, Prompt.from_mask(frame.masks[0]))
        tracker.track(frame.image)
    tracked, prompted = (False, threshold), (True, 0.0)
    assert seen == [prompted, tracked, tracked, prompted, tracked]


@pytest.fixture
def recalled(loaded, monkeypatch) -> list[MemorySelection]:
    """What every frame attends to from now on; the model attends to it."""
    seen: list[MemorySelection] = []
    attend = loaded.model.attend_to_memory

    def recording(features, memory):
        seen.append(memory)
        return attend(features, memory)

    monkeypatch.setattr(loaded.model, "attend_to_memory", recording)
    return seen


def frames_of(memory: MemorySelection, tracker: MosamTracker) -> tuple[list[int], list[int]]:
    """The frames whose maps, and those whose pointers, are in a selection; oldest first."""
    (target,) = tracker._targets.values()
    entries = [*target.bank.prompted, *target.bank.recent]
    maps, pointers = [], []
    for e in entries:
        maps += [e.frame_index for x in memory.features if torch.equal(e.features, x[0])]
        pointers += [e.frame_index for x in memory.pointers if torch.equal(e.pointer, x[0])]
    return maps, pointers


def doubt(tracker: MosamTracker, frames: tuple[int, ...]) -> None:
    """Lower the predicted IoU that is remembered of some frames."""
    recent = next(iter(tracker._targets.values())).bank.recent
    for i, entry in enumerate(recent):
        if entry.frame_index in frames:
            recent[i] = replace(entry, predicted_iou=0.3)


def test_every_frame_is_remembered_with_its_scores(loaded, clip):
    tracker = tracking(loaded, MemoryConfig(), clip[:1])
    results = [tracker.track(frame.image).targets[0] for frame in clip[1:4]]
    recent = next(iter(tracker._targets.values())).bank.recent
    scores = [(e.predicted_iou, e.object_score) for e in recent]
    assert scores == [(r.predicted_iou, r.object_score) for r in results]


def test_temporal_selection_recalls_no_frame_of_low_predicted_iou(loaded, clip, recalled):
    tracker = tracking(loaded, MemoryConfig(), clip[:10])
    doubt(tracker, (5, 8))
    tracker.track(clip[10].image)
    maps, pointers = frames_of(recalled[-1], tracker)
    assert maps == [0, 2, 3, 4, 6, 7, 9]
    assert pointers == [0, 1, 2, 3, 4, 6, 7, 9]


def test_a_frame_in_which_the_target_is_faint_is_not_recalled(loaded, clip, recalled):
    tracker = tracking(loaded, MemoryConfig(), clip[:10])
    recent = next(iter(tracker._targets.values())).bank.recent
    scores = [e.object_score for e in recent]
    ratios = [score / np.median(scores[:i]) for i, score in enumerate(scores) if i]
    assert [e.score_ratio for e in recent] == pytest.approx([1.0, *ratios])
    recent[7] = replace(recent[7], score_ratio=0.2)
    tracker.track(clip[10].image)
    maps, pointers = frames_of(recalled[-1], tracker)
    assert maps == [0, 3, 4, 5, 6, 7, 9] and 8 not in pointers


def test_without_temporal_selection_the_newest_frames_are_recalled(loaded, clip, recalled):
    tracker = tracking(loaded, MemoryConfig(temporal=False), clip[:10])
    doubt(tracker, (5, 8))
    tracker.track(clip[10].image)
    maps, pointers = frames_of(recalled[-1], tracker)
    assert maps == [0, 4, 5, 6, 7, 8, 9]
    assert pointers == list(range(10))


def test_other_thresholds_count_from_the_next_frame(loaded, clip, recalled):
    tracker = tracking(loaded, MemoryConfig(), clip[:6])
    strict = MemoryConfig(iou_threshold=1.0, rank_threshold=1.0, keep_unsure=False)
    tracker.reconfigure(TrackerConfig(NO_MOTION, strict))
    tracker.track(clip[6].image)
    assert frames_of(recalled[-2], tracker)[0] == [0, 1, 2, 3, 4]
    assert frames_of(recalled[-1], tracker)[0] == [0]


def test_every_setting_reaches_the_rule(loaded):
    named = {
        "iou_threshold": 0.8,
        "occlusion_threshold": 0.5,
        "rank_threshold": 0.3,
        "interval": 2,
        "window": 20,
        "keep_absent": 3,
        "keep_unsure": True,
        "min_score_ratio": 0.6,
    }
    slots, pointers = loaded.model.num_memory_slots, loaded.model.num_pointers
    chosen = MosamTracker(loaded, TrackerConfig(memory=MemoryConfig(**named)))
    assert chosen._policy == TemporalSelection(slots, pointers, **named)
    plain = MosamTracker(loaded, TrackerConfig(memory=MemoryConfig(temporal=False, **named)))
    assert plain._policy == Sam2Memory(slots, pointers)


@pytest.mark.parametrize("name", ["interval", "window", "max_prompted_frames"])
def test_numbers_of_frames_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} is 1 or more frames, not 0"):
        MemoryConfig(**{name: 0})


def test_fewer_than_no_absent_frames_are_refused():
    with pytest.raises(ValueError, match="keep_absent is 0 or more frames, not -1"):
        MemoryConfig(keep_absent=-1)


@pytest.mark.parametrize(
    ("binarize", "threshold", "remembered"),
    [
        (False, 0.0, (0.6, 0.4)),
        (False, 0.5, (0.6, 0.0)),
        (False, 0.7, (0.0, 0.0)),
        (True, 0.0, (1.0, 0.0)),
    ],
)
def test_unsure_pixels_are_remembered_as_background_and_the_others_as_they_are(
    loaded, binarize, threshold, remembered
):
    """The mask that reaches sam2's memory encoder: left of probability 0.6, right of 0.4."""
    model, masks = loaded.model, []
    side, size = model.image_size // 4, model.image_size
    logits = torch.full((1, 1, side, side), np.log(0.6 / 0.4))
    logits[..., side // 2 :] *= -1
    hook = model.base.memory_encoder.register_forward_pre_hook(
        lambda _, arguments: masks.append(arguments[1])
    )
    with torch.inference_mode(), hook:
        model.encode_memory(features_of(model), prediction_of(logits), binarize, threshold)
    scale, bias = model.base.sigmoid_scale_for_mem_enc, model.base.sigmoid_bias_for_mem_enc
    (mask,) = masks
    left, right = ((mask - bias) / scale).split(size // 2, dim=-1)
    seam = 4
    for half, expected in ((left[..., :-seam], remembered[0]), (right[..., seam:], remembered[1])):
        torch.testing.assert_close(half, torch.full_like(half, expected), atol=1e-5, rtol=0)


def features_of(model) -> ImageFeatures:
    side = model.image_size // 16
    empty = torch.zeros(1, 1, 1, 1)
    return ImageFeatures(empty, empty, torch.zeros(1, model.width, side, side), empty)


def prediction_of(logits: torch.Tensor) -> Prediction:
    return Prediction(logits, torch.ones(1), torch.ones(1, 1), torch.zeros(1, 128))
