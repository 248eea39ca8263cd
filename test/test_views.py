"""Small targets are looked at more closely: which part of a frame, and what comes back from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mosam_ros.evaluation.metrics import mask_iou
from mosam_ros.mosam.checkpoints import LoadedModel, load_model
from mosam_ros.mosam.prompts import Prompt
from mosam_ros.mosam.results import FrameResult, TargetState
from mosam_ros.mosam.tracker import MosamTracker, TrackerConfig, ViewConfig
from mosam_ros.mosam.views import View, choose_view
from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, SceneConfig, SyntheticScene

SIZE = (480, 640)


def box(x_min: float, y_min: float, x_max: float, y_max: float) -> np.ndarray:
    return np.array([x_min, y_min, x_max, y_max], float)


def chosen(around: np.ndarray, last: View | None = None, context=2.0, max_zoom=4.0) -> View:
    return choose_view(last, around, SIZE, context, max_zoom)


def test_a_view_has_the_frames_proportions_and_the_target_in_its_middle():
    view = chosen(box(290, 220, 370, 260))
    assert view.size == (120, 160) and (view.x, view.y) == (250, 180)
    assert view.shares == (250 / 640, 180 / 480, 0.25, 0.25)
    assert view.slices == (slice(180, 300), slice(250, 410))
    assert view.last_pixel.tolist() == [409, 299]


def test_a_tall_target_is_given_the_context_over_its_height():
    view = chosen(box(310, 180, 330, 300))
    assert view.size == (240, 320)


def test_at_the_edge_of_the_frame_the_view_ends_with_it():
    assert (chosen(box(0, 0, 80, 40)).x, chosen(box(0, 0, 80, 40)).y) == (0, 0)
    last = chosen(box(560, 440, 640, 480))
    assert (last.x + last.width, last.y + last.height) == (640, 480)
    outside = chosen(box(600, 440, 900, 700))
    assert (outside.x + outside.width, outside.y + outside.height) == (640, 480)


def test_a_tiny_target_is_not_looked_at_more_closely_than_allowed():
    assert chosen(box(300, 200, 304, 203)).size == (120, 160)
    assert chosen(box(300, 200, 304, 203), max_zoom=2.0).size == (240, 320)


def test_a_large_target_is_looked_for_in_the_frame():
    assert chosen(box(100, 100, 400, 300)).is_whole
    assert chosen(box(310, 230, 320, 240), max_zoom=1.0).is_whole


def test_a_view_is_kept_while_the_target_lies_well_within_it():
    first = chosen(box(290, 220, 370, 260))
    assert chosen(box(300, 230, 380, 270), first) is first
    moved = chosen(box(330, 220, 410, 260), first)
    assert moved is not first and moved.x == 290


def test_a_view_is_given_up_when_the_target_has_become_much_smaller_or_larger():
    first = chosen(box(240, 200, 400, 280))
    assert chosen(box(250, 205, 390, 275), first) is first
    assert chosen(box(290, 220, 370, 260), first).width == 160
    assert chosen(box(200, 160, 440, 320), first).is_whole is False
    assert chosen(box(200, 160, 440, 320), first).width == 480


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (240, 320), (1080, 1920)])
def test_a_view_of_a_frame_is_resized_with_it(size):
    for view in (chosen(box(290, 220, 370, 260)), chosen(box(620, 470, 640, 480))):
        resized = view.resized(size)
        assert resized.image_size == size and resized.width > 0 and resized.height > 0
        assert resized.x + resized.width <= size[1] and resized.y + resized.height <= size[0]
        if size[0] > 7:
            assert resized.shares == pytest.approx(view.shares, abs=0.01)
    assert View.whole(SIZE).resized(size) == View.whole(size)


def test_a_view_of_a_camera_of_another_size_is_not_kept():
    other = View.whole((240, 320))
    assert chosen(box(290, 220, 370, 260), other).image_size == SIZE


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"max_zoom": -2.0}, "max_zoom is 0 or more, not -2.0"),
        ({"context": 0.5}, "context is 1.6 or more extents of the target, not 0.5"),
    ],
)
def test_settings_that_make_no_view_are_refused(options, reason):
    with pytest.raises(ValueError, match=reason):
        ViewConfig(**options)


SCENE = SceneConfig(
    height=240, width=320, num_frames=24, num_objects=3, speed=0.008, size=(0.16, 0.2)
)
HIDDEN = range(8, 18)


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


def box_around(mask: np.ndarray) -> Prompt:
    y, x = np.nonzero(mask)
    return Prompt.from_box(x.min(), y.min(), x.max() + 1, y.max() + 1)


def point_in(mask: np.ndarray) -> Prompt:
    y, x = np.nonzero(mask)
    nearest = np.hypot(x - x.mean(), y - y.mean()).argmin()
    return Prompt.from_points([[x[nearest], y[nearest]]])


def follow(loaded, images, mask, config=None) -> tuple[MosamTracker, list[FrameResult]]:
    tracker = MosamTracker(loaded, config)
    tracker.add(Prompt.from_mask(mask))
    return tracker, [tracker.track(image) for image in images]


def test_a_small_target_is_tracked_in_views_that_follow_it(loaded, clip):
    _, results = follow(loaded, [f.image for f in clip], clip[0].masks[0])
    views = [r.targets[0].view for r in results]
    assert not any(view.is_whole for view in views)
    overlaps = []
    for result, frame, view in zip(results, clip, views, strict=True):
        target = result.targets[0]
        assert target.mask.shape == (240, 320)
        outside = target.mask.copy()
        outside[view.slices] = False
        assert not outside.any()
        overlaps.append(mask_iou(target.mask, frame.masks[0]))
    assert np.mean(overlaps) > 0.8


def test_a_target_is_tracked_better_in_views_than_in_whole_frames(loaded):
    """Over small targets of several scenes, plain SAM 2 with and without views."""
    plain = TrackerConfig.sam2()
    overlap = {}
    for name, config in (("frames", plain), ("views", replace(plain, view=ViewConfig()))):
        values = []
        for seed in range(4):
            scene = SyntheticScene(FIRST_HELD_OUT_SEED + 40 + seed, SCENE)
            frames = [scene.frame(t) for t in range(12)]
            _, results = follow(loaded, [f.image for f in frames], frames[0].masks[0], config)
            values += [
                mask_iou(r.targets[0].mask, f.masks[0])
                for r, f in zip(results[1:], frames[1:], strict=True)
                if f.visibility[0] > 0.5
            ]
        overlap[name] = np.mean(values)
    assert overlap["views"] > overlap["frames"] + 0.02


def test_a_target_is_looked_for_where_it_went_and_in_the_whole_frame_once_it_is_lost(
    loaded, clip, covered
):
    config = TrackerConfig(lost_after=4)
    _, results = follow(loaded, covered, clip[0].masks[0], config)
    states = [r.targets[0].state for r in results]
    views = [r.targets[0].view for r in results]
    first, lost = HIDDEN[0], states.index(TargetState.LOST)
    assert states[first - 1 : first + 1] == [TargetState.TRACKED, TargetState.OCCLUDED]
    assert lost == first + config.lost_after
    last = results[first - 1].targets[0].box
    corners = np.array([last.x, last.y, last.x + last.width, last.y + last.height])
    for t in range(first, lost + 1):
        assert not views[t].is_whole and views[t].contains(corners, margin=0.0)
        expected = results[t - 1].targets[0].motion_prompt.box
        assert views[t].contains(np.clip(expected, 0, [320, 240, 320, 240]), margin=0.0)
    assert all(views[t].is_whole for t in range(lost + 1, HIDDEN[-1] + 2))
    assert states[-1] is TargetState.TRACKED and not views[-1].is_whole


def test_a_half_hidden_target_is_not_looked_at_more_closely(loaded, clip):
    images = [f.image.copy() for f in clip[:16]]
    for t in range(10, 16):
        rows, columns = np.nonzero(clip[t].masks[0])
        middle = int(columns.mean())
        images[t][rows.min() - 4 : rows.max() + 5, middle : columns.max() + 5] = 90
    _, results = follow(loaded, images, clip[0].masks[0])
    targets = [r.targets[0] for r in results]
    assert max(t.box.width for t in targets[10:]) < 0.8 * targets[9].box.width
    assert {t.view.width for t in targets[10:]} == {targets[9].view.width}


def test_a_model_of_whole_frames_gets_whole_frames(loaded, clip):
    """As the SAM 2.1 models are; and the views that plain SAM 2 has."""
    sam21 = replace(loaded, max_zoom=1.0)
    for model, config in ((sam21, TrackerConfig()), (loaded, TrackerConfig.sam2())):
        _, results = follow(model, [f.image for f in clip[:4]], clip[0].masks[0], config)
        assert all(r.targets[0].view.is_whole for r in results)
    assert load_model("nano", device="cpu").max_zoom > 1


@pytest.mark.parametrize("max_zoom", [0.3, 1.0])
def test_with_a_zoom_of_one_or_less_frames_are_whole(loaded, clip, max_zoom):
    config = TrackerConfig(view=ViewConfig(max_zoom=max_zoom))
    _, results = follow(loaded, [f.image for f in clip[:3]], clip[0].masks[0], config)
    assert all(r.targets[0].view.is_whole for r in results)


def test_a_first_click_is_looked_at_in_the_frame_and_a_box_or_mask_in_a_view(loaded, clip):
    mask = clip[0].masks[0]
    for prompt, whole in (
        (point_in(mask), True),
        (box_around(mask), False),
        (Prompt.from_mask(mask), False),
    ):
        tracker = MosamTracker(loaded)
        tracker.add(prompt)
        (target,) = tracker.track(clip[0].image).targets
        assert target.view.is_whole == whole
        assert mask_iou(target.mask, mask) > 0.7
        assert not tracker.track(clip[1].image).targets[0].view.is_whole


def test_where_a_user_sees_the_target_is_in_the_next_view(loaded, clip):
    tracker, results = follow(loaded, [f.image for f in clip[:3]], clip[0].masks[0])
    view = results[-1].targets[0].view
    x = 5 if view.x > 40 else 315
    tracker.refine(1, Prompt.from_points([[x, 120]], [1]))
    (target,) = tracker.track(clip[3].image).targets
    assert not view.x <= x < view.x + view.width
    assert target.view.x <= x < target.view.x + target.view.width


def test_a_negative_point_beside_the_view_leaves_view_and_mask(loaded, clip):
    tracker, results = follow(loaded, [f.image for f in clip[:3]], clip[0].masks[0])
    view = results[-1].targets[0].view
    x = 5 if view.x > 40 else 315
    tracker.refine(1, Prompt.from_points([[x, 120]], [0]))
    (target,) = tracker.track(clip[3].image).targets
    assert not view.x <= x < view.x + view.width and target.view == view
    assert mask_iou(target.mask, clip[3].masks[0]) > 0.6


def test_a_box_on_another_object_moves_the_view_there(loaded, clip):
    tracker, _ = follow(loaded, [f.image for f in clip[:3]], clip[0].masks[0])
    other = next(i for i in (1, 2) if clip[3].visibility[i] > 0.8)
    tracker.refine(1, Prompt.from_mask(clip[3].masks[other]))
    (target,) = tracker.track(clip[3].image).targets
    rows, columns = np.nonzero(clip[3].masks[other])
    corners = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert target.view.contains(corners, margin=0.0)
    assert mask_iou(target.mask, clip[3].masks[other]) > 0.85


def test_targets_in_views_of_their_own_do_not_disturb_each_other(loaded, clip):
    alone, together = MosamTracker(loaded), MosamTracker(loaded)
    for tracker in (alone, together):
        tracker.add(Prompt.from_mask(clip[0].masks[0]), target_id=5)
    others = [i for i in (1, 2) if clip[0].visibility[i] > 0.6]
    for index in others:
        together.add(Prompt.from_mask(clip[0].masks[index]))
    for frame in clip[:10]:
        first, results = alone.track(frame.image).targets[0], together.track(frame.image).targets
        assert np.array_equal(first.mask_logits, results[0].mask_logits)
        assert first.view == results[0].view
        assert len({target.view for target in results}) > 1


def test_a_camera_of_another_size_is_seen_in_the_same_part(loaded, clip):
    tracker, results = follow(loaded, [f.image for f in clip[:5]], clip[0].masks[0])
    (target,) = tracker.track(clip[5].image[::2, ::2].copy()).targets
    before = results[-1].targets[0].view
    assert target.view.image_size == (120, 160)
    assert target.view.shares == pytest.approx(before.shares, abs=0.01)
    assert mask_iou(target.mask, clip[5].masks[0][::2, ::2]) > 0.6


def test_when_time_jumps_back_the_whole_frame_is_seen(loaded, clip):
    tracker, _ = follow(loaded, [f.image for f in clip[:5]], clip[0].masks[0])
    assert tracker.track(clip[0].image, stamp=-3.0).targets[0].view.is_whole


def test_a_rewound_target_is_looked_for_where_it_was(loaded, clip):
    tracker = MosamTracker(loaded)
    tracker.add(Prompt.from_mask(clip[0].masks[0]))
    views = [tracker.track(f.image, stamp=float(t)).targets[0].view for t, f in enumerate(clip[:9])]
    (target,) = tracker.rewound(1, time=5.0).track(clip[5].image, stamp=5.0).targets
    assert target.view == views[4]
    assert mask_iou(target.mask, clip[5].masks[0]) > 0.6


def test_zooming_can_be_switched_off_while_tracking(loaded, clip):
    tracker, results = follow(loaded, [f.image for f in clip[:4]], clip[0].masks[0])
    assert not results[-1].targets[0].view.is_whole
    tracker.reconfigure(replace(TrackerConfig(), view=ViewConfig(max_zoom=1.0)))
    (target,) = tracker.track(clip[4].image).targets
    assert target.view.is_whole and mask_iou(target.mask, clip[4].masks[0]) > 0.6


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 400), (400, 3)])
def test_frames_of_a_few_pixels_are_survived(loaded, shape):
    tracker = MosamTracker(loaded)
    frame = np.zeros((*shape, 3), np.uint8)
    tracker.add(Prompt.from_box(0, 0, 1, 1))
    for _ in range(4):
        (target,) = tracker.track(frame).targets
        assert target.mask.shape == shape


@pytest.mark.parametrize(("gap", "is_whole"), [(1 / 30, False), (0.5, True), (5.0, True)])
def test_a_hidden_target_may_be_anywhere_after_a_long_interval(
    loaded, clip, covered, gap, is_whole
):
    tracker = MosamTracker(loaded)
    tracker.add(Prompt.from_mask(clip[0].masks[0]))
    time = 1.0
    for image in covered[: HIDDEN[0] + 1]:
        hidden = tracker.track(image, time).targets[0]
        time += 1 / 30
    assert hidden.state is TargetState.OCCLUDED and not hidden.view.is_whole
    after = tracker.track(covered[HIDDEN[1]], time - 1 / 30 + gap).targets[0]
    assert after.view.is_whole == is_whole
