"""A target's position, extent and their uncertainty, from its mask and a registered depth image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mosam_ros.localization.camera import Camera

CORE_SHARE = 0.25
"""Share of the depths that must be left when the rim of the mask is put aside."""

SURFACE_WIDTHS = 4.5
"""Half widths of the densest half of the depths; of normally distributed ones, three deviations."""

EXTENT_PERCENTILES = (0.5, 99.5)
"""Few stray pixels of a mask must not stretch its target."""


@dataclass(frozen=True)
class LocalizationConfig:
    """What is believed of the sensors.

    Attributes:
        min_pixels: fewer pixels with a usable depth make no position.
        depth_error: expected error of the depth, as a share of it (one standard deviation).
        pixel_error: expected error of the mask's centroid in pixels (one standard deviation).
    """

    min_pixels: int = 20
    depth_error: float = 0.01
    pixel_error: float = 1.0


@dataclass(frozen=True)
class TargetPosition:
    """Where the seen side of a target is; in the optical frame: x right, y down, z forward.

    Attributes:
        position: (3,) its center in metres.
        extent: (3,) its width, height and depth in metres, along the axes of the camera.
        covariance: (3, 3) of the position, in square metres.
        depth_share: share of the mask's pixels whose depth is valid and of the target, 0..1.
    """

    position: NDArray[np.float64]
    extent: NDArray[np.float64]
    covariance: NDArray[np.float64]
    depth_share: float


def depth_in_metres(depth: NDArray) -> NDArray[np.float32]:
    """A depth image as REP 118 has it, in metres.

    Args:
        depth: (height, width) of an unsigned type: millimetres, 0 where invalid; of a float type:
            metres, NaN where invalid.

    Returns:
        (height, width), NaN wherever there is no depth.
    """
    scale = 1e-3 if np.issubdtype(depth.dtype, np.unsignedinteger) else 1.0
    metres = depth.astype(np.float32) * np.float32(scale)
    metres[~(np.isfinite(metres) & (metres > 0))] = np.nan
    return metres


def locate(
    mask: NDArray[np.bool_],
    metres: NDArray[np.float32],
    camera: Camera,
    config: LocalizationConfig | None = None,
    offset: tuple[int, int] = (0, 0),
) -> TargetPosition | None:
    """Locate the target, None where its depth cannot be told.

    The depth is the median of the pixels on the target's surface, the direction that of the mask's
    center; pixels that see something else are in neither, pixels without depth only in the latter.

    Args:
        mask: (height, width) the target's pixels.
        metres: (height, width) depth, NaN where there is none.
        camera: the one that the mask and the depth are of.
        config: None for the default.
        offset: x, y of the arrays' first pixel in the camera's image, where they are cut from it.
    """
    config = config or LocalizationConfig()
    known = mask & np.isfinite(metres)
    if np.count_nonzero(known) < config.min_pixels:
        return None
    low, high = surface_range(metres[_without_rim(mask, known)])
    surface = known & (metres >= low) & (metres <= high)
    depths = metres[surface]
    if len(depths) < config.min_pixels:
        return None
    rows, columns = np.nonzero(surface | (mask & ~known))
    pixels = np.stack([columns, rows], axis=1).astype(np.float64) + offset
    z = float(np.median(depths))
    x, y = camera.rays(pixels.mean(axis=0, keepdims=True))[0] * z
    return TargetPosition(
        position=np.array([x, y, z]),
        extent=_extent(pixels, depths, z, camera),
        covariance=_covariance(np.array([x, y, z]), depths, camera, config),
        depth_share=float(len(depths) / np.count_nonzero(mask)),
    )


def surface_range(depths: NDArray[np.floating]) -> tuple[float, float]:
    """The range of depths that belong to the surface that most of them are of.

    It is the shortest one that half of the depths lie in, made wide enough for the rest of the
    surface: up to half of the depths may be of something else.

    Args:
        depths: (n,) in metres, at least one.
    """
    ordered = np.sort(depths.astype(np.float64))
    half = len(ordered) // 2
    widths = ordered[half:] - ordered[: len(ordered) - half]
    start = int(np.argmin(widths))
    center = (ordered[start] + ordered[start + half]) / 2
    # A flat surface at the resolution of the depth image has no width of its own.
    reach = SURFACE_WIDTHS * max(widths[start] / 2, 0.002 * center)
    return float(center - reach), float(center + reach)


def _without_rim(mask: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The known pixels not on the mask's edge, where depths mix; all of them in a thin mask."""
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    core = known & inside
    return core if np.count_nonzero(core) >= CORE_SHARE * np.count_nonzero(known) else known


def _extent(
    pixels: NDArray[np.float64], depths: NDArray, z: float, camera: Camera
) -> NDArray[np.float64]:
    """Width and height of the mask at the target's depth, and how deep its seen side is."""
    low, high = np.percentile(pixels, EXTENT_PERCENTILES, axis=0)
    center = (low + high) / 2
    ends = np.array(
        [
            (low[0] - 0.5, center[1]),
            (high[0] + 0.5, center[1]),
            (center[0], low[1] - 0.5),
            (center[0], high[1] + 0.5),
        ]
    )
    left, right, top, bottom = camera.rays(ends)
    near, far = np.percentile(depths, EXTENT_PERCENTILES)
    return np.array([(right - left)[0] * z, (bottom - top)[1] * z, far - near])


def _covariance(
    position: NDArray[np.float64], depths: NDArray, camera: Camera, config: LocalizationConfig
) -> NDArray[np.float64]:
    """From the expected errors of the direction and of the depth, carried into space."""
    x, y, z = position
    scatter = 1.4826 * np.median(np.abs(depths - z)) / np.sqrt(len(depths))
    depth_variance = (config.depth_error * z) ** 2 + scatter**2
    along_ray = position / z
    sideways = np.diag([z / camera.fx, z / camera.fy, 0.0]) * config.pixel_error
    return depth_variance * np.outer(along_ray, along_ray) + sideways**2
