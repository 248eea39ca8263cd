"""Key points on masks with known answers (paper, section 3.2.1)."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mosam_ros.mosam.motion.keypoints import MaskGeometry, key_points


def rectangle(x: int, y: int, width: int, height: int) -> np.ndarray:
    mask = np.zeros((120, 160), bool)
    mask[y : y + height, x : x + width] = True
    return mask


def points_of(mask: np.ndarray, count: int = 5) -> np.ndarray:
    masks = mask[None]
    return key_points(masks, MaskGeometry.of(masks).centroids, count)[0]


def test_a_rectangle_has_its_center_and_the_points_half_way_to_its_sides():
    points = points_of(rectangle(20, 30, 41, 21))
    expected = [(40, 40), (40, 35), (40, 45), (30, 40), (50, 40)]
    np.testing.assert_allclose(points, expected)


def test_nine_points_lie_at_a_third_and_two_thirds():
    points = points_of(rectangle(20, 30, 61, 31), 9)
    near = [(50, 40), (50, 50), (40, 45), (60, 45)]
    far = [(50, 35), (50, 55), (30, 45), (70, 45)]
    np.testing.assert_allclose(points, [(50, 45), *near, *far], rtol=1e-6)


def test_one_point_is_the_centroid():
    np.testing.assert_allclose(points_of(rectangle(20, 30, 41, 21), 1), [(40, 40)])


def test_an_l_moves_its_centroid_onto_itself():
    mask = rectangle(10, 10, 6, 81) | rectangle(10, 85, 81, 6)
    y, x = np.nonzero(mask)
    centroid = x.mean(), y.mean()
    assert not mask[round(centroid[1]), round(centroid[0])]
    points = points_of(mask)
    nearest = np.hypot(x - centroid[0], y - centroid[1]).min()
    assert np.hypot(*(points[0] - centroid)) == pytest.approx(nearest, abs=1e-3)
    assert all(mask[round(py), round(px)] for px, py in points.tolist())


def test_a_ring_has_all_points_on_its_band():
    y, x = np.mgrid[:120, :160]
    distance = np.hypot(x - 80, y - 60)
    mask = (distance > 25) & (distance < 40)
    points = points_of(mask, 9)
    assert all(mask[round(py), round(px)] for px, py in points.tolist())
    assert abs(np.hypot(points[0, 0] - 80, points[0, 1] - 60) - 25) < 1.5


def off_center(mask: np.ndarray) -> bool:
    x, y = np.rint(MaskGeometry.of(mask[None]).centroids[0]).astype(int)
    return not mask[y, x]


@settings(max_examples=300, deadline=None)
@given(
    holes=arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12)),
    scale=st.integers(1, 3),
)
@example(holes=~np.isin(np.arange(36).reshape(4, 9), (5, 22)), scale=1)
def test_a_center_off_the_mask_moves_to_the_nearest_of_all_pixels(holes, scale):
    mask = np.kron(holes, np.ones((scale, scale), bool))
    if not mask.any() or not off_center(mask):
        return
    centroid = MaskGeometry.of(mask[None]).centroids[0]
    y, x = np.nonzero(mask)
    nearest = np.argmin((x - centroid[0]) ** 2 + (y - centroid[1]) ** 2)
    assert points_of(mask, 1)[0].tolist() == [x[nearest], y[nearest]]


@pytest.mark.parametrize("corner", [(0, 0), (-1, 0), (0, -1), (-1, -1)])
def test_the_nearest_pixel_may_be_in_a_corner_of_the_image(corner):
    """Both pixels are equally far from the center: the upper one is taken."""
    mask = np.zeros((120, 160), bool)
    mask[corner] = mask[-1 - corner[0], -1 - corner[1]] = True
    assert points_of(mask, 1)[0].tolist() == [0 if mask[0, 0] else 159, 0]


def ring(inner: float, outer: float) -> np.ndarray:
    y, x = np.mgrid[:480, :640]
    distance = np.hypot(x - 320.3, y - 240.2)
    return (distance > inner) & (distance < outer)


def seconds_of(call: Callable[[], object]) -> float:
    """The quickest of some runs: the machine may have other work."""
    spans = []
    for _ in range(30):
        started = time.perf_counter()
        call()
        spans.append(time.perf_counter() - started)
    return min(spans)


@pytest.mark.parametrize("radii", [(60, 230), (100, 130), (200, 235)])
def test_key_points_of_a_hollow_mask_cost_little_more_than_its_geometry(radii):
    """At 640x480. Listing the pixels of the mask alone costs three times the geometry and more."""
    masks = ring(*radii)[None]
    assert off_center(masks[0])
    geometry = seconds_of(lambda: MaskGeometry.of(masks))
    centroids = MaskGeometry.of(masks).centroids
    assert seconds_of(lambda: key_points(masks, centroids)) < 2.5 * geometry


def test_geometry_of_several_masks_and_none():
    masks = np.stack([rectangle(5, 6, 7, 8), np.zeros((120, 160), bool)])
    geometry = MaskGeometry.of(masks)
    assert geometry.boxes[0].tolist() == [5, 6, 12, 14]
    assert geometry.centroids[0].tolist() == [8, 9.5]
    assert geometry.areas.tolist() == [56, 0]
    assert np.isnan(geometry.boxes[1]).all() and np.isnan(geometry.centroids[1]).all()
    points = key_points(masks, geometry.centroids)
    assert np.isfinite(points[0]).all() and np.isnan(points[1]).all()


@pytest.mark.parametrize("count", [0, 2, 4, 7])
def test_other_numbers_of_points_are_refused(count):
    with pytest.raises(ValueError, match="1, 5, 9"):
        points_of(rectangle(5, 6, 7, 8), count)


@settings(max_examples=60, deadline=None)
@given(
    blobs=st.lists(
        st.tuples(st.integers(0, 150), st.integers(0, 110), st.integers(1, 60), st.integers(1, 60)),
        min_size=1,
        max_size=5,
    ),
    count=st.sampled_from([1, 5, 9, 13]),
)
def test_every_key_point_lies_on_the_object(blobs, count):
    mask = np.zeros((120, 160), bool)
    for x, y, width, height in blobs:
        mask |= rectangle(x, y, width, height)
    on = [mask[round(y), round(x)] for x, y in points_of(mask, count).tolist()]
    assert len(on) == count and all(on)
