"""Optical flow of known motion, and masks warped by it (paper, section 3.2.2)."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import cv2
import huggingface_hub.constants
import numpy as np
import pytest
import torch

from mosam_ros.mosam import checkpoints
from mosam_ros.mosam.checkpoints import CheckpointError, load_raft_weights
from mosam_ros.mosam.motion.flow import (
    DenseMotion,
    DisFlow,
    FlowField,
    GrayPyramid,
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


NO_FEATURES = ImageFeatures(*[torch.zeros(1, 1, 1, 1)] * 4)


def flow_between(earlier: np.ndarray, now: np.ndarray, region: Region = REGION) -> FlowField:
    flow = DisFlow()
    return flow.estimate(flow.prepare(earlier, NO_FEATURES), flow.prepare(now, NO_FEATURES), region)


def motion_between(
    earlier: np.ndarray, now: np.ndarray, x: int, y: int, width: int, height: int
) -> DenseMotion | None:
    """Of the block that is at x, y now, between frames one second apart."""
    mask = np.zeros(now.shape[:2], bool)
    mask[y : y + height, x : x + width] = True
    box = np.array([x, y, x + width, y + height], float)
    return dense_motion(mask, flow_between(earlier, now, target_region(box, mask.shape)), 1.0)


def flat() -> np.ndarray:
    return np.full((260, 340, 3), 140, np.uint8)


def pasted(background: np.ndarray, block: np.ndarray, x: int, y: int) -> np.ndarray:
    image = background.copy()
    image[y : y + block.shape[0], x : x + block.shape[1]] = block
    return image


def moved_block(
    background: np.ndarray, surface: np.ndarray, shift: tuple[int, int], size: tuple[int, int]
) -> DenseMotion | None:
    """Of a block cut from `surface` that moved over a still background to 120, 90."""
    width, height = size
    block = surface[:height, :width]
    earlier = pasted(background, block, 120 - shift[0], 90 - shift[1])
    return motion_between(earlier, pasted(background, block, 120, 90), 120, 90, width, height)


@pytest.mark.parametrize("shift", [(3, 0), (0, -4), (5, 2)])
def test_dis_finds_a_known_shift(shift):
    image = texture(1)
    field = flow_between(image, shifted(image, *shift))
    inner = field.motion[8:-8, 8:-8]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), shift, atol=0.35)
    assert field.consistent[8:-8, 8:-8].mean() > 0.9


def test_the_flow_of_one_target_does_not_depend_on_that_of_another():
    images = texture(1), shifted(texture(1), 3, 1)
    flow = DisFlow()
    earlier, now = (flow.prepare(image, NO_FEATURES) for image in images)
    alone = flow.estimate(earlier, now, REGION)
    for region in (Region(0, 0, 80, 60), Region(50, 20, 50, 90), Region(0, 0, 16, 16)):
        flow.estimate(earlier, now, region)
    np.testing.assert_array_equal(flow.estimate(earlier, now, REGION).motion, alone.motion)


@pytest.mark.parametrize("extent", [(96, 16), (80, 20), (96, 31), (300, 4), (16, 96), (3, 3)])
def test_flat_and_tiny_regions_have_a_flow(extent):
    """OpenCV ends the process on some of these when they come as they are."""
    earlier, current = np.random.default_rng(0).integers(0, 255, (2, 240, 320)).astype(np.uint8)
    field = DisFlow().estimate(GrayPyramid(earlier), GrayPyramid(current), Region(0, 0, *extent))
    assert min(field.consistent.shape) >= 32
    assert np.isfinite(field.motion).all()


@pytest.mark.parametrize("size", [(480, 640), (719, 1283)])
@pytest.mark.parametrize("shift", [(8, 0), (-12, 4), (0, -16)])
def test_large_regions_are_shrunk_to_the_same_flow(size, shift):
    """Also where the region's sides are no multiples of a pixel of the pyramid."""
    image = cv2.resize(texture(1), size[::-1], interpolation=cv2.INTER_CUBIC)
    region = Region(33, 21, size[1] - 50, size[0] - 41)
    flow = DisFlow()
    field = flow.estimate(
        *(flow.prepare(x, NO_FEATURES) for x in (image, shifted(image, *shift))), region
    )
    inner = field.motion[8:-8, 8:-8]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), shift, atol=1.0)
    left_out = np.array([region.width - field.region.width, region.height - field.region.height])
    assert (abs(left_out) < 8).all()
    assert max(field.motion.shape) == 96


