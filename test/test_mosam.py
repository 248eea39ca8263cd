"""What MoSAM adds to the tracker: motion prompts behind their gate, and memory selection."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from mosam_ros.mosam.checkpoints import LoadedModel, load_model
from mosam_ros.mosam.motion.boxes import box_iou
from mosam_ros.mosam.motion.preference import forecast_preference
from mosam_ros.mosam.prompts import Prompt
from mosam_ros.mosam.results import FrameResult, MotionPrompt, TargetState
from mosam_ros.mosam.sam2_model import Candidates
from mosam_ros.mosam.tracker import (
    MemoryConfig,
    MosamTracker,
    MotionConfig,
    TrackerConfig,
    ViewConfig,
    _Guide,
)
from mosam_ros.mosam.views import View
from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, SceneConfig, SyntheticScene

SCENE = SceneConfig(
    height=240, width=320, num_frames=24, num_objects=2, speed=0.01, size=(0.3, 0.4)
)
NO_MOTION = MotionConfig(sparse=False, dense=False)
ALWAYS_PROMPTED = TrackerConfig(motion=MotionConfig(max_overlap=1.0))
PLAIN_MEMORY = MemoryConfig(temporal=False, spatial=False)
HIDDEN = range(10, 16)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("nano", device="cpu")


@pytest.fixture(scope="module")
def clip():
    scene = SyntheticScene(FIRST_HELD_OUT_SEED + 7, SCENE)
    return [scene.frame(t) for t in range(SCENE.num_frames)]


@pytest.fixture(scope="module")
def covered(clip) -> list[np.ndarray]:
    """The clip's images, black in the frames HIDDEN."""
    return [f.image * np.uint8(t not in HIDDEN) for t, f in enumerate(clip)]


def follow(loaded, config, clip, images=None, **options) -> tuple[MosamTracker, list[FrameResult]]:
    tracker = MosamTracker(loaded, config)
    tracker.add(Prompt.from_mask(clip[0].masks[0]))
    images = images or [f.image for f in clip]
    return tracker, [tracker.track(image, **options) for image in images]


def injected(results: list[FrameResult]) -> list[bool]:
    return [r.targets[0].injected_prompt is not None for r in results]


def test_a_tracked_target_is_prompted_once_its_motion_is_known(loaded, clip):
    _, results = follow(loaded, ALWAYS_PROMPTED, clip[:8])
    assert injected(results) == [False] * 3 + [True] * 5
    for before, after in zip(results[2:-1], results[3:], strict=True):
        made, used = before.targets[0].motion_prompt, after.targets[0].injected_prompt
        np.testing.assert_allclose(made.key_points, used.key_points)
        np.testing.assert_allclose(made.box, used.box)


@pytest.mark.parametrize("max_overlap", [0.0, 0.6, 0.8, 0.95, 1.0])
def test_key_points_are_given_for_targets_that_leave_their_place(loaded, clip, max_overlap):
    motion = MotionConfig(dense=False, max_overlap=max_overlap)
    _, results = follow(loaded, TrackerConfig(motion=motion), clip[:9])
    for before, after in zip(results[2:-1], results[3:], strict=True):
        box, forecast = before.targets[0].box, before.targets[0].motion_prompt
        last = np.float64([box.x, box.y, box.x + box.width, box.y + box.height])
        prompted = after.targets[0].injected_prompt is not None
        assert prompted == (box_iou(forecast.box, last) <= max_overlap)


@pytest.mark.parametrize("max_overlap", [0.0, 1.0])
def test_a_box_is_given_whether_the_target_moves_or_not(loaded, clip, max_overlap, decoded):
    """Two corners, and with them the five key points of a target that moves enough."""
    config = TrackerConfig(motion=MotionConfig(max_overlap=max_overlap))
    _, results = follow(loaded, config, clip[:8])
    assert injected(results) == [False] * 3 + [True] * 5
    assert decoded[-5:] == [7 if max_overlap else 2] * 5 and not any(decoded[:-5])


