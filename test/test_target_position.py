"""Position, extent and covariance of a target in scenes whose geometry is known."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mosam_ros.localization.camera import Camera
from mosam_ros.localization.target_position import (
    LocalizationConfig,
    depth_in_metres,
    locate,
    surface_range,
)

HEIGHT, WIDTH = 240, 320
CAMERA = Camera(fx=280.0, fy=275.0, cx=158.0, cy=121.0)
BACKGROUND = 6.0
"""Metres to the wall behind the target."""


def rays() -> tuple[np.ndarray, np.ndarray]:
    """Where every pixel looks to: x / z and y / z, (height, width) each."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - CAMERA.cx) / CAMERA.fx, (rows - CAMERA.cy) / CAMERA.fy


def ball(center: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """The mask of a ball and the depth (height, width) in metres of it before a wall."""
    x, y = rays()
    directions = np.stack([x, y, np.ones_like(x)], axis=-1)
    squared = (directions**2).sum(-1)
    along = directions @ center
    root = along**2 - squared * (center @ center - radius**2)
    mask = root > 0
    depth = np.where(mask, (along - np.sqrt(np.maximum(root, 0))) / squared, BACKGROUND)
    return mask, depth.astype(np.float32)


def plate(center: np.ndarray, size: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """The mask of a plate that faces the camera and the depth of it before a wall."""
    x, y = rays()
    z = center[2]
    mask = (np.abs(x * z - center[0]) <= size[0] / 2) & (np.abs(y * z - center[1]) <= size[1] / 2)
    return mask, np.where(mask, z, BACKGROUND).astype(np.float32)


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    kernel = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return cv2.dilate(mask.astype(np.uint8), kernel).astype(bool)


def encoded(metres: np.ndarray, encoding: str, share: float, seed: int = 0) -> np.ndarray:
    """A depth image in which a share of the pixels is invalid, in every way the encoding has."""
    rng = np.random.default_rng(seed)
    invalid = rng.random(metres.shape) < share
    if encoding == "16UC1":
        return np.where(invalid, 0, np.rint(metres * 1000)).astype(np.uint16)
    nothing = rng.choice([np.nan, np.inf, -np.inf, 0.0], metres.shape)
    return np.where(invalid, nothing, metres).astype(np.float32)


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
@pytest.mark.parametrize("bleeding", [0, 3])
@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("center", [(0.0, 0.0, 1.0), (0.4, -0.25, 1.6), (-0.9, 0.5, 3.0)])
def test_the_error_is_at_most_two_percent_of_the_range(encoding, bleeding, share, center):
    size = (0.3, 0.4)
    mask, depth = plate(np.array(center), size)
    noise = np.random.default_rng(1).normal(0, 0.005, depth.shape) * depth
    image = encoded(depth + noise, encoding, share)
    found = locate(grown(mask, bleeding), depth_in_metres(image), CAMERA)
    error = np.linalg.norm(found.position - center)
    assert error <= 0.02 * np.linalg.norm(center)
    assert found.depth_share == pytest.approx(
        (1 - share) * mask.sum() / grown(mask, bleeding).sum(), abs=0.05
    )


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_a_ball_is_located_on_its_seen_side(encoding):
    center, radius = np.array([0.3, 0.1, 2.0]), 0.25
    mask, depth = ball(center, radius)
    found = locate(grown(mask, 2), depth_in_metres(encoded(depth, encoding, 0.3)), CAMERA)
    surface = center - radius * center / np.linalg.norm(center)
    # Half of a ball's image lies more than 0.29 radii behind its nearest point.
    assert np.linalg.norm(found.position - surface) <= 0.3 * radius + 0.02 * center[2]
    assert found.extent[:2] == pytest.approx([2 * radius, 2 * radius], rel=0.15)
    assert 0.3 * radius < found.extent[2] <= radius


def test_width_and_height_are_those_of_the_plate():
    mask, depth = plate(np.array([0.2, 0.1, 1.5]), (0.5, 0.3))
    found = locate(mask, depth, CAMERA)
    assert found.extent == pytest.approx([0.5, 0.3, 0.0], abs=0.012)


def test_a_slanted_target_has_its_middle_and_its_depth():
    x, _ = rays()
    mask, _ = plate(np.array([0.0, 0.0, 2.0]), (0.8, 0.5))
    found = locate(mask, (2.0 + 0.5 * x * 2.0).astype(np.float32), CAMERA)
    assert found.position == pytest.approx([0, 0, 2.0], abs=0.02)
    assert found.extent[2] == pytest.approx(0.4, abs=0.02)


@given(
    share=st.floats(0.0, 0.45),
    behind=st.floats(0.3, 5.0),
    valid=st.floats(0.3, 1.0),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=60, deadline=None)
def test_what_lies_behind_does_not_pull_the_depth(share, behind, valid, seed):
    rng = np.random.default_rng(seed)
    mask, depth = plate(np.array([0.1, 0.0, 1.5]), (0.4, 0.4))
    depth = depth + rng.normal(0, 0.003, depth.shape)
    depth = np.where(rng.random(depth.shape) < share, 1.5 + behind, depth)
    depth = np.where(rng.random(depth.shape) < valid, depth, np.nan).astype(np.float32)
    found = locate(mask, depth, CAMERA)
    assert np.linalg.norm(found.position - [0.1, 0.0, 1.5]) <= 0.02 * 1.5


@given(
    depth=st.lists(st.sampled_from([np.nan, 0.0, 0.5, 2.0, 65.535, 1e6]), min_size=36, max_size=36),
    bits=st.integers(0, 2**36 - 1),
)
@settings(max_examples=100, deadline=None)
def test_any_mask_and_depth_give_a_finite_position_or_none(depth, bits):
    mask = np.array([bits >> index & 1 for index in range(36)], bool).reshape(6, 6)
    metres = depth_in_metres(np.array(depth, np.float32).reshape(6, 6))
    found = locate(mask, metres, CAMERA, LocalizationConfig(min_pixels=1))
    if found is None:
        return
    assert np.isfinite(found.position).all() and (found.extent >= 0).all()
    assert 0 < found.depth_share <= 1
    assert np.linalg.eigvalsh(found.covariance).min() > 0


@pytest.mark.parametrize(
    "metres", [np.full((HEIGHT, WIDTH), np.nan, np.float32), np.zeros((HEIGHT, WIDTH), np.float32)]
)
def test_without_depth_there_is_no_position(metres):
    mask, _ = plate(np.array([0.0, 0.0, 1.0]), (0.3, 0.3))
    assert locate(mask, depth_in_metres(metres), CAMERA) is None


def test_an_empty_mask_has_no_position():
    empty = np.zeros((HEIGHT, WIDTH), bool)
    assert locate(empty, np.ones((HEIGHT, WIDTH), np.float32), CAMERA) is None


def test_a_thin_target_is_located_by_its_rim():
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[40:200, 100:102] = True
    found = locate(mask, np.where(mask, 1.2, BACKGROUND).astype(np.float32), CAMERA)
    assert found.position[2] == pytest.approx(1.2)


def test_a_cut_out_gives_the_position_of_the_whole():
    mask, depth = plate(np.array([0.3, -0.2, 1.4]), (0.3, 0.4))
    rows, columns = slice(20, 160), slice(150, 300)
    whole = locate(mask, depth, CAMERA)
    part = locate(mask[rows, columns], depth[rows, columns], CAMERA, offset=(150, 20))
    assert part.position == pytest.approx(whole.position)
    assert part.extent == pytest.approx(whole.extent)


def test_the_depth_s_type_says_its_unit():
    assert depth_in_metres(np.array([[1500, 0]], np.uint16)) == pytest.approx(
        np.array([[1.5, np.nan]]), nan_ok=True
    )
    assert depth_in_metres(np.array([[1.5, np.inf, -1.0]], np.float32)) == pytest.approx(
        np.array([[1.5, np.nan, np.nan]]), nan_ok=True
    )


def test_the_covariance_is_that_of_direction_and_depth():
    mask, depth = plate(np.array([0.0, 0.0, 2.0]), (0.4, 0.4))
    config = LocalizationConfig(depth_error=0.02, pixel_error=1.5)
    found = locate(mask, depth, CAMERA, config)
    x, y, z = np.sqrt(np.diag(found.covariance))
    assert z == pytest.approx(0.02 * 2.0, rel=1e-3)
    assert x == pytest.approx(1.5 * 2.0 / CAMERA.fx, rel=0.02)
    assert y == pytest.approx(1.5 * 2.0 / CAMERA.fy, rel=0.02)


def test_the_error_along_an_oblique_ray_is_correlated():
    mask, depth = plate(np.array([1.0, 0.0, 2.0]), (0.3, 0.3))
    covariance = locate(mask, depth, CAMERA, LocalizationConfig(depth_error=0.05)).covariance
    assert covariance[0, 2] / covariance[2, 2] == pytest.approx(0.5, rel=0.02)


def test_the_range_of_a_flat_surface_is_not_empty():
    low, high = surface_range(np.full(100, 1.0))
    assert low < 1.0 < high


LENS = (-0.28, 0.09, 0.001, -0.0007, -0.012)


@pytest.mark.parametrize("distortion", [LENS, (*LENS, 0.02, 0.01, 0.0)])
def test_a_distorted_pixel_looks_where_opencv_says(distortion):
    camera = Camera(280.0, 275.0, 158.0, 121.0, distortion)
    pixels = np.array([[0, 0], [319, 0], [40, 200], [158, 121], [310, 235]], np.float64)
    matrix = np.array([[280, 0, 158], [0, 275, 121], [0, 0, 1]], np.float64)
    criteria = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-12)
    expected = cv2.undistortPointsIter(
        pixels[:, None], matrix, np.array(distortion), None, None, criteria
    )
    assert camera.rays(pixels) == pytest.approx(expected[:, 0], abs=1e-4)


def test_without_distortion_a_pixel_looks_straight():
    assert CAMERA.rays([[158.0, 121.0], [438.0, 396.0]]) == pytest.approx(
        np.array([[0, 0], [1, 1]])
    )