def test_a_pyramid_halves_what_is_even():
    pyramid = GrayPyramid(np.arange(35, dtype=np.uint8).reshape(5, 7))
    np.testing.assert_array_equal(pyramid.at(1), [[4, 6, 8], [18, 20, 22]])
    assert pyramid.at(2).shape == (1, 1)
    assert [GrayPyramid.level_for(x) for x in (0.3, 1.0, 1.99, 2.0, 3.9, 4.0)] == [0, 0, 0, 1, 1, 2]


def test_a_cut_is_not_consistent():
    assert flow_between(texture(1), texture(2)).consistent.mean() < 0.2
    assert motion_between(texture(1), texture(2), 80, 60, 80, 60) is None


def test_nothing_moves_where_nothing_can_be_seen():
    assert motion_between(flat(), flat(), 80, 60, 80, 60) is None
    noise = np.random.default_rng(0).normal(140, 6, (2, 260, 340, 1)).astype(np.uint8)
    earlier, now = np.repeat(noise, 3, axis=3)
    assert motion_between(earlier, now, 80, 60, 80, 60) is None


@pytest.mark.parametrize("shift", [(6, 0), (0, 6), (12, 0)])
def test_the_flow_of_a_flat_object_is_not_believed(shift):
    assert moved_block(texture(1), flat(), shift, (80, 60)) is None


@pytest.mark.parametrize("shift", [(40, 0), (60, 0), (0, 50), (-45, 0)])
@pytest.mark.parametrize("seed", range(4))
def test_motion_too_large_for_the_flow_is_noticed(shift, seed):
    assert moved_block(texture(seed), texture(seed + 100), shift, (80, 60)) is None


@pytest.mark.parametrize(
    ("size", "shift"),
    [((50, 50), shift) for shift in [(3, 0), (0, -3), (6, 0), (0, 6)]]
    + [(size, (d, 0)) for size in [(80, 60), (140, 100)] for d in (3, -6, 12)]
    + [((140, 100), (0, d)) for d in (-3, 6, -12)],
)
@pytest.mark.parametrize("seed", range(3))
def test_a_block_that_moves_over_a_still_texture_is_measured(shift, size, seed):
    motion = moved_block(texture(seed), texture(seed + 100), shift, size)
    distance = np.abs(shift).max()
    np.testing.assert_allclose(motion.box_velocity, [*shift, *shift], atol=0.15 * distance)
    assert motion.confidence > 0.5


def test_noise_and_other_light_are_no_broken_flow():
    background, block = texture(1), texture(101)[:60, :80]
    rng = np.random.default_rng(0)
    earlier, now = (
        np.clip(
            gain * pasted(background, block, x, 90) + rng.normal(offset, 6, (260, 340, 1)), 0, 255
        )
        for x, gain, offset in ((114, 1.0, 0.0), (120, 0.75, 20.0))
    )
    motion = motion_between(earlier.astype(np.uint8), now.astype(np.uint8), 120, 90, 80, 60)
    np.testing.assert_allclose(motion.box_velocity, [6, 0, 6, 0], atol=0.9)
    assert motion.confidence > 0.7


def uniform_field(motion: tuple[float, float], consistent: np.ndarray | None = None) -> FlowField:
    vectors = np.broadcast_to(np.float32(motion), (60, 80, 2))
    return FlowField(REGION, vectors, np.ones((60, 80), bool) if consistent is None else consistent)


def block() -> np.ndarray:
    mask = np.zeros((260, 340), bool)
    mask[60:120, 80:160] = True
    return mask


def test_the_forward_warp_moves_the_mask_by_its_own_flow():
    positions, moved, confidence = forward_warp(block(), uniform_field((7, -3)))
    assert positions.shape == (2, 30 * 40) and confidence == 1.0
    np.testing.assert_allclose(moved, positions + [[7], [-3]], atol=1e-3)
    assert positions.min(1).tolist() == [80.5, 60.5] and positions.max(1).tolist() == [158.5, 118.5]


