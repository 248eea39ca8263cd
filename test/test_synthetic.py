"""The procedural video: deterministic, with a truth that agrees with its pixels."""

from __future__ import annotations

import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosam_ros.evaluation.metrics import mask_iou
from mosam_ros.synthetic import (
    FIRST_HELD_OUT_SEED,
    SCENARIOS,
    TARGET,
    ObjectKinds,
    SceneConfig,
    SyntheticScene,
    scene,
)
from mosam_ros.synthetic.pieces import SHARES, random_pieces
from mosam_ros.synthetic.textures import random_compound, random_leaves, random_wire

SMALL = SceneConfig(height=96, width=128, num_frames=30, num_objects=3)


@pytest.mark.parametrize("name", SCENARIOS)
def test_same_seed_gives_the_same_video_in_any_order(name):
    config = SCENARIOS[name]
    first = SyntheticScene(4, config)
    second = SyntheticScene(4, config)
    later_first = [second.frame(t) for t in (17, 0)]
    for ours, theirs in zip([first.frame(0), first.frame(17)], reversed(later_first), strict=True):
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.masks, theirs.masks)
    other = SyntheticScene(5, config).frame(0)
    assert not np.array_equal(other.image, first.frame(0).image)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), t=st.integers(0, 29))
def test_truth_is_well_formed(seed, t):
    frame = SyntheticScene(seed, SMALL).frame(t)
    assert frame.image.shape == (96, 128, 3) and frame.image.dtype == np.uint8
    assert frame.masks.shape == (3, 96, 128) and frame.masks.dtype == bool
    assert frame.masks.sum(0).max() <= 1
    assert np.all((frame.visibility >= 0) & (frame.visibility <= 1))
    assert np.array_equal(frame.visibility > 0, frame.masks.any((1, 2)))


def test_held_out_scenes_are_those_that_the_published_figures_are_of():
    """A new kind of object must not draw from the generator of scenes without it."""
    held_out = SyntheticScene(FIRST_HELD_OUT_SEED + 3, SCENARIOS["lookalikes"])
    ends = [o.track.knots[-1] for o in held_out._objects]
    known = [[0.401846, 0.377697], [0.343025, 0.797566], [0.323613, 0.798996], [0.637966, 0.271191]]
    np.testing.assert_allclose(ends, known, atol=1e-6)
    assert held_out._objects[TARGET].diameter == pytest.approx(106.881037)


def test_full_occlusion_and_exit_hide_the_target_for_a_while():
    for name in ("full_occlusion", "exit_reentry"):
        hidden_scenes = 0
        for seed in range(10):
            scene = SyntheticScene(seed, SCENARIOS[name])
            gone = [scene.frame(t).visibility[TARGET] == 0 for t in range(len(scene))]
            hidden_scenes += 3 <= sum(gone) < 30
        assert hidden_scenes >= 6, name


def test_lookalikes_share_the_targets_colors():
    def color(frame, index):
        return frame.image[frame.masks[index]].mean(0)

    alike, unlike = [], []
    for seed in range(8):
        alike_frame = SyntheticScene(seed, SCENARIOS["lookalikes"]).frame(0)
        unlike_frame = SyntheticScene(seed, SCENARIOS["fast"]).frame(0)
        alike.append(np.abs(color(alike_frame, TARGET) - color(alike_frame, 1)).mean())
        unlike.append(np.abs(color(unlike_frame, TARGET) - color(unlike_frame, 1)).mean())
    assert np.median(alike) < 0.4 * np.median(unlike)


