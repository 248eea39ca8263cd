"""Solid objects: rigid, seen from all sides, and part of a scene like the others."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from mosam_ros.synthetic import ObjectKinds, SceneConfig, SyntheticScene
from mosam_ros.synthetic.solids import REACH, Solid, _fitted, _prism, random_solid

SIZE = 128
SOLID = SceneConfig(
    height=128,
    width=160,
    num_frames=40,
    num_objects=3,
    num_lookalikes=0,
    size=(0.4, 0.5),
    spin=0.0,
    scale_change=0.0,
    kinds=ObjectKinds(solid=1.0),
)


def plain(color: int) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), color, np.uint8)


def box(halves: tuple[float, float, float]) -> Solid:
    """A box, seen from straight ahead in light from there."""
    faces = _fitted(_prism(np.zeros(3), np.array(halves), 0))
    return Solid(faces, (plain(200),), 0.0, np.array([0.0, -1.0, 0.0]), 0.2)


@pytest.mark.parametrize(
    ("yaw", "extent"),
    [(0.0, (0.6, 0.4)), (np.pi / 2, (0.2, 0.4)), (np.pi / 4, (0.8 / np.sqrt(2), 0.4))],
)
def test_a_box_shows_the_outline_of_the_side_it_is_seen_from(yaw, extent):
    """0.6 wide, 0.2 deep and 0.4 high, seen from ahead, from the side and from between."""
    _, outline = box((0.3, 0.1, 0.2)).view(yaw, SIZE)
    rows, columns = np.nonzero(outline > 0.5)
    scale = SIZE * REACH / np.linalg.norm([0.3, 0.1, 0.2])
    measured = np.ptp(columns) + 1, np.ptp(rows) + 1
    np.testing.assert_allclose(measured, np.array(extent) * scale, atol=3)


def test_a_side_is_as_bright_as_it_faces_the_light():
    picture, outline = box((0.3, 0.3, 0.3)).view(0.0, SIZE)
    assert np.median(picture[outline > 0.5]) == 200
    picture, outline = box((0.3, 0.3, 0.3)).view(np.pi / 4, SIZE)
    expected = 200 * (0.2 + 0.8 * np.cos(np.pi / 4))
    assert np.median(picture[outline > 0.5]) == pytest.approx(expected, abs=1)


def test_the_near_part_covers_the_far_one():
    near = _prism(np.array([0.0, -0.5, 0.0]), np.array([0.1, 0.1, 0.1]), 0)
    far = _prism(np.array([0.0, 0.5, 0.0]), np.array([0.3, 0.1, 0.3]), 1)
    surfaces = (plain(100), plain(200))
    solid = Solid(_fitted(near + far), surfaces, 0.0, np.array([0.0, -1.0, 0.0]), 1.0)
    colors = [int(solid.view(yaw, SIZE)[0][SIZE // 2, SIZE // 2, 0]) for yaw in (0.0, np.pi)]
    assert colors == [100, 200]


@pytest.mark.parametrize("seed", range(12))
def test_a_solid_is_one_piece_that_no_view_cuts(seed):
    rng = np.random.default_rng(seed)
    solid = random_solid(rng, [plain(150), plain(60)])
    areas = []
    for yaw in np.linspace(0, 2 * np.pi, 9):
        picture, outline = solid.view(yaw, SIZE)
        assert picture.shape == (SIZE, SIZE, 3) and picture.dtype == np.uint8
        assert outline.shape == (SIZE, SIZE) and 0 <= outline.min() and outline.max() == 1
        assert not picture[outline == 0].any()
        border = np.concatenate([outline[[0, -1]].ravel(), outline[:, [0, -1]].ravel()])
        assert not border.any()
        seen = cv2.dilate((outline > 0.2).astype(np.uint8), np.ones((3, 3), np.uint8))
        assert cv2.connectedComponents(seen)[0] == 2  # the background and the object
        areas.append(outline.sum())
    assert areas[0] == pytest.approx(areas[-1], rel=0.01)
    assert max(areas[:-1]) > 1.02 * min(areas)


def test_solid_objects_turn_and_keep_their_truth():
    changed = []
    for seed in range(6):
        scene, again = (SyntheticScene(seed, SOLID) for _ in range(2))
        for t in (20, 0):
            ours, theirs = scene.frame(t), again.frame(t)
            np.testing.assert_array_equal(ours.image, theirs.image)
            assert ours.masks.sum(0).max() <= 1
            assert np.array_equal(ours.visibility > 0, ours.masks.any((1, 2)))
        areas = [scene.frame(t).masks[0].sum() for t in range(0, 40, 4)]
        changed.append(max(areas) / max(1, min(areas)))
    assert np.median(changed) > 1.15


def test_many_solids_are_plain():
    plain_ones = [
        all(np.ptp(surface, axis=(0, 1)).max() == 0 for surface in layer.body.solid.surfaces)
        for seed in range(30)
        for layer in SyntheticScene(seed, SOLID)._objects
    ]
    assert 0.25 < np.mean(plain_ones) < 0.55


def test_half_of_the_solids_turn_where_they_stand():
    still = [
        np.ptp(body.track.knots, axis=0).max() < 1e-9
        for seed in range(30)
        for body in SyntheticScene(seed, SOLID)._objects
    ]
    assert 0.3 < np.mean(still) < 0.7


def test_a_lookalike_is_the_same_solid_turned_elsewhere():
    scene = SyntheticScene(2, replace(SOLID, num_lookalikes=1))
    target, alike, other = scene._objects
    assert target.body.solid is alike.body.solid and target.body.solid is not other.body.solid
    assert target.body.start != alike.body.start


def test_a_flat_target_has_flat_lookalikes():
    mixed = replace(SOLID, num_lookalikes=2, kinds=ObjectKinds(solid=0.5))
    scenes = [SyntheticScene(seed, mixed)._objects for seed in range(12)]
    flat = [objects for objects in scenes if objects[0].body is None]
    assert 0 < len(flat) < 12
    for target, *alike in flat:
        assert all(o.body is None and o.texture is target.texture for o in alike)


def test_no_flow_is_said_to_be_known_of_solids():
    with pytest.raises(ValueError, match="no flow is known of solid objects"):
        SyntheticScene(0, SOLID).flow(3)
