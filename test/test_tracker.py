"""The streaming tracker with the bundled, really trained model."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from mosam_ros.evaluation.metrics import mask_iou
from mosam_ros.mosam import presence
from mosam_ros.mosam import tracker as tracker_module
from mosam_ros.mosam.checkpoints import LoadedModel, load_model
from mosam_ros.mosam.prompts import Prompt, PromptError
from mosam_ros.mosam.results import TargetState
from mosam_ros.mosam.tracker import MemoryConfig, MosamTracker, TrackerConfig, ViewConfig
from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, SCENARIOS, SceneConfig, SyntheticScene

SCENE = SceneConfig(
    height=240, width=320, num_frames=40, num_objects=3, speed=0.01, size=(0.3, 0.4)
)
SEED = FIRST_HELD_OUT_SEED + 7


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("nano", device="cpu")


@pytest.fixture(scope="module")
def clip():
    scene = SyntheticScene(SEED, SCENE)
    return [scene.frame(t) for t in range(12)]


def box_around(mask: np.ndarray) -> Prompt:
    y, x = np.nonzero(mask)
    return Prompt.from_box(x.min(), y.min(), x.max() + 1, y.max() + 1)


def point_in(mask: np.ndarray) -> Prompt:
    y, x = np.nonzero(mask)
    nearest = np.hypot(x - x.mean(), y - y.mean()).argmin()
    return Prompt.from_points([[x[nearest], y[nearest]]])


def test_masks_boxes_and_scores_describe_the_target(loaded, clip):
    tracker = MosamTracker(loaded)
    target_id = tracker.add(Prompt.from_mask(clip[0].masks[0]), label="cup")
    for frame in clip:
        result = tracker.track(frame.image)
    (target,) = result.targets
    assert (target.target_id, target.label, target.state) == (target_id, "cup", TargetState.TRACKED)
    assert target.mask.shape == (240, 320) and target.mask.dtype == bool
    y, x = np.nonzero(target.mask)
    assert (target.box.x, target.box.y) == (x.min(), y.min())
    assert (target.box.width, target.box.height) == (np.ptp(x) + 1, np.ptp(y) + 1)
    assert target.centroid == pytest.approx((x.mean(), y.mean()), abs=1e-3)
    assert target.area == len(x)
    assert 0 <= target.predicted_iou <= 1 and 0.5 < target.presence <= 1
    assert result.image_size == (240, 320) and result.frame_index == len(clip) - 1
    labels = result.label_image()
    assert labels.dtype == np.uint16 and np.array_equal(labels == target_id, target.mask)
    assert mask_iou(target.mask, clip[-1].masks[0]) > 0.5


@pytest.mark.parametrize("prompt_for", [Prompt.from_mask, box_around, point_in])
def test_moving_the_prompt_moves_the_mask(loaded, prompt_for):
    """The mask follows the prompt, not what is salient: over all pairs of objects of six scenes."""
    own, other = [], []
    for seed in range(6):
        frame = SyntheticScene(SEED + seed, replace(SCENE, num_objects=3)).frame(0)
        for index in range(3):
            if frame.visibility[index] < 0.6:
                continue
            tracker = MosamTracker(loaded)
            tracker.add(prompt_for(frame.masks[index]))
            mask = tracker.track(frame.image).targets[0].mask
            own.append(mask_iou(mask, frame.masks[index]))
            other.append(max(mask_iou(mask, m) for i, m in enumerate(frame.masks) if i != index))
    assert len(own) >= 12
    assert np.mean(other) < 0.15
    assert np.mean(own) > np.mean(other) + 0.3


def test_the_model_tracks_where_the_first_mask_does_not(loaded):
    tracked, repeated = [], []
    for seed in range(4):
        scene = SyntheticScene(SEED + 100 + seed, replace(SCENARIOS["easy"], speed=0.025))
        clip = [scene.frame(t) for t in range(24)]
        tracker = MosamTracker(loaded)
        tracker.add(Prompt.from_mask(clip[0].masks[0]))
        for frame in clip:
            mask = tracker.track(frame.image).targets[0].mask
            if frame.visibility[0] > 0.1:
                tracked.append(mask_iou(mask, frame.masks[0]))
                repeated.append(mask_iou(clip[0].masks[0], frame.masks[0]))
    assert np.mean(repeated) < 0.45
    assert np.mean(tracked) > np.mean(repeated) + 0.2


def masks_of(result) -> dict[int, np.ndarray]:
    return {t.target_id: t.mask_logits for t in result.targets}


def test_adding_refining_and_removing_one_target_leaves_the_others(loaded, clip):
    alone, busy = MosamTracker(loaded), MosamTracker(loaded)
    for tracker in (alone, busy):
        tracker.add(Prompt.from_mask(clip[0].masks[0]), target_id=5)
    for t, frame in enumerate(clip):
        if t == 3:
            busy.add(box_around(frame.masks[1]), target_id=9)
        if t == 6:
            busy.refine(9, point_in(frame.masks[1]))
        if t == 9:
            busy.remove(9)
        difference = masks_of(alone.track(frame.image))[5] - masks_of(busy.track(frame.image))[5]
        assert np.abs(difference).max() <= 1e-4
    assert busy.target_ids == (5,)


def test_refining_by_a_mask_replaces_the_target(loaded, clip):
    tracker = MosamTracker(loaded)
    target = tracker.add(Prompt.from_mask(clip[0].masks[0]))
    tracker.track(clip[0].image)
    tracker.refine(target, Prompt.from_mask(clip[1].masks[1]))
    result = tracker.track(clip[1].image).targets[0]
    assert mask_iou(result.mask, clip[1].masks[1]) > 0.85


def test_refining_by_points_corrects_the_mask(loaded, clip):
    tracker = MosamTracker(loaded)
    target = tracker.add(Prompt.from_mask(clip[0].masks[0]))
    tracker.track(clip[0].image)
    tracker.refine(target, box_around(clip[1].masks[0]))
    assert mask_iou(tracker.track(clip[1].image).targets[0].mask, clip[1].masks[0]) > 0.5


def test_a_point_off_the_target_refines_it_but_selects_nothing(loaded, clip):
    off = Prompt.from_points([np.argwhere(clip[1].masks[1]).mean(0)[::-1]], [0])
    tracker = MosamTracker(loaded)
    with pytest.raises(PromptError, match="label 1"):
        tracker.add(off)
    target = tracker.add(Prompt.from_mask(clip[0].masks[0]))
    tracker.track(clip[0].image)
    tracker.refine(target, off)
    result = tracker.track(clip[1].image)
    assert not result.rejected
    assert mask_iou(result.targets[0].mask, clip[1].masks[0]) > 0.7


def test_all_that_is_said_before_a_frame_counts_in_it(loaded, clip):
    together, apart = MosamTracker(loaded), MosamTracker(loaded)
    box, inner = box_around(clip[0].masks[0]), point_in(clip[0].masks[0])
    together.add(Prompt.from_points(inner.points, inner.labels, box.box), target_id=1)
    apart.add(box, target_id=1)
    apart.refine(1, inner)
    results = [tracker.track(clip[0].image) for tracker in (together, apart)]
    assert np.array_equal(*(result.targets[0].mask for result in results))
    apart.refine(1, Prompt.from_mask(clip[1].masks[0]))
    with pytest.raises(PromptError, match="given as a mask in that frame"):
        apart.refine(1, inner)


def test_warming_up_prompts_by_motion_and_leaves_nothing(loaded, monkeypatch):
    decode, prompts = loaded.model.decode, []

    def seen_decode(features, conditioned, points=None, *rest, **named):
        prompts.append(0 if points is None else points.labels.shape[1])
        return decode(features, conditioned, points, *rest, **named)

    monkeypatch.setattr(loaded.model, "decode", seen_decode)
    tracker = MosamTracker(loaded, TrackerConfig(max_targets=1))
    tracker.warm_up()
    assert prompts[0] == 2, "a box"
    assert prompts[-1] == 2 + tracker.config.motion.num_key_points
    assert tracker.target_ids == () and tracker.memory_bytes() == 0


def test_targets_are_limited(loaded, clip):
    tracker = MosamTracker(loaded, TrackerConfig(max_targets=2))
    prompt = Prompt.from_mask(clip[0].masks[0])
    first = tracker.add(prompt)
    tracker.add(prompt)
    with pytest.raises(PromptError, match="2 targets: remove one first, or raise max_targets"):
        tracker.add(prompt)
    tracker.remove(first)
    tracker.add(prompt)


def test_what_a_frame_failed_with_is_not_tried_again(loaded, clip, monkeypatch):
    """The failure is made here, as a device that runs out of memory would."""
    tracker = MosamTracker(loaded)
    kept = tracker.add(Prompt.from_mask(clip[0].masks[0]))
    tracker.track(clip[0].image)
    tracker.add(Prompt.from_mask(clip[1].masks[1]))
    tracker.refine(kept, Prompt.from_mask(clip[1].masks[1]))
    with monkeypatch.context() as broken:
        broken.setattr(loaded.model, "encode_memory", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tracker.track(clip[1].image)
    assert tracker.target_ids == (kept,)
    (result,) = tracker.track(clip[1].image).targets
    assert mask_iou(result.mask, clip[1].masks[0]) > 0.7


@pytest.mark.parametrize("config", [TrackerConfig(), TrackerConfig.sam2()])
def test_a_frame_that_fails_after_it_was_remembered_costs_only_itself(
    loaded, clip, monkeypatch, config
):
    tracker = MosamTracker(loaded, config)
    tracker.add(Prompt.from_mask(clip[0].masks[0]))
    for t in range(10):
        with monkeypatch.context() as broken:
            if t == 4:
                broken.setattr(tracker_module, "key_points", lambda *_: 1 / 0)
                with pytest.raises(ZeroDivisionError):
                    tracker.track(clip[t].image)
                continue
            result = tracker.track(clip[t].image)
        assert result.frame_index == t
        assert mask_iou(result.targets[0].mask, clip[t].masks[0]) > 0.7


def test_bytes_held_and_time_do_not_grow(clip):
    """The old tracker is timed in turns with a young one, for the machine may have other work."""
    loaded = load_model("nano", device="cpu", image_size=96)
    small = np.ascontiguousarray(clip[0].image[::4, ::4])
    old, young = MosamTracker(loaded), MosamTracker(loaded)
    for tracker in (old, young):
        tracker.add(Prompt.from_mask(clip[0].masks[0][::4, ::4]))
    held = {}
    for t in range(2000):
        old.track(small)
        held[t + 1] = old.memory_bytes()
    assert 0 < held[100] == held[2000]
    for _ in range(100):
        young.track(small)
    seconds = {tracker: [seconds_of(tracker, small) for _ in range(5)] for tracker in (old, young)}
    for _ in range(200):
        for tracker, history in seconds.items():
            history.append(seconds_of(tracker, small))
    assert np.median(seconds[old]) < 1.25 * np.median(seconds[young])


def seconds_of(tracker: MosamTracker, frame: np.ndarray) -> float:
    started = time.perf_counter()
    tracker.track(frame)
    return time.perf_counter() - started


def test_repeated_refining_is_bounded_and_a_removed_target_frees_its_memory(loaded, clip):
    tracker = MosamTracker(loaded, TrackerConfig(memory=MemoryConfig(max_prompted_frames=3)))
    prompt = Prompt.from_mask(clip[0].masks[0])
    target = tracker.add(prompt)
    held = []
    for _ in range(40):
        tracker.track(clip[0].image)
        tracker.refine(target, prompt)
        tracker.track(clip[0].image)
        held.append(tracker.memory_bytes())
    assert held[-1] == held[-10]
    tracker.remove(target)
    assert tracker.memory_bytes() == 0


def test_a_target_that_stays_away_is_occluded_then_lost(loaded, clip):
    tracker = MosamTracker(loaded, TrackerConfig(lost_after=3))
    tracker.add(Prompt.from_mask(clip[0].masks[0]))
    tracker.track(clip[0].image)
    empty = np.full((240, 320, 3), 90, np.uint8)
    states = [tracker.track(empty).targets[0] for _ in range(8)]
    assert states[-1].state == TargetState.LOST
    assert states[-1].frames_since_seen > 3
    assert [s.state for s in states].count(TargetState.OCCLUDED) == 3
    assert states[-1].box is None and states[-1].area == 0 and states[-1].presence < 0.5


def test_a_doubted_target_is_occluded_and_has_no_mask(loaded, clip, monkeypatch):
    doubting, trusting = (MosamTracker(loaded, TrackerConfig(doubt_frames=n)) for n in (2, 0))
    for tracker in (doubting, trusting):
        tracker.add(Prompt.from_mask(clip[0].masks[0]))
        for frame in clip[:2]:
            tracker.track(frame.image)
    monkeypatch.setattr(presence, "DOUBTFUL_SCORE", 9.0)
    first, *others = [doubting.track(clip[2].image).targets[0] for _ in range(3)]
    assert first.state == TargetState.TRACKED and first.area > 0
    for target in others:
        assert target.state == TargetState.OCCLUDED and target.object_score > 0
        assert target.box is None and target.centroid is None and target.area == 0
        assert not target.mask.any() and (target.mask_logits < 0).all()
    for _ in range(3):
        target = trusting.track(clip[2].image).targets[0]
        assert target.state == TargetState.TRACKED and target.area > 0
    monkeypatch.undo()
    target = doubting.track(clip[2].image).targets[0]
    assert target.state == TargetState.TRACKED and target.area > 0


def test_a_prompt_outside_the_frame_is_reported_and_the_others_go_on(loaded, clip):
    tracker = MosamTracker(loaded)
    good = tracker.add(Prompt.from_mask(clip[0].masks[0]))
    bad = tracker.add(Prompt.from_points([[1000, 10]]))
    result = tracker.track(clip[0].image)
    assert [t.target_id for t in result.targets] == [good] == list(tracker.target_ids)
    assert [r.target_id for r in result.rejected] == [bad]
    assert "outside the image of 320x240" in result.rejected[0].reason
    tracker.refine(good, Prompt.from_mask(np.ones((10, 10))))
    result = tracker.track(clip[1].image)
    assert "10x10" in result.rejected[0].reason
    assert result.targets[0].state == TargetState.TRACKED


def test_the_frame_size_may_change(loaded, clip):
    tracker = MosamTracker(loaded)
    tracker.add(Prompt.from_mask(clip[0].masks[0]))
    tracker.track(clip[0].image)
    half = np.ascontiguousarray(clip[1].image[::2, ::2])
    result = tracker.track(half)
    assert result.targets[0].mask.shape == (120, 160)
    assert mask_iou(result.targets[0].mask, clip[1].masks[0][::2, ::2]) > 0.4


@pytest.mark.parametrize(("shape", "dtype"), [((4, 4), "u1"), ((4, 4, 3), "f8"), ((0, 4, 3), "u1")])
def test_what_is_not_an_rgb_frame_is_refused(loaded, shape, dtype):
    with pytest.raises(ValueError, match="uint8 RGB"):
        MosamTracker(loaded).track(np.zeros(shape, dtype))


def test_ids_are_stable_unique_and_checked(loaded, clip):
    tracker = MosamTracker(loaded)
    prompt = Prompt.from_mask(clip[0].masks[0])
    first = tracker.add(prompt)
    tracker.remove(first)
    assert tracker.add(prompt) == first + 1
    tracker.add(prompt, target_id=65535)
    for call in (
        lambda: tracker.add(prompt, target_id=65535),
        lambda: tracker.add(prompt, target_id=0),
        lambda: tracker.refine(77, prompt),
        lambda: tracker.remove(77),
    ):
        with pytest.raises(PromptError, match="target"):
            call()
    assert tracker.add(prompt) not in (first + 1, 65535)
    tracker.clear()
    assert tracker.target_ids == ()
    assert tracker.track(clip[0].image).targets == ()


def test_bfloat16_gives_the_same_masks(loaded, clip):
    reduced = replace(loaded, precision=torch.bfloat16)
    exact, rough = MosamTracker(loaded), MosamTracker(reduced)
    for tracker in (exact, rough):
        tracker.add(Prompt.from_mask(clip[0].masks[0]))
    overlaps = [
        mask_iou(exact.track(f.image).targets[0].mask, rough.track(f.image).targets[0].mask)
        for f in clip
    ]
    assert np.mean(overlaps) > 0.9


def test_image_size_is_a_setting(clip):
    small = load_model("nano", device="cpu", image_size=192)
    tracker = MosamTracker(small)
    tracker.add(Prompt.from_mask(clip[0].masks[0]))
    for frame in clip:
        target = tracker.track(frame.image).targets[0]
    assert target.mask_logits.shape == (48, 48) and target.mask.shape == (240, 320)


@pytest.mark.parametrize(("interval", "is_held"), [(1 / 30, True), (0.2, False)])
def test_what_is_found_far_from_the_forecast_with_a_low_score_is_not_taken_for_the_target(
    loaded, clip, interval, is_held
):
    """The image jumps by two sizes of the target, unless frames are so rare that this is usual."""
    tracker = MosamTracker(loaded, TrackerConfig(view=ViewConfig(max_zoom=1.0)))
    tracker.add(Prompt.from_mask(clip[0].masks[0]), target_id=1)
    jumped = np.roll(clip[4].image, -120, axis=1)
    images = [*(frame.image for frame in clip[:5]), *[jumped] * 5]
    results = [tracker.track(x, 1.0 + t * interval).targets[0] for t, x in enumerate(images)]
    assert results[5].box.x == pytest.approx(results[4].box.x - 120, abs=10)
    target = tracker._targets[1]
    if is_held:
        assert [r.state for r in results[7:9]] == [TargetState.TRACKED, TargetState.OCCLUDED]
        assert not results[9].mask.any()
        assert [e.score_ratio for e in list(target.bank.recent)[-5:]] == [0.0] * 5
        assert target.forecaster.num_observations == 5
    else:
        assert all(r.state is TargetState.TRACKED and r.area > 0 for r in results)
        assert target.bank.recent[-1].score_ratio > 0.7 and target.was_reliable


@pytest.mark.parametrize("is_hidden_before", [False, True])
def test_a_target_that_was_out_of_sight_may_come_back_far_from_its_forecast(
    loaded, clip, is_hidden_before
):
    tracker = MosamTracker(loaded, TrackerConfig(view=ViewConfig(max_zoom=1.0)))
    tracker.add(Prompt.from_mask(clip[0].masks[0]), target_id=1)
    for frame in clip[:5]:
        tracker.track(frame.image)
    if is_hidden_before:
        assert tracker.track(np.full_like(clip[0].image, 90)).targets[0].area == 0
    found = tracker.track(np.roll(clip[4].image, -120, axis=1)).targets[0]
    assert found.area > 0
    target = tracker._targets[1]
    assert target.presence.score_ratio < presence.MISPLACED_SCORE
    assert target.presence.is_misplaced is not is_hidden_before


@pytest.fixture
def seen_target(loaded, clip):
    """A target of the tracker after five frames."""
    tracker = MosamTracker(loaded, TrackerConfig(view=ViewConfig(max_zoom=1.0)))
    tracker.add(Prompt.from_mask(clip[0].masks[0]), target_id=1)
    for frame in clip[:5]:
        tracker.track(frame.image)
    return tracker._targets[1]


def test_displacement_is_in_sizes_of_the_target_or_in_larger_errors_of_its_forecast(
    seen_target, clip, monkeypatch
):
    image_size = clip[0].image.shape[:2]
    extent = np.median([box[2:] - box[:2] for box in seen_target.boxes], axis=0)
    size = float(np.sqrt(extent.prod()))
    moved = seen_target.forecast.box + np.array([-1, 0, -1, 0]) * 1.5 * size
    displacement = seen_target.displacement(moved, image_size, 1 / 30)
    assert displacement.center == pytest.approx(1.5, abs=0.01) and displacement.is_large
    monkeypatch.setattr(seen_target.forecaster, "one_frame_error", lambda: 3 * size)
    assert seen_target.displacement(moved, image_size, 1 / 30).center == pytest.approx(
        0.5, abs=0.01
    )


def test_a_target_that_was_away_from_the_edge_is_expected_to_leave_at_it(seen_target, clip):
    height, width = clip[0].image.shape[:2]
    leaving = np.array([width - 30, 100, width + 10, 140], np.float32)
    seen_target.forecast = replace(seen_target.forecast, box=leaving)
    inside = np.array([width - 90.0, 100, width - 50, 140])
    assert seen_target.displacement(inside, (height, width), 1 / 30).edge > 0.4
    seen_target.boxes.appendleft(np.array([width - 40.0, 100, width, 140]))
    assert seen_target.displacement(inside, (height, width), 1 / 30).edge == 0.0


def test_a_target_is_held_to_its_forecast_while_that_is_fresh_or_it_is_doubted(seen_target, clip):
    image_size = clip[0].image.shape[:2]
    moved = seen_target.forecast.box - 200
    target_presence = seen_target.presence

    def is_held(elapsed: float = 1 / 30) -> bool:
        return seen_target.displacement(moved, image_size, elapsed).is_large

    assert is_held() and not is_held(elapsed=0.2)
    seen_target.frames_unsure = 5
    assert not is_held()
    target_presence.is_misplaced = True
    assert is_held()
    target_presence.is_misplaced, target_presence.is_doubted = False, True
    assert is_held()
    target_presence.is_returning = True
    assert not is_held()
