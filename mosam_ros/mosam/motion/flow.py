"""Dense motion: optical flow of a target, and its mask warped forward (paper, section 3.2.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import cv2 as opencv
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mosam_ros.mosam.checkpoints import load_raft_weights
from mosam_ros.mosam.motion.encoders import FlowEncoder
from mosam_ros.mosam.sam2_model import ImageFeatures

cv2: Any = opencv
"""OpenCV; its type hints lack DIS, and the types of pixels."""

MIN_SAMPLES = 12
"""A target with fewer samples of consistent flow has no dense motion."""

MIN_CONFIDENCE = 0.3
"""Flow of a lower confidence counts as broken; by chance it is 0.05, seldom 0.2."""

MIN_LIKENESS = 0.5
"""Correlation of two patches that show the same surface."""

MIN_CONTRAST = 4.0
"""Variance of gray levels; a patch with less shows hardly anything that could be found again."""

PATCH_SIDE = 9
"""Of the patches that are compared, in samples."""

BLUR = 12
"""Samples from its outline up to which a target's flow is blurred with its surroundings'."""

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

    def shrunk(self, factor: int) -> Region:
        """The same part of an image that is so many times smaller, in its whole pixels."""
        x, y = self.x // factor, self.y // factor
        right, bottom = (self.x + self.width) // factor, (self.y + self.height) // factor
        return Region(x, y, right - x, bottom - y)

    def enlarged(self, factor: int) -> Region:
        """The same part of an image that is so many times larger."""
        return Region(*(factor * n for n in (self.x, self.y, self.width, self.height)))


@dataclass(frozen=True)
class FlowField:
    """How the surfaces that are seen in a region now have moved since an earlier frame.

    Attributes:
        region: of the image.
        motion: (h, w, 2) float32 dx, dy from the earlier frame to this one, in pixels of the image,
            at h x w places spread evenly over the region of this frame.
        consistent: (h, w) bool, flow there and back agree, and both ends look alike.
    """

    region: Region
    motion: NDArray[np.float32]
    consistent: NDArray[np.bool_]

    @cached_property
    def axes(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(w,) x of the columns of samples and (h,) y of the rows, in pixels of the image."""
        height, width = self.motion.shape[:2]
        x, y = (
            start + (np.arange(count, dtype=np.float32) + 0.5) * (side / count) - 0.5
            for start, count, side in (
                (self.region.x, width, self.region.width),
                (self.region.y, height, self.region.height),
            )
        )
        return x, y

    @property
    def positions(self) -> NDArray[np.float32]:
        """(h, w, 2) x, y in pixels of the image of the samples."""
        return np.stack(np.meshgrid(*self.axes), axis=-1)

    def inside(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(h, w): the samples that lie on a mask (height, width) of the whole image."""
        columns, rows = (np.rint(axis).astype(np.intp) for axis in self.axes)
        return mask[rows[:, None], columns]


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
        self._max_side = max_side

    def prepare(self, frame: NDArray[np.uint8], features: ImageFeatures) -> GrayPyramid:
        """The gray frame."""
        return GrayPyramid(_gray(frame))

    def estimate(self, earlier: GrayPyramid, current: GrayPyramid, region: Region) -> FlowField:
        """See `FlowEstimator`; what does not fill a pixel of the pyramid at the region's right and
        lower edge is left out.
        """
        scale = min(1.0, self._max_side / max(region.width, region.height))
        height, width = size = (
            max(MIN_DIS_SIDE, round(region.height * scale)),
            max(MIN_DIS_SIDE, round(region.width * scale)),
        )
        level = GrayPyramid.level_for(min(region.height / height, region.width / width))
        shrunk = region.shrunk(2**level)
        then, now = (_gray_crop(x.at(level), shrunk, size) for x in (earlier, current))
        # A new one each time: images of other sizes that it saw before would change the result.
        dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        # Finer than the preset, for the edges of small targets; smoothing would blur them again.
        dis.setFinestScale(1)
        dis.setVariationalRefinementIterations(0)
        back, forth = dis.calc(now, then, None), dis.calc(then, now, None)
        return _flow_field(shrunk.enlarged(2**level), then, now, back, forth)


class GrayPyramid:
    """A gray image, and the same at a half, a quarter, … of its size, made when it is first asked
    for: large regions are shrunk at less cost from those.

    Args:
        gray: (height, width) uint8.
    """

    def __init__(self, gray: NDArray[np.uint8]) -> None:
        self._levels = [gray]

    @staticmethod
    def level_for(shrinking: float) -> int:
        """The smallest image that is no smaller than one shrunk by a factor, 1 or more."""
        return max(0, int(np.log2(max(shrinking, 1.0))))

    def at(self, level: int) -> NDArray[np.uint8]:
        """The image at 1 / 2**level of its size, without rows and columns that are left over."""
        while len(self._levels) <= level:
            last = self._levels[-1]
            height, width = (side // 2 for side in last.shape)
            even = last[: 2 * height, : 2 * width]
            self._levels.append(cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA))
        return self._levels[level]


def _gray(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)


def _gray_crop(
    image: NDArray[np.uint8], region: Region, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """A region of an image at a size (height, width)."""
    return cv2.resize(image[region.slices], size[::-1], interpolation=cv2.INTER_AREA)


def _flow_field(
    region: Region,
    then: NDArray[np.uint8],
    now: NDArray[np.uint8],
    back: NDArray[np.float32],
    forth: NDArray[np.float32],
) -> FlowField:
    """What the flow between two crops of a region says, and where it holds.

    Args:
        region: of the image.
        then: the earlier crop, (h, w) gray.
        now: the current crop, as large.
        back: (h, w, 2) flow from `now` to `then`, in pixels of the crops.
        forth: the other way.
    """
    height, width = back.shape[:2]
    dx, dy = cv2.split(back)
    there_x = dx + np.arange(width, dtype=np.float32)
    there_y = dy + np.arange(height, dtype=np.float32)[:, None]
    # What leads out of the crop returns as 0, which disagrees.
    return_x, return_y = cv2.split(cv2.remap(forth, there_x, there_y, cv2.INTER_LINEAR))
    gap = np.square(dx + return_x) + np.square(dy + return_y)
    agree = gap < 0.25 + 0.01 * (np.square(dx) + np.square(dy))
    alike = _alike(cv2.remap(then, there_x, there_y, cv2.INTER_LINEAR), now)
    motion = cv2.merge([dx * -(region.width / width), dy * -(region.height / height)])
    return FlowField(region, motion, agree & alike)


def _alike(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(h, w): where the patches of two gray images correlate, whatever their brightness. Patches
    without contrast do not.
    """
    a, b = first.astype(np.float32), second.astype(np.float32)
    mean_a, mean_b, aa, bb, ab = (
        cv2.boxFilter(x, cv2.CV_32F, (PATCH_SIDE, PATCH_SIDE)) for x in (a, b, a * a, b * b, a * b)
    )
    variances = (aa - mean_a * mean_a) * (bb - mean_b * mean_b)
    spread = np.sqrt(np.maximum(variances, 0)) + MIN_CONTRAST
    return ab - mean_a * mean_b > MIN_LIKENESS * spread


class RaftFlow:
    """torchvision's RAFT (small) on color crops of bounded size; for CUDA.

    Its weights are downloaded on first use.

    Args:
        device: where it runs.
        max_side: crops are shrunk or enlarged to this longer side, in pixels.

    Raises:
        ImportError: torchvision is missing, or was built for another PyTorch.
        CheckpointError: the weights are damaged, or the download failed.
    """

    def __init__(self, device: torch.device, max_side: int = 256) -> None:
        try:
            from torchvision.models.optical_flow import raft_small
        except (ImportError, RuntimeError) as error:  # RuntimeError: built for another PyTorch
            raise ImportError(
                f"the flow method raft needs torchvision, of the release and build that belong to "
                f"PyTorch {torch.__version__} ({error}): install it as you installed PyTorch "
                f"(`pip install torchvision`), or choose dis"
            ) from error
        self._device = device
        self._max_side = max_side
        self._model = raft_small(weights=None)
        self._model.load_state_dict(load_raft_weights())
        self._model.to(device).eval().requires_grad_(False)

    def prepare(self, frame: NDArray[np.uint8], features: ImageFeatures) -> KeptFrame:
        """The frame in gray, and on the device (1, 3, height, width) in -1..1."""
        pixels = torch.from_numpy(frame.copy()).to(self._device)
        return KeptFrame(_gray(frame), pixels.permute(2, 0, 1)[None].float() / 127.5 - 1.0)

    def estimate(self, earlier: KeptFrame, current: KeptFrame, region: Region) -> FlowField:
        """See `FlowEstimator`."""
        scale = self._max_side / max(region.width, region.height)
        height, width = (max(128, round(s * scale / 8) * 8) for s in (region.height, region.width))
        rows, columns = region.slices
        then, now = (
            F.interpolate(
                kept.described[:, :, rows, columns],
                size=(height, width),
                mode="bilinear",
                align_corners=False,
            )
            for kept in (earlier, current)
        )
        flow = self._model(torch.cat([now, then]), torch.cat([then, now]), num_flow_updates=8)[-1]
        # Half as many samples do, in pixels twice as large.
        return _fetched(region, earlier, current, F.avg_pool2d(flow.float(), 2) / 2)


def _fetched(
    region: Region, earlier: KeptFrame, current: KeptFrame, flow: torch.Tensor
) -> FlowField:
    """The field of flow (2, 2, h, w), back and forth, that was computed on a device."""
    back, forth = flow.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    then, now = (_gray_crop(kept.gray, region, back.shape[:2]) for kept in (earlier, current))
    return _flow_field(region, then, now, back, forth)


class FeatureFlow:
    """The trained flow encoder on SAM 2's own features of both frames.

    Args:
        encoder: for the model whose features come.
        max_side: crops are shrunk to this longer side, in cells of stride 4.
    """

    def __init__(self, encoder: FlowEncoder, max_side: int = 48) -> None:
        self._encoder = encoder
        self._max_side = max_side

    def prepare(self, frame: NDArray[np.uint8], features: ImageFeatures) -> KeptFrame:
        """The frame in gray, and features to compare."""
        described = self._encoder.describe(features.fine[:1], features.middle[:1])
        return KeptFrame(_gray(frame), described)

    def estimate(self, earlier: KeptFrame, current: KeptFrame, region: Region) -> FlowField:
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
        return _fetched(covered, earlier, current, flow)


@dataclass(frozen=True)
class KeptFrame:
    """What is kept of a frame for a flow method that runs on a device.

    Attributes:
        gray: (height, width) uint8.
        described: (1, C, h, w) on the device, what it compares.
    """

    gray: NDArray[np.uint8]
    described: torch.Tensor

    def cells(self, region: Region) -> tuple[slice, slice, Region]:
        """Rows and columns of the features that cover a region, and the pixels that they cover."""
        height, width = self.described.shape[-2:]
        cell_y, cell_x = self.gray.shape[0] / height, self.gray.shape[1] / width
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
        box_velocity: (4,) float64, of the edges of its tight box, if its flow goes on: x_min,
            y_min, x_max, y_max in pixels per second.
        confidence: 0..1, the share of its samples with consistent flow; samples deeper in it count
            more.
    """

    box_velocity: NDArray[np.float64]
    confidence: float


def forward_warp(
    mask: NDArray[np.bool_], field: FlowField
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Move a mask on by its own flow, `m_t · φ_D`, extrapolated linearly.

    All samples move by the affine motion that fits the consistent flow best. Flow counts more the
    deeper it lies in the mask: near the outline it is blurred with that of the surroundings.

    Args:
        mask: (height, width) of the current frame.
        field: its flow.

    Returns:
        positions (2, n) x and y of the mask's samples in pixels of the image, the same moved, and
        the confidence, see `DenseMotion`; n may be 0.
    """
    inside = field.inside(mask)
    rows, columns = np.nonzero(inside)
    x, y = field.axes
    positions = np.stack([x[columns], y[rows]])
    consistent = field.consistent[inside]
    if np.count_nonzero(consistent) < MIN_SAMPLES:
        return positions, positions, 0.0
    depth = cv2.distanceTransform(inside.view(np.uint8), cv2.DIST_L2, 3)[inside]
    weights = np.square(np.minimum(depth, BLUR))
    trusted = weights * consistent
    moved = positions + _affine(positions, field.motion[inside].T, trusted)
    return positions, moved, float(trusted.sum() / weights.sum())


def _affine(
    positions: NDArray[np.float32], motion: NDArray[np.float32], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The affine motion (2, n) of positions (2, n) that fits theirs best by weights (n,)."""
    share = weights / weights.sum()
    offsets = positions - (positions @ share)[:, None]
    middle = (motion @ share)[:, None]
    weighted = offsets * share
    spread = weighted @ offsets.T + np.eye(2, dtype=np.float32)
    return middle + np.linalg.solve(spread, weighted @ (motion - middle).T).T @ offsets


def dense_motion(mask: NDArray[np.bool_], field: FlowField, elapsed: float) -> DenseMotion | None:
    """The motion of a mask's tight box by its forward warp; None where the flow is broken.

    Args:
        mask: (height, width) of the current frame.
        field: its flow.
        elapsed: seconds between the two frames of the flow.
    """
    positions, moved, confidence = forward_warp(mask, field)
    if confidence < MIN_CONFIDENCE:
        return None
    box_motion = (_edges(moved) - _edges(positions)).astype(np.float64)
    return DenseMotion(box_motion / elapsed, confidence)


def _edges(points: NDArray[np.float32]) -> NDArray[np.float32]:
    """x_min, y_min, x_max, y_max of points (2, n), without the outermost few."""
    last = points.shape[1] - 1
    skip = int(points.shape[1] * EDGE_PERCENT / 100)
    ordered = np.partition(points, (skip, last - skip))
    return np.concatenate([ordered[:, skip], ordered[:, last - skip]])
