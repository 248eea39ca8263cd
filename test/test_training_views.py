"""Training clips that are seen through views, and memories carried from view to view."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mosam_ros.mosam.checkpoints import load_model
from mosam_ros.mosam.views import View
from mosam_ros.training import data, model_steps
from mosam_ros.training.base import Stage
from mosam_ros.training.data import ClipConfig, ClipStream, TrainingClip, make_clip
from mosam_ros.training.model_steps import clip_loss
from mosam_ros.training.views import look_at, see_through, view_path, wanted_share

SIZE = 96
ZOOMED = Stage("views", 64, 6, 1, 2, 1, 1e-3, hide_rate=0.6, zoom_rate=1.0).clips


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def square(x: int, y: int = 40, side: int = 16) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + side, x : x + side] = True
    return mask


def box(x: int, y: int = 40, side: int = 16) -> np.ndarray:
    return np.array([x, y, x + side, y + side], float)


def test_a_view_has_the_target_near_its_middle_and_the_context_that_was_asked_for():
    for seed in range(20):
        view = look_at(rng(seed), box(40), 2.0, SIZE)
        assert view.width == view.height == round(2 * 16 / SIZE * SIZE)
        assert view.contains(box(40), margin=0.2)


def test_a_view_is_never_too_narrow_and_nearly_the_image_is_the_image():
    assert wanted_share(box(40, side=4), 2.0, SIZE) == pytest.approx(0.28)
    assert look_at(rng(), box(10, 10, 60), 2.0, SIZE).is_whole


def test_a_target_that_stands_still_is_seen_in_one_view_but_for_jumps():
    masks = np.stack([square(40)] * 12)
    first = look_at(rng(), box(40), 2.4, SIZE)
    paths = [view_path(rng(seed), masks, first, 5) for seed in range(40)]
    assert all(path[0] == first and len(path) == 12 for path in paths)
    assert sum(len(set(path)) == 1 for path in paths) >= 5
    assert any(len(set(path)) > 2 for path in paths)


def test_a_view_follows_its_target():
    masks = np.stack([square(4 * t) for t in range(20)])
    path = view_path(rng(3), masks, look_at(rng(), box(0), 2.0, SIZE), 5)
    assert len(set(path)) > 2
    for t in range(1, 20):
        assert path[t].contains(box(4 * (t - 1)), margin=0.0)


def test_a_target_that_stays_away_is_looked_for_in_the_whole_image():
    gone = np.zeros((12, SIZE, SIZE), bool)
    masks = np.concatenate([np.stack([square(40)] * 3), gone])
    for most_patience in (5, 8):
        waited = set()
        for seed in range(40):
            path = view_path(rng(seed), masks, look_at(rng(), box(40), 2.0, SIZE), most_patience)
            assert not path[3].is_whole and path[-1].is_whole
            waited.add([view.is_whole for view in path].index(True) - 3)
        assert waited == set(range(2, most_patience + 1))


def test_frames_and_masks_are_cut_out_and_enlarged_alike():
    image = np.where(square(40)[..., None], np.uint8(255), np.uint8(0)).repeat(3, -1)
    view = View(30, 30, 48, 48, (SIZE, SIZE))
    frames, masks = see_through([view], image[None], square(40)[None, None], SIZE)
    assert frames.shape == (1, SIZE, SIZE, 3) and masks.shape == (1, 1, SIZE, SIZE)
    rows, columns = np.nonzero(masks[0, 0])
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (20, 51, 20, 51)
    assert np.array_equal(frames[0, ..., 0] > 127, masks[0, 0])


@pytest.mark.parametrize("seed", range(6))
def test_every_target_of_a_zoomed_clip_can_be_clicked_in_its_first_frame(seed):
    clip = make_clip(seed, ZOOMED)
    assert clip.frames.shape == (6, 64, 64, 3) and clip.masks.shape == (2, 6, 64, 64)
    assert (clip.masks[:, 0].mean((1, 2)) > 0.003).all()
    assert (clip.views[:, :2] >= -1e-6).all()
    assert (clip.views[:, :2] + clip.views[:, 2:] <= 1 + 1e-6).all()


def test_zoomed_clips_show_targets_larger():
    seeds = range(12)
    whole = [make_clip(s, ClipConfig(64, 2, 1, hide_rate=0.6)).masks[0, 0].mean() for s in seeds]
    config = ClipConfig(64, 2, 1, hide_rate=0.6, zoom_rate=1.0)
    clips = [make_clip(s, config) for s in seeds]
    assert np.mean([c.masks[0, 0].mean() for c in clips]) > 1.5 * np.mean(whole)
    assert min(c.views[0, 2] for c in clips) < 0.6


def test_a_mirrored_clip_has_mirrored_views():
    frames = np.tile(np.arange(8, dtype=np.uint8)[:, None], (2, 8, 1, 3)).reshape(2, 8, 8, 3)
    views = np.array([[0.1, 0.2, 0.5, 0.5], [0, 0, 1, 1]], np.float32)
    mirrored = 0
    for seed in range(12):
        clip = TrainingClip(frames, np.zeros((1, 2, 8, 8), bool), views)
        seen = data._augment(rng(seed), clip)
        flipped = seen.frames[0, 0, 0, 0] > seen.frames[0, 0, -1, 0]
        expected = [0.4, 0.2, 0.5, 0.5] if flipped else [0.1, 0.2, 0.5, 0.5]
        assert seen.views[0] == pytest.approx(expected)
        assert seen.views[1] == pytest.approx([0, 0, 1, 1])
        mirrored += flipped
    assert 0 < mirrored < 12


def test_a_stage_says_in_what_share_of_its_clips_it_zooms():
    for rate, low, high in ((0.0, 0, 0), (0.5, 0.15, 0.7), (1.0, 0.5, 1.0)):
        clips = [make_clip(s, ClipConfig(48, 2, 1, zoom_rate=rate)) for s in range(24)]
        share = np.mean([bool((c.views[:, 2] < 1).any()) for c in clips])
        assert low <= share <= high


def test_memories_are_learned_from_as_they_lie_in_the_present_view(monkeypatch):
    model = load_model("nano", device="cpu", image_size=64).model
    clip = ClipStream(1, ClipConfig(64, 3, 2), 1).batch(0)
    clip.views[0, 2] = torch.tensor([0.25, 0.25, 0.5, 0.5])
    remember, seen = model_steps._memory, []

    def see(model, history, gap, selects):
        seen.append([x.features for x in history])
        return remember(model, history, gap, selects)

    monkeypatch.setattr(model_steps, "_memory", see)
    with torch.no_grad():
        clip_loss(model, clip, np.random.default_rng(0), mosam_rate=0.0)
    before, after = seen[0][0].float(), seen[1][0].float()
    maps = before.transpose(1, 2).unflatten(2, (4, 4))
    expected = torch.nn.functional.interpolate(maps, scale_factor=2, mode="bilinear")
    moved = after.transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(moved, expected[..., 2:6, 2:6], rtol=1e-2, atol=1e-2)


def test_no_forecast_prompts_where_the_view_has_just_moved(monkeypatch):
    model = load_model("nano", device="cpu", image_size=64).model
    clip = ClipStream(1, ClipConfig(64, 6, 2), 1).batch(0)
    clip.views[0, 3:] = torch.tensor([0.25, 0.25, 0.5, 0.5])
    follow, guided = model_steps._propagated, []

    def see(model, seen, memory, guide):
        guided.append(guide is not None)
        return follow(model, seen, memory, guide)

    monkeypatch.setattr(model_steps, "_propagated", see)
    with torch.no_grad():
        for seed in range(6):
            clip_loss(model, clip, np.random.default_rng(seed), mosam_rate=1.0)
    by_frame = np.array(guided).reshape(6, 5)
    assert not by_frame[:, 2].any() and by_frame[:, [0, 1, 3, 4]].any(0).all()
