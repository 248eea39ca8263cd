"""Dense motion: optical flow of a target, and its mask warped forward (paper, section 3.2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mosam_ros.mosam.motion.encoders import FlowEncoder
from mosam_ros.mosam.sam2_model import ImageFeatures

MIN_SAMPLES = 12
"""A target seen in fewer samples of the flow has no dense motion."""

MIN_CONFIDENCE = 0.4
"""Share of a target's samples whose flow must be consistent; below, the flow counts as broken."""

EDGE_PERCENT = 2.0
"""The warped mask's box leaves out so many percent of its samples at each side, as outliers."""

MIN_DIS_SIDE = 32
"""Pixels; in flatter crops OpenCV's DIS reads out of bounds, which may end the process."""


@dataclass(frozen=True)
class Region:
    """A part of an image in pixels: columns x … x + width - 1, rows y … y + height - 1."""

    x: int
    y: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


@dataclass(frozen=True)
class FlowField:
    """How the surfaces that are seen in a region now have moved since an earlier frame.

    Attributes:
        region: of the image.
        motion: (h, w, 2) float32 dx, dy from the earlier frame to this one, in pixels of the image,
            at h x w places spread evenly over the region of this frame.
        consistent: (h, w) bool, flow there and back agree.
    """

    region: Region
    motion: NDArray[np.float32]
    consistent: NDArray[np.bool_]

    @cached_property
    def positions(self) -> NDArray[np.float32]:
        """(h, w, 2) x, y in pixels of the image of the samples."""
        height, width = self.motion.shape[:2]
        x = self.region.x + (np.arange(width, dtype=np.float32) + 0.5) * (self.region.width / width)
        y = self.region.y + (np.arange(height, dtype=np.float32) + 0.5) * (
            self.region.height / height
        )
        return np.stack(np.meshgrid(x - 0.5, y - 0.5), axis=-1)

    def inside(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(h, w): the samples that lie on a mask (height, width) of the whole image."""
        x, y = self.positions[0, :, 0], self.positions[:, 0, 1]
        return mask[np.rint(y).astype(np.intp)[:, None], np.rint(x).astype(np.intp)]


class FlowEstimator(Protocol):
    """An optical flow method; `prepare` is called once a frame, `estimate` once a target."""

    def prepare(self, frame: NDArray[np.uint8], features: ImageFeatures) -> Any:
        """What must be kept of a frame.

        Args:
            frame: (height, width, 3) uint8 RGB; not to be kept, the caller may reuse it.
            features: SAM 2's features of the frame.
        """
        ...

    def estimate(self, earlier: Any, current: Any, region: Region) -> FlowField:
        """Flow between two prepared frames of equal size within a region."""
        ...


class DisFlow:
    """OpenCV's DIS flow on gray crops of bounded size; needs no weights and no GPU.

    Args:
        max_side: crops are shrunk to this longer side, in pixels.
    """

    def __init__(self, max_side: int = 96) -> None:
        import cv2

        self._cv2: Any = cv2
        self._max_side = max_side

    def prepare(self, frame: NDArray[np.uint8], features: ImageFeatures) -> NDArray[np.uint8]:
        """The gray frame."""
        return self._cv2.cvtColor(frame, self._cv2.COLOR_RGB2GRAY)

    def estimate(
        self, earlier: NDArray[np.uint8], current: NDArray[np.uint8], region: Region
    ) -> FlowField:
        """See `FlowEstimator`."""
        scale = min(1.0, self._max_side / max(region.width, region.height))
        width, height = (
            max(MIN_DIS_SIDE, round(side * scale)) for side in (region.width, region.height)
        )
        now, then = (self._crop(image, region, (width, height)) for image in (current, earlier))
        # A new one each time: images of other sizes that it saw before would change the result.
        dis = self._cv2.DISOpticalFlow_create(self._cv2.DISOPTICAL_FLOW_PRESET_FAST)
        back = dis.calc(now, then, None)
        forth = dis.calc(then, now, None)
        pixels = np.array([region.width / width, region.height / height], np.float32)
        return FlowField(region, -back * pixels, self._agreement(back, forth))

    def _crop(
        self, image: NDArray[np.uint8], region: Region, size: tuple[int, int]
    ) -> NDArray[np.uint8]:
        return self._cv2.resize(image[region.slices], size, interpolation=self._cv2.INTER_AREA)

    def _agreement(
        self, back: NDArray[np.float32], forth: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        """Where following the flow back and forth leads to the same place, within the crop."""
        height, width = back.shape[:2]
        y, x = np.mgrid[:height, :width].astype(np.float32)
        there_x, there_y = x + back[..., 0], y + back[..., 1]
        returned = self._cv2.remap(forth, there_x, there_y, self._cv2.INTER_LINEAR)
        gap = np.square(back + returned).sum(-1)
        inside = (there_x >= 0) & (there_x < width) & (there_y >= 0) & (there_y < height)
        return inside & (gap < 0.25 + 0.01 * np.square(back).sum(-1))


class RaftFlow:
    """torchvision's RAFT (small) on color crops of bounded size; for CUDA.

    Its weights are downloaded by torchvision to torch's hub folder on first use.

    Args:
        device: where it runs.
        max_side: crops are shrunk or enlarged to this longer side, in pixels.

    Raises:
        ImportError: torchvision is missing.
    """

    def __init__(self, device: torch.device, max_side: int = 256) -> None:
        from torchvision.models.optical_flow import Raft_Small_Weights, raft_small

        self._device = device
        self._max_side = max_side
        self._model = raft_small(weights=Raft_Small_Weights.DEFAULT).to(device).eval()

    def prepare(self, frame: NDArray[np.uint8], features: ImageFeatures) -> torch.Tensor:
        """The frame on the device, (1, 3, height, width) in -1..1."""
        pixels = torch.from_numpy(frame.copy()).to(self._device)
        return pixels.permute(2, 0, 1)[None].float() / 127.5 - 1.0

    def estimate(self, earlier: torch.Tensor, current: torch.Tensor, region: Region) -> FlowField:
        """See `FlowEstimator`."""
        scale = self._max_side / max(region.width, region.height)
        height, width = (max(128, round(s * scale / 8) * 8) for s in (region.height, region.width))
        now, then = (self._crop(image, region, (height, width)) for image in (current, earlier))
        flow = self._model(torch.cat([now, then]), torch.cat([then, now]), num_flow_updates=8)[-1]
        back, forth = flow.float()
        pixels = torch.tensor([region.width / width, region.height / height], device=flow.device)
        motion = -back.permute(1, 2, 0) * pixels
        agree = _agreement(back, forth)
        return FlowField(region, motion.cpu().numpy(), agree.cpu().numpy())

    @staticmethod
    def _crop(image: torch.Tensor, region: Region, size: tuple[int, int]) -> torch.Tensor:
        rows, columns = region.slices
        return F.interpolate(
            image[:, :, rows, columns], size=size, mode="bilinear", align_corners=False
        )


def _agreement(back: torch.Tensor, forth: torch.Tensor) -> torch.Tensor:
    """(h, w) bool: where flow (2, h, w) back and forth lead to the same place."""
    height, width = back.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=back.device, dtype=torch.float32),
        torch.arange(width, device=back.device, dtype=torch.float32),
        indexing="ij",
    )
    there = torch.stack([x, y]) + back
    extent = torch.tensor([width - 1, height - 1], device=back.device)[:, None, None]
    grid = (2 * there / extent - 1).permute(1, 2, 0)[None]
    returned = torch.nn.functional.grid_sample(forth[None], grid, align_corners=True)[0]
    gap = (back + returned).square().sum(0)
    return (grid[0].abs() <= 1).all(-1) & (gap < 0.25 + 0.01 * back.square().sum(0))


class FeatureFlow:
    """The trained flow encoder on SAM 2's own features of both frames.

    Args:
        encoder: for the model whose features come.
        max_side: crops are shrunk to this longer side, in cells of stride 4.
    """

    def __init__(self, encoder: FlowEncoder, max_side: int = 48) -> None:
        self._encoder = encoder
        self._max_side = max_side

    def prepare(self, frame: NDArray[np.uint8], features: ImageFeatures) -> KeptFeatures:
        """Features to compare, and the size of the image."""
        described = self._encoder.describe(features.fine[:1], features.middle[:1])
        return KeptFeatures(described, (frame.shape[0], frame.shape[1]))

    def estimate(self, earlier: KeptFeatures, current: KeptFeatures, region: Region) -> FlowField:
        """See `FlowEstimator`; the region grows to whole cells."""
        rows, columns, covered = current.cells(region)
        crops = [kept.described[:, :, rows, columns] for kept in (current, earlier)]
        height, width = crops[0].shape[-2:]
        scale = self._max_side / max(height, width)
        if scale < 1:
            size = (max(2, round(height * scale)), max(2, round(width * scale)))
            crops = [F.interpolate(x, size=size, mode="area") for x in crops]
            crops = [F.normalize(x, dim=1) for x in crops]
        now, then = crops
        flow = self._encoder(torch.cat([now, then]), torch.cat([then, now])).float()
        back, forth = flow
        height, width = back.shape[-2:]
        pixels = back.new_tensor([covered.width / width, covered.height / height])
        motion = -back.permute(1, 2, 0) * pixels
        agree = _agreement(back, forth)
        return FlowField(covered, motion.cpu().numpy(), agree.cpu().numpy())


@dataclass(frozen=True)
class KeptFeatures:
    """What `FeatureFlow` keeps of a frame: features (1, C, h, w) and the image's size."""

    described: torch.Tensor
    image_size: tuple[int, int]

    def cells(self, region: Region) -> tuple[slice, slice, Region]:
        """Rows and columns of the features that cover a region, and the pixels that they cover."""
        height, width = self.described.shape[-2:]
        cell_y, cell_x = self.image_size[0] / height, self.image_size[1] / width
        top, left = int(region.y / cell_y), int(region.x / cell_x)
        bottom = min(height, int(np.ceil((region.y + region.height) / cell_y)))
        right = min(width, int(np.ceil((region.x + region.width) / cell_x)))
        x, y = round(left * cell_x), round(top * cell_y)
        covered = Region(x, y, round(right * cell_x) - x, round(bottom * cell_y) - y)
        return slice(top, bottom), slice(left, right), covered


FLOW_METHODS = ("dis", "raft", "feature")
"""Names for `make_flow`."""


def make_flow(name: str, device: torch.device, encoder: FlowEncoder | None = None) -> FlowEstimator:
    """The flow method of a name.

    Args:
        name: one of `FLOW_METHODS`.
        device: where it runs, if it runs on a GPU.
        encoder: for `feature`.

    Raises:
        ValueError: there is none of this name, or no encoder for it.
    """
    if name == "dis":
        return DisFlow()
    if name == "raft":
        return RaftFlow(device)
    if name == "feature" and encoder is not None:
        return FeatureFlow(encoder)
    if name == "feature":
        raise ValueError("the flow method feature needs a trained motion encoder")
    raise ValueError(f"there is no flow method {name!r}: take one of {', '.join(FLOW_METHODS)}")


def target_region(
    box: NDArray[np.float64], image_size: tuple[int, int], margin: float = 0.35
) -> Region:
    """The part of the image around a target in which its flow is estimated.

    Args:
        box: (4,) x_min, y_min, x_max, y_max in pixels.
        image_size: (height, width).
        margin: added on each side, as a share of the box's longer side, at least 16 pixels.
    """
    x_min, y_min, x_max, y_max = box
    extra = max(16.0, margin * max(x_max - x_min, y_max - y_min))
    left, top = int(max(0, x_min - extra)), int(max(0, y_min - extra))
    right = int(min(image_size[1], np.ceil(x_max + extra)))
    bottom = int(min(image_size[0], np.ceil(y_max + extra)))
    return Region(left, top, right - left, bottom - top)


@dataclass(frozen=True)
class DenseMotion:
    """What the flow says about a target.

    Attributes:
        box_motion: (4,) float64, how far the edges of its tight box move if its flow goes on for as
            long again as between the two frames: x_min, y_min, x_max, y_max in pixels.
        confidence: 0..1, the share of its samples with consistent flow.
    """

    box_motion: NDArray[np.float64]
    confidence: float


def forward_warp(
    mask: NDArray[np.bool_], field: FlowField
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Move a mask on by its own flow, `m_t · φ_D`, extrapolated linearly.

    Samples whose flow is not consistent move with the median of the others.

    Args:
        mask: (height, width) of the current frame.
        field: its flow.

    Returns:
        positions (n, 2) x, y of the mask's samples in pixels of the image, the same moved, and the
        share of samples with consistent flow; n may be 0.
    """
    inside = field.inside(mask)
    positions, motion = field.positions[inside], field.motion[inside]
    consistent = field.consistent[inside]
    if not consistent.any():
        return positions, positions, 0.0
    middle = np.median(motion[consistent], axis=0)
    moved = positions + np.where(consistent[:, None], motion, middle)
    return positions, moved, float(consistent.mean())


def dense_motion(mask: NDArray[np.bool_], field: FlowField) -> DenseMotion | None:
    """The motion of a mask's tight box by its forward warp; None where the flow is broken."""
    positions, moved, confidence = forward_warp(mask, field)
    if len(positions) < MIN_SAMPLES or confidence < MIN_CONFIDENCE:
        return None
    return DenseMotion((_edges(moved) - _edges(positions)).astype(np.float64), confidence)


def _edges(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """x_min, y_min, x_max, y_max of points (n, 2), without the outermost few."""
    skip = int(len(points) * EDGE_PERCENT / 100)
    ordered = np.sort(points, axis=0)
    return np.concatenate([ordered[skip], ordered[-1 - skip]])