def test_growth_moves_the_edges_apart():
    field = uniform_field((0, 0))
    outwards = ((field.positions - [120, 90]) * 0.1).astype(np.float32)
    growing = FlowField(REGION, outwards, field.consistent)
    motion = dense_motion(block(), growing, 0.1)
    np.testing.assert_allclose(motion.box_velocity, [-38, -28, 38, 28], atol=3)


def test_broken_samples_move_with_the_others():
    consistent = np.ones((60, 80), bool)
    consistent[:, 40:50] = False
    vectors = np.zeros((60, 80, 2), np.float32)
    vectors[...] = 2, 1
    vectors[~consistent] = 90, -90
    motion = dense_motion(block(), FlowField(REGION, vectors, consistent), 0.5)
    np.testing.assert_allclose(motion.box_velocity, [4, 2, 4, 2], rtol=1e-4)
    assert 0.5 < motion.confidence < 0.75  # a quarter of the samples, the deepest


def test_a_mostly_broken_flow_says_nothing():
    consistent = np.zeros((60, 80), bool)
    consistent[:, :26] = True
    assert dense_motion(block(), uniform_field((2, 1), consistent), 1.0) is None
    assert dense_motion(np.zeros((260, 340), bool), uniform_field((2, 1)), 1.0) is None


def test_the_region_stays_in_the_image():
    region = target_region(np.array([-5.0, 10.0, 40.0, 50.0]), (100, 60))
    assert (region.x, region.y) == (0, 0)
    assert (region.x + region.width, region.y + region.height) == (56, 66)


def test_an_unknown_flow_method_is_named():
    with pytest.raises(ValueError, match="'lucas': take one of dis"):
        make_flow("lucas", torch.device("cpu"))


@pytest.fixture
def published(tmp_path, monkeypatch) -> Path:
    """Weights at a URL of which the name ends with the start of the hash, and an empty cache."""
    torch.save({"layer.weight": torch.arange(6.0)}, tmp_path / "weights.pth")
    content = (tmp_path / "weights.pth").read_bytes()
    file = tmp_path / f"raft-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    file.write_bytes(content)
    monkeypatch.setattr(checkpoints, "RAFT_URL", file.as_uri())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path / "cache"))
    return file


def test_raft_weights_are_downloaded_once_and_verified(published, tmp_path):
    assert load_raft_weights()["layer.weight"].tolist() == [0, 1, 2, 3, 4, 5]
    published.unlink()
    assert list(load_raft_weights()) == ["layer.weight"]
    cached = tmp_path / "cache" / "torchvision" / published.name
    cached.write_bytes(cached.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="damaged.*delete it") as caught:
        load_raft_weights()
    assert str(cached) in str(caught.value)


def test_another_file_at_the_raft_address_is_refused(published, tmp_path):
    published.write_bytes(published.read_bytes() + b"more")
    with pytest.raises(CheckpointError, match="invalid hash value.*by hand") as caught:
        load_raft_weights()
    assert str(tmp_path / "cache") in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.pth"))


def test_raft_without_torchvision_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", None)
    with pytest.raises(ImportError, match="needs torchvision.*pip install torchvision"):
        make_flow("raft", torch.device("cpu"))


def test_raft_runs_with_the_downloaded_weights(tmp_path, monkeypatch):
    models = pytest.importorskip("torchvision.models.optical_flow", reason="needs torchvision")
    torch.manual_seed(0)
    weights = tmp_path / "raft.pth"
    torch.save(models.raft_small(weights=None).state_dict(), weights)
    name = f"raft-{hashlib.sha256(weights.read_bytes()).hexdigest()[:8]}.pth"
    monkeypatch.setattr(checkpoints, "RAFT_URL", weights.rename(tmp_path / name).as_uri())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HOME", str(tmp_path / "cache"))
    flow = make_flow("raft", torch.device("cpu"))
    with torch.inference_mode():
        earlier, now = (flow.prepare(texture(seed), NO_FEATURES) for seed in (1, 2))
        field = flow.estimate(earlier, now, REGION)
    assert field.motion.shape == (*field.consistent.shape, 2) and max(field.motion.shape) <= 128
    assert field.consistent.mean() < 0.3