def test_a_prompt_is_cut_to_the_image():
    points = np.float32([[-5, 70], [30, 90]])
    forecast = MotionPrompt(0.0, True, points, np.float32([-8, 60, 40, 130]), np.zeros(2), 1.0)
    whole = View.whole((100, 200))
    both = _Guide(forecast, with_box=True, with_key_points=True)
    cut = [[0, 60], [39, 99], [0, 70], [30, 90]]
    np.testing.assert_array_equal(both.coordinates(whole), cut)
    assert len(both.labels) == 4
    only_points = _Guide(forecast, with_box=False, with_key_points=True)
    np.testing.assert_array_equal(only_points.coordinates(whole), cut[2:])


@pytest.fixture
def decoded(loaded, monkeypatch) -> list[int]:
    """How many points every decoded frame was prompted with."""
    counts: list[int] = []
    decode = loaded.model.decode

    def counting(features, conditioned, points=None, mask_logits=None):
        counts.append(0 if points is None else points.labels.shape[1])
        return decode(features, conditioned, points, mask_logits)

    monkeypatch.setattr(loaded.model, "decode", counting)
    return counts


def test_the_forecast_is_near_the_target(loaded, clip):
    _, results = follow(loaded, TrackerConfig(), clip[:10])
    for before, frame in zip(results[3:-1], clip[4:10], strict=True):
        y, x = np.nonzero(frame.masks[0])
        truth = np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])
        assert np.abs(before.targets[0].motion_prompt.box - truth).max() < 15


def test_nothing_is_injected_while_the_target_is_hidden(loaded, clip, covered):
    _, results = follow(loaded, ALWAYS_PROMPTED, clip, covered)
    tracked = [r.targets[0].state is TargetState.TRACKED for r in results]
    assert tracked[HIDDEN[0] - 1] and not any(tracked[t] for t in HIDDEN)
    for t in range(1, len(results)):
        assert tracked[t - 1] or not injected(results)[t]
    uncertainty = [results[t].targets[0].motion_prompt.uncertainty for t in HIDDEN]
    assert np.all(np.diff(uncertainty) > 0)
    assert not results[HIDDEN[-1]].targets[0].motion_prompt.valid


def test_a_user_prompt_comes_before_the_forecast(loaded, clip):
    tracker = MosamTracker(loaded, ALWAYS_PROMPTED)
    target_id = tracker.add(Prompt.from_mask(clip[0].masks[0]))
    for frame in clip[:6]:
        assert tracker.track(frame.image).targets[0].motion_prompt is not None
    tracker.refine(target_id, Prompt.from_mask(clip[6].masks[0]))
    assert tracker.track(clip[6].image).targets[0].injected_prompt is None


def test_frames_prompted_by_the_model_are_remembered_as_tracked_ones(loaded, clip, monkeypatch):
    """Neither conditioning frames nor hardened masks."""
    hardened = []
    encode = type(loaded.model).encode_memory

    def recording(self, features, prediction, binarize, foreground_threshold=0.0):
        hardened.append(binarize)
        return encode(self, features, prediction, binarize, foreground_threshold)

    monkeypatch.setattr(type(loaded.model), "encode_memory", recording)
    tracker, results = follow(loaded, ALWAYS_PROMPTED, clip[:8])
    assert sum(injected(results)) == 5
    assert hardened == [True, True] + [False] * 7
    (target,) = tracker._targets.values()
    assert [e.frame_index for e in target.bank.prompted] == [0]
    assert [e.frame_index for e in target.bank.recent] == list(range(1, 8))


@pytest.mark.parametrize(
    "motion",
    [
        MotionConfig(dense=False, max_overlap=1.0),
        MotionConfig(sparse=False, max_overlap=1.0),
        MotionConfig(num_key_points=1, max_overlap=1.0),
        MotionConfig(num_key_points=9, max_overlap=1.0),
        MotionConfig(flow_interval=3, max_overlap=1.0),
    ],
)
def test_every_part_of_the_motion_works_alone(loaded, clip, motion):
    _, results = follow(loaded, TrackerConfig(motion=motion), clip[:8])
    assert injected(results)[-1]
    assert results[-1].targets[0].injected_prompt.key_points.shape == (motion.num_key_points, 2)
    assert results[-1].targets[0].state is TargetState.TRACKED


def test_switched_off_nothing_is_injected_and_forecasts_still_come(loaded, clip):
    _, results = follow(loaded, TrackerConfig.sam2(), clip[:6])
    assert not any(injected(results))
    assert results[-1].targets[0].motion_prompt.valid