@pytest.mark.parametrize("seed", range(20))
def test_a_compound_object_is_one_piece_of_several_surfaces(seed):
    texture, alpha = random_compound(np.random.default_rng(seed), 128)
    assert texture.shape == (128, 128, 3) and texture.dtype == np.uint8
    assert alpha.shape == (128, 128) and 0 <= alpha.min() and alpha.max() <= 1
    body = alpha > 0.5
    pieces, _ = cv2.connectedComponents(body.astype(np.uint8))
    assert pieces == 2  # the background and the object
    inside = cv2.erode(body.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    change = cv2.Laplacian(cv2.cvtColor(texture, cv2.COLOR_RGB2GRAY), cv2.CV_32F)
    assert (np.abs(change)[inside] > 20).any()  # the seam between two surfaces


@pytest.mark.parametrize("seed", range(20))
def test_a_wiry_object_is_one_piece_and_thin(seed):
    alpha = random_wire(np.random.default_rng(seed), 128)
    assert alpha.shape == (128, 128) and 0 <= alpha.min() and alpha.max() <= 1
    body = (alpha > 0.5).astype(np.uint8)
    assert cv2.connectedComponents(body)[0] == 2  # the background and the object
    (outline,), _ = cv2.findContours(body, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    assert body.sum() < 0.95 * cv2.contourArea(cv2.convexHull(outline))


@pytest.mark.parametrize("kind", ["compound", "wiry"])
def test_a_share_of_the_objects_is_of_a_kind_and_none_unless_asked_for(kind, monkeypatch):
    maker = {"compound": "random_compound", "wiry": "random_wire"}[kind]
    make, made = getattr(scene, maker), []

    def counted(rng, size):
        made.append(size)
        return make(rng, size)

    monkeypatch.setattr(scene, maker, counted)
    for share, low, high in ((0.0, 0, 0), (0.3, 20, 70), (1.0, 150, 150)):
        made.clear()
        for seed in range(50):
            kinds = ObjectKinds(**{kind: share})
            SyntheticScene(seed, replace(SMALL, kinds=kinds, num_lookalikes=0))
        assert low <= len(made) <= high, share


def test_a_leafy_backdrop_is_full_of_sharp_edges():
    """More of its pixels differ much from their neighbors than in the smooth one."""

    def edges(leaves: int) -> float:
        shares = []
        for seed in range(8):
            config = replace(SMALL, leaves=leaves, noise=0.0, blur=0.0, light_change=0.0)
            gray = cv2.cvtColor(SyntheticScene(seed, config).frame(0).image, cv2.COLOR_RGB2GRAY)
            shares.append((np.abs(np.diff(gray.astype(int), axis=1)) > 12).mean())
        return float(np.mean(shares))

    assert edges(300) > 2 * edges(0)


@pytest.mark.parametrize("count", [1, 50, 1000])
def test_leaves_are_the_same_for_the_same_seed(count):
    surfaces = [random_leaves(np.random.default_rng(4), 96, count) for _ in range(2)]
    assert surfaces[0].shape == (96, 96, 3) and surfaces[0].dtype == np.uint8
    np.testing.assert_array_equal(*surfaces)


@pytest.mark.parametrize("leaves", [0, 30, 1000])
def test_pieces_of_a_picture_are_of_a_size_and_do_not_overlap(leaves):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        picture = (
            random_leaves(rng, 128, leaves) if leaves else np.full((128, 128, 3), 90, np.uint8)
        )
        pieces = random_pieces(rng, picture, 3)
        assert pieces and all(p.shape == (128, 128) and p.dtype == bool for p in pieces)
        assert np.sum(pieces, axis=0).max() == 1
        assert all(SHARES[0] < p.mean() < SHARES[1] for p in pieces)


def test_some_pieces_end_where_the_color_changes_and_some_anywhere():
    """On a picture of two halves: those that end there cover hardly any of the other half."""
    picture = np.full((128, 128, 3), 60, np.uint8)
    picture[:, 64:] = 200
    one_sided = []
    for seed in range(40):
        for piece in random_pieces(np.random.default_rng(seed), picture, 2):
            sides = piece[:, :64].mean(), piece[:, 64:].mean()
            one_sided.append(min(sides) < 0.05 * max(sides))
    assert 0.3 < np.mean(one_sided) < 0.95


PIECES = replace(SMALL, leaves=60, num_pieces=3, camera_motion=0.02)


def test_pieces_of_the_background_move_with_it():
    """Without anything before them, the flow carries them to where they are next."""
    config = replace(PIECES, num_objects=1, size=(0.02, 0.03))
    overlaps, still = [], []
    for seed in range(6):
        synthetic = SyntheticScene(seed, config)
        for t in (3, 12):
            before, after = synthetic.frame(t).masks[1:], synthetic.frame(t + 6).masks[1:]
            shift = sum(synthetic.flow(t + i).reshape(-1, 2).mean(0) for i in range(6))
            move = np.float32([[1, 0, shift[0]], [0, 1, shift[1]]])
            for mask, truth in zip(before, after, strict=True):
                moved = cv2.warpAffine(mask.astype(np.float32), move, (128, 96)) > 0.5
                overlaps.append(mask_iou(moved, truth))
                still.append(mask_iou(mask, truth))
    assert np.nanmean(overlaps) > 0.85 > 0.8 > np.nanmean(still)


def test_objects_and_panels_cover_pieces_of_the_background():
    """A covered pixel belongs to one object only, and the piece is said to be less visible."""
    config = replace(PIECES, num_objects=3, camera_motion=0.0, passing_panels=2)
    least = 1.0
    for seed in range(6):
        synthetic = SyntheticScene(seed, config)
        frames = [synthetic.frame(t) for t in range(0, 30, 3)]
        assert all(f.masks.sum(0).max() <= 1 for f in frames)
        assert all(f.masks.shape[0] == len(f.visibility) for f in frames)
        least = min(least, *(float(f.visibility[3:].min()) for f in frames))
    assert least < 0.3


def test_pieces_change_nothing_else_of_a_scene():
    plain, cut = (SyntheticScene(5, replace(PIECES, num_pieces=n)).frame(8) for n in (0, 3))
    np.testing.assert_array_equal(plain.image, cut.image)
    np.testing.assert_array_equal(plain.masks, cut.masks[: len(plain.masks)])
    assert len(plain.masks) == 3 and len(cut.masks) == 6


def test_a_camouflaged_object_has_the_surface_of_the_backdrop():
    """Without camouflage its mean color is far from the backdrop's more often."""

    def contrast(share: float) -> float:
        differences = []
        for seed in range(30):
            kinds = ObjectKinds(camouflaged=share)
            config = replace(SMALL, kinds=kinds, num_objects=1, num_lookalikes=0)
            frame = SyntheticScene(seed, config).frame(0)
            inside = frame.masks[TARGET]
            means = (frame.image[where].mean(0) for where in (inside, ~inside))
            differences.append(np.abs(np.subtract(*means)).mean())
        return float(np.mean(differences))

    assert contrast(1.0) < 0.6 * contrast(0.0)


def test_a_translucent_object_shows_what_is_behind_it():
    config = replace(SMALL, num_objects=1, num_lookalikes=0, camera_motion=0.0, noise=0.0, blur=0.0)
    solid, behind = [], []
    for seed in range(12):
        frames = [
            SyntheticScene(seed, replace(config, kinds=kinds)).frame(0)
            for kinds in (ObjectKinds(), ObjectKinds(translucent=1.0))
        ]
        assert (frames[0].masks == frames[1].masks).all()
        inside = cv2.erode(frames[0].masks[TARGET].astype(np.uint8), np.ones((5, 5))) > 0
        change = np.abs(frames[0].image.astype(int) - frames[1].image).mean(-1)
        solid.append(change[inside].mean())
        behind.append(change[~(frames[0].masks[TARGET])].mean())
    assert np.mean(solid) > 10 * np.mean(behind)


def test_a_turning_object_changes_its_width_and_its_levels_move_apart():
    """Of the mask's upper and lower half the centers move against each other."""

    def changes(share: float) -> tuple[float, float]:
        config = replace(SMALL, num_objects=1, num_lookalikes=0, spin=0.0, scale_change=0.0)
        config = replace(config, deformation=0.0, kinds=ObjectKinds(turning=share))
        widths, leans = [], []
        for seed in range(10):
            synthetic = SyntheticScene(seed, config)
            masks = [synthetic.frame(t).masks[TARGET] for t in range(0, 30, 4)]
            rows, columns = zip(*(np.nonzero(m) for m in masks), strict=True)
            width = [c.std() for c in columns]
            uppers = [r < np.median(r) for r in rows]
            lean = [c[u].mean() - c[~u].mean() for c, u in zip(columns, uppers, strict=True)]
            widths.append(np.std(width) / np.mean(width))
            leans.append(np.std(lean) / np.mean(width))
        return float(np.mean(widths)), float(np.mean(leans))

    still, turning = changes(0.0), changes(1.0)
    assert turning[0] > 3 * still[0] and turning[1] > 3 * still[1]


def test_objects_stand_still_during_the_lead_in():
    config = SceneConfig(lead_in=10, num_frames=30, camera_motion=0.0, speed=0.02)
    scene = SyntheticScene(3, config)
    first = scene.frame(0).masks[TARGET]
    assert np.array_equal(first, scene.frame(9).masks[TARGET])
    assert mask_iou(first, scene.frame(25).masks[TARGET]) < 0.9


@pytest.mark.parametrize("turning", [0.0, 1.0])
@pytest.mark.parametrize("name", ["easy", "fast", "deforming"])
def test_flow_carries_the_image_and_the_mask_to_the_next_frame(name, turning):
    kinds = ObjectKinds(turning=turning)
    config = replace(SCENARIOS[name], noise=0.0, light_change=0.0, blur=0.0, kinds=kinds)
    scene = SyntheticScene(11, config)
    now, following = scene.frame(5), scene.frame(6)
    flow = scene.flow(5)
    assert flow.shape == (256, 256, 2)
    y, x = np.mgrid[0:256, 0:256].astype(np.float32)
    at = np.stack([x, y], -1) + flow
    pulled = cv2.remap(following.image, at.astype(np.float32), None, cv2.INTER_LINEAR)
    visible_in_both = now.masks[TARGET] & (
        cv2.remap(following.masks[TARGET].astype(np.float32), at.astype(np.float32), None, 1) > 0.9
    )
    error = np.abs(pulled.astype(float) - now.image)[visible_in_both].mean()
    unmoved = np.abs(following.image.astype(float) - now.image)[visible_in_both].mean()
    assert visible_in_both.sum() > 0.7 * now.masks[TARGET].sum()
    assert error < 6.0
    assert error < 0.5 * unmoved


def test_frames_are_fast_enough_to_feed_training():
    scene = SyntheticScene(0, SCENARIOS["lookalikes"])
    scene.frame(0)
    start = time.process_time()
    for t in range(20):
        scene.frame(t)
    assert (time.process_time() - start) / 20 < 0.06
