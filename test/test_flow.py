"""Optical flow of known motion, and masks warped by it (paper, section 3.2.2)."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from mosam_ros.mosam.motion.flow import (
    DisFlow,
    FlowField,
    Region,
    dense_motion,
    forward_warp,
    make_flow,
    target_region,
)
from mosam_ros.mosam.sam2_model import ImageFeatures

REGION = Region(40, 30, 160, 120)


def texture(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).random((260, 340), dtype=np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 2.5)
    gray = cv2.normalize(soft, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return np.repeat(gray[:, :, None], 3, axis=2)


def shifted(image: np.ndarray, dx: float, dy: float) -> np.ndarray:
    height, width = image.shape[:2]
    move = np.float32([[1, 0, dx], [0, 1, dy]])
    return cv2.warpAffine(image, move, (width, height), borderMode=cv2.BORDER_REFLECT)


def flow_between(earlier: np.ndarray, now: np.ndarray, region: Region = REGION) -> FlowField:
    flow = DisFlow()
    empty = torch.zeros(1, 1, 1, 1)
    features = ImageFeatures(empty, empty, empty, empty)
    return flow.estimate(flow.prepare(earlier, features), flow.prepare(now, features), region)


@pytest.mark.parametrize("shift", [(3, 0), (0, -4), (5, 2)])
def test_dis_finds_a_known_shift(shift):
    image = texture(1)
    field = flow_between(image, shifted(image, *shift))
    inner = field.motion[8:-8, 8:-8]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), shift, atol=0.35)
    assert field.consistent[8:-8, 8:-8].mean() > 0.9


def test_the_flow_of_one_target_does_not_depend_on_that_of_another():
    images = texture(1), shifted(texture(1), 3, 1)
    empty = torch.zeros(1, 1, 1, 1)
    features = ImageFeatures(empty, empty, empty, empty)
    flow = DisFlow()
    earlier, now = (flow.prepare(image, features) for image in images)
    alone = flow.estimate(earlier, now, REGION)
    for region in (Region(0, 0, 80, 60), Region(50, 20, 50, 90), Region(0, 0, 16, 16)):
        flow.estimate(earlier, now, region)
    np.testing.assert_array_equal(flow.estimate(earlier, now, REGION).motion, alone.motion)


@pytest.mark.parametrize("extent", [(96, 16), (80, 20), (96, 31), (300, 4), (16, 96), (3, 3)])
def test_flat_and_tiny_regions_have_a_flow(extent):
    """OpenCV ends the process on some of these when they come as they are."""
    earlier, current = np.random.default_rng(0).integers(0, 255, (2, 240, 320)).astype(np.uint8)
    field = DisFlow().estimate(earlier, current, Region(0, 0, *extent))
    assert min(field.consistent.shape) >= 32
    assert np.isfinite(field.motion).all()


def test_a_cut_is_not_consistent():
    field = flow_between(texture(1), texture(2))
    mask = np.zeros((260, 340), bool)
    mask[60:120, 80:160] = True
    assert field.consistent.mean() < 0.4
    assert dense_motion(mask, field) is None


def uniform_field(motion: tuple[float, float], consistent: np.ndarray | None = None) -> FlowField:
    vectors = np.broadcast_to(np.float32(motion), (60, 80, 2))
    return FlowField(REGION, vectors, np.ones((60, 80), bool) if consistent is None else consistent)


def block() -> np.ndarray:
    mask = np.zeros((260, 340), bool)
    mask[60:120, 80:160] = True
    return mask


def test_the_forward_warp_moves_the_mask_by_its_own_flow():
    positions, moved, confidence = forward_warp(block(), uniform_field((7, -3)))
    assert len(positions) == 30 * 40 and confidence == 1.0
    np.testing.assert_allclose(moved - positions, np.broadcast_to([7, -3], positions.shape))
    assert positions.min(0).tolist() == [80.5, 60.5] and positions.max(0).tolist() == [158.5, 118.5]


def test_growth_moves_the_edges_apart():
    field = uniform_field((0, 0))
    outwards = ((field.positions - [120, 90]) * 0.1).astype(np.float32)
    growing = FlowField(REGION, outwards, field.consistent)
    motion = dense_motion(block(), growing)
    np.testing.assert_allclose(motion.box_motion, [-3.8, -2.8, 3.8, 2.8], atol=0.3)


def test_broken_samples_move_with_the_others():
    consistent = np.ones((60, 80), bool)
    consistent[:, 40:50] = False
    vectors = np.zeros((60, 80, 2), np.float32)
    vectors[...] = 2, 1
    vectors[~consistent] = 90, -90
    motion = dense_motion(block(), FlowField(REGION, vectors, consistent))
    np.testing.assert_allclose(motion.box_motion, [2, 1, 2, 1])
    assert motion.confidence == pytest.approx(0.75, abs=0.02)


def test_a_mostly_broken_flow_says_nothing():
    consistent = np.zeros((60, 80), bool)
    consistent[:, :30] = True
    assert dense_motion(block(), uniform_field((2, 1), consistent)) is None
    assert dense_motion(np.zeros((260, 340), bool), uniform_field((2, 1))) is None


def test_the_region_stays_in_the_image():
    region = target_region(np.array([-5.0, 10.0, 40.0, 50.0]), (100, 60))
    assert (region.x, region.y) == (0, 0)
    assert (region.x + region.width, region.y + region.height) == (56, 66)


def test_an_unknown_flow_method_is_named():
    with pytest.raises(ValueError, match="'lucas': take one of dis"):
        make_flow("lucas", torch.device("cpu"))