def test_switched_off_it_is_plain_sam2(loaded, clip):
    """The settings of switched-off parts change nothing."""
    tuned = TrackerConfig(
        replace(NO_MOTION, num_key_points=9, flow_interval=3, reliable_iou=0.1, max_overlap=1.0),
        replace(PLAIN_MEMORY, iou_threshold=0.99, interval=4, window=5, foreground_threshold=0.9),
        ViewConfig(max_zoom=1.0, context=4.0),
    )
    _, plain = follow(loaded, TrackerConfig.sam2(), clip[:10])
    _, other = follow(loaded, tuned, clip[:10])
    for a, b in zip(plain, other, strict=True):
        np.testing.assert_array_equal(a.targets[0].mask_logits, b.targets[0].mask_logits)


def forecast_at_interval(loaded, clip, interval: float) -> MotionPrompt:
    tracker = MosamTracker(loaded)
    tracker.add(Prompt.from_mask(clip[0].masks[0]))
    for t in range(6):
        result = tracker.track(clip[t].image, stamp=100 + t * interval)
    return result.targets[0].motion_prompt


def test_velocity_and_predicted_time_follow_the_stamps(loaded, clip):
    slow, fast = (forecast_at_interval(loaded, clip, s) for s in (0.1, 0.05))
    assert (slow.time, fast.time) == (pytest.approx(100.6), pytest.approx(100.3))
    np.testing.assert_allclose(fast.velocity, 2 * slow.velocity, rtol=0.05)


def test_a_jump_back_in_time_starts_the_motion_anew(loaded, clip):
    tracker = MosamTracker(loaded)
    tracker.add(Prompt.from_mask(clip[0].masks[0]))
    for t in range(6):
        tracker.track(clip[t].image, stamp=50 + t / 30)
    result = tracker.track(clip[6].image, stamp=1.0).targets[0]
    assert result.injected_prompt is None and not result.motion_prompt.valid
    assert result.state is TargetState.TRACKED


def test_a_long_time_without_targets_is_no_frame_interval(loaded, clip):
    tracker = MosamTracker(loaded)
    for stamp in (10.0, 10.1):
        tracker.track(clip[0].image, stamp)
    tracker.add(Prompt.from_mask(clip[0].masks[0]))
    first = tracker.track(clip[0].image, stamp=95.0).targets[0].motion_prompt
    assert not first.valid and 95 < first.time < 95.5


def only(tracker: MosamTracker):
    """The state of the one target."""
    (target,) = tracker._targets.values()
    return target


def moving(loaded, clip) -> tuple[MosamTracker, FrameResult]:
    """A target in its seventh frame, its motion known, and the result of that frame."""
    tracker, results = follow(loaded, ALWAYS_PROMPTED, clip[:7])
    assert only(tracker).was_reliable and only(tracker).forecaster.num_observations == 7
    return tracker, results[-1]


def test_a_frame_with_a_low_predicted_iou_teaches_no_motion_and_prompts_nothing(loaded, clip):
    tracker, _ = moving(loaded, clip)
    motion = replace(ALWAYS_PROMPTED.motion, reliable_iou=1.0)
    tracker.reconfigure(replace(ALWAYS_PROMPTED, motion=motion))
    unsure = tracker.track(clip[7].image)
    tracker.reconfigure(ALWAYS_PROMPTED)
    assert only(tracker).forecaster.num_observations == 7
    after, later = tracker.track(clip[8].image), tracker.track(clip[9].image)
    assert [r.targets[0].state for r in (unsure, after, later)] == [TargetState.TRACKED] * 3
    assert injected([unsure, after, later]) == [True, False, True]
    assert only(tracker).forecaster.num_observations == 9


@pytest.mark.parametrize(("share", "reliable"), [(0.4, False), (0.6, True)])
def test_a_mask_that_lost_half_its_usual_area_teaches_no_motion(loaded, clip, share, reliable):
    """The usual area is set here, so that the next mask has the given share of it."""
    copy, _ = moving(loaded, clip)
    area = copy.track(clip[7].image).targets[0].area
    tracker, _ = moving(loaded, clip)
    only(tracker).areas.extend([round(area / share)] * 5)
    small = tracker.track(clip[7].image)
    assert small.targets[0].state is TargetState.TRACKED and small.targets[0].area == area
    assert only(tracker).forecaster.num_observations == 7 + reliable
    assert injected([small, tracker.track(clip[8].image)]) == [True, reliable]


def test_a_target_that_stays_small_is_trusted_again(loaded, clip):
    """Area is lost suddenly in view of five masks: the third small one in a row is no loss."""
    tracker, last = moving(loaded, clip)
    only(tracker).areas.extend([5 * last.targets[0].area] * 5)
    results, reliable = [], []
    for frame in clip[7:12]:
        results.append(tracker.track(frame.image))
        reliable.append(only(tracker).was_reliable)
    assert reliable == [False, False, False, True, True]
    assert injected(results) == [True, False, False, False, True]
    assert list(only(tracker).areas)[-5:] == [r.targets[0].area for r in results]


@pytest.mark.parametrize(
    ("share", "ratio", "prompted"), [(0.6, 0.7, False), (0.8, 0.7, True), (0.6, 0.0, True)]
)
def test_a_partly_hidden_target_is_not_prompted(loaded, clip, share, ratio, prompted):
    """Its mask teaches motion all the same."""
    tracker, last = moving(loaded, clip)
    motion = replace(ALWAYS_PROMPTED.motion, min_area_ratio=ratio)
    tracker.reconfigure(replace(ALWAYS_PROMPTED, motion=motion))
    area = last.targets[0].area
    only(tracker).areas.extend([round(area / share)] * 29 + [area])
    assert injected([tracker.track(clip[7].image)]) == [prompted]
    assert only(tracker).forecaster.num_observations == 8


@pytest.mark.parametrize(
    ("share", "ratio", "prompted"), [(0.94, 0.96, False), (0.98, 0.96, True), (0.94, 0.0, True)]
)
def test_a_target_is_not_prompted_when_its_predicted_iou_falls(
    loaded, clip, share, ratio, prompted
):
    tracker, last = moving(loaded, clip)
    motion = replace(ALWAYS_PROMPTED.motion, min_iou_ratio=ratio)
    tracker.reconfigure(replace(ALWAYS_PROMPTED, motion=motion))
    iou = last.targets[0].predicted_iou
    only(tracker).ious.extend([iou / share] * 29 + [iou])
    result = tracker.track(clip[7].image)
    assert injected([result]) == [prompted]
    assert only(tracker).ious[-1] == result.targets[0].predicted_iou
    assert only(tracker).forecaster.num_observations == 8


@pytest.mark.parametrize(("prompt_iou", "prompted"), [(1.0, False), (0.0, True)])
def test_a_frame_may_teach_motion_and_prompt_nothing(loaded, clip, prompt_iou, prompted):
    tracker, _ = moving(loaded, clip)
    motion = replace(ALWAYS_PROMPTED.motion, prompt_iou=prompt_iou)
    tracker.reconfigure(replace(ALWAYS_PROMPTED, motion=motion))
    result = tracker.track(clip[7].image)
    assert result.targets[0].predicted_iou < 1.0
    assert injected([result]) == [prompted]
    assert only(tracker).forecaster.num_observations == 8


def test_a_camera_that_changes_its_size_says_anew_what_is_usual_of_the_target(loaded, clip):
    tracker, _ = moving(loaded, clip)
    (small,) = tracker.track(clip[7].image[::2, ::2].copy()).targets
    assert list(only(tracker).areas) == [small.area]
    assert list(only(tracker).ious) == [small.predicted_iou]


def test_time_that_jumps_back_says_anew_what_is_usual_of_the_target(loaded, clip):
    tracker, _ = moving(loaded, clip)
    (target,) = tracker.track(clip[7].image, stamp=-5.0).targets
    assert list(only(tracker).areas) == [target.area]
    assert list(only(tracker).ious) == [target.predicted_iou]


def test_a_rewound_target_keeps_what_is_usual_of_its_masks(loaded, clip):
    tracker, _ = moving(loaded, clip)
    state = only(tracker)
    rewound = only(tracker.rewound(state.target_id, time=1000.0))
    assert (rewound.areas, rewound.ious) == (state.areas, state.ious)
    assert rewound.areas is not state.areas and rewound.ious is not state.ious
    assert vars(rewound.presence) == vars(state.presence)
    rewound.presence.update(area=0, object_score=-1.0, predicted_iou=0.0, prompted=True)
    assert len(state.presence._scores) > 0, "what is usual of the target itself"


def test_a_mask_of_the_user_is_trusted_whatever_its_size_and_score(loaded, clip):
    tracker, last = moving(loaded, clip)
    only(tracker).areas.extend([5 * last.targets[0].area] * 5)
    motion = replace(ALWAYS_PROMPTED.motion, reliable_iou=1.0)
    tracker.reconfigure(replace(ALWAYS_PROMPTED, motion=motion))
    tracker.refine(last.targets[0].target_id, Prompt.from_mask(clip[7].masks[0]))
    results = [tracker.track(clip[7].image)]
    assert only(tracker).was_reliable
    results.append(tracker.track(clip[8].image))
    assert injected(results) == [False, True] and not only(tracker).was_reliable


def test_a_mask_of_the_user_says_anew_how_large_the_target_is(loaded, clip):
    tracker, last = moving(loaded, clip)
    only(tracker).areas.extend([5 * last.targets[0].area] * 5)
    tracker.refine(last.targets[0].target_id, Prompt.from_mask(clip[7].masks[0]))
    results = []
    for frame in clip[7:10]:
        results.append(tracker.track(frame.image))
        assert only(tracker).was_reliable
    assert injected(results) == [False, True, True]


@dataclass(frozen=True)
class Choice:
    """What the tracker gave to `Sam2Model.choose` in one frame."""

    candidates: Candidates
    preference: torch.Tensor | None


@pytest.fixture
def choices(loaded, monkeypatch) -> list[Choice]:
    """All choices from now on; the model makes them."""
    made: list[Choice] = []
    choose = loaded.model.choose

    def recording(candidates, num_points, preference=None):
        made.append(Choice(candidates, preference))
        return choose(candidates, num_points, preference)

    monkeypatch.setattr(loaded.model, "choose", recording)
    return made


def test_candidates_are_preferred_where_a_hidden_target_is_expected(loaded, clip, covered, choices):
    """Only in frames that come after one in which it was hidden."""
    end = HIDDEN[-1] + 3
    _, results = follow(loaded, TrackerConfig(), clip, covered[:end])
    hidden = [r.targets[0].state is not TargetState.TRACKED for r in results]
    assert not hidden[HIDDEN[0] - 1] and all(hidden[t] for t in HIDDEN)
    assert len(choices) == end - 1
    for t, choice in enumerate(choices, start=1):
        if not hidden[t - 1]:
            assert choice.preference is None
            continue
        forecast = results[t - 1].targets[0].motion_prompt
        logits = choice.candidates.mask_logits[:, 1:]
        expected = forecast_preference(logits, [forecast], [results[t].targets[0].view])
        torch.testing.assert_close(choice.preference, expected)
    returning = choices[HIDDEN[-1]]
    assert (returning.preference > 0).all()


def test_without_motion_no_candidate_is_preferred(loaded, clip, covered, choices):
    follow(loaded, TrackerConfig(motion=NO_MOTION), clip, covered)
    assert choices and all(choice.preference is None for choice in choices)


@pytest.mark.parametrize("favourite", range(3))
def test_the_preference_decides_between_candidates(loaded, clip, choices, favourite):
    follow(loaded, TrackerConfig(), clip[:3])
    candidates = choices[-1].candidates
    preference = torch.zeros(1, 3)
    preference[0, favourite] = 1.0
    chosen = loaded.model.choose(candidates, 0, preference)
    assert torch.equal(chosen.mask_logits[:, 0], candidates.mask_logits[:, 1 + favourite])
    assert torch.equal(chosen.predicted_iou, candidates.predicted_iou[:, 1 + favourite])
    alone = loaded.model.choose(candidates, 0, torch.zeros(1, 3))
    best = int(candidates.predicted_iou[0, 1:].argmax())
    assert torch.equal(alone.mask_logits, chosen.mask_logits) == (best == favourite)
