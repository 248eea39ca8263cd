"""Pieces of photographs as surfaces: of those pictures that scikit-image ships."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np

FILES = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "ihc.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
"""Those of scikit-image's pictures that show things or surfaces."""


@cache
def photographs() -> tuple[np.ndarray, ...]:
    """All photographs, (height, width, 3) uint8 RGB.

    Raises:
        ModuleNotFoundError: scikit-image is not installed.
    """
    try:
        import skimage
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "surfaces from photographs need scikit-image: pip install scikit-image"
        ) from error
    folder = Path(skimage.__file__).parent / "data"
    return tuple(cv2.imread(str(folder / name))[..., ::-1] for name in FILES)


def random_photograph(rng: np.random.Generator, size: int) -> np.ndarray:
    """A random square piece of a random photograph, (size, size, 3) uint8 RGB, turned, mirrored
    and with other colors.
    """
    whole = photographs()[rng.integers(len(FILES))]
    side = int(min(whole.shape[:2]) * rng.uniform(0.25, 1.0))
    top, left = (int(rng.integers(0, n - side + 1)) for n in whole.shape[:2])
    piece = np.rot90(whole[top : top + side, left : left + side], int(rng.integers(4)))
    piece = piece[:, :: int(rng.choice([-1, 1]))]
    piece = piece[..., rng.permutation(3)] if rng.random() < 0.3 else piece
    mode = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    piece = cv2.resize(np.ascontiguousarray(piece), (size, size), interpolation=mode)
    gain, offset = rng.uniform(0.6, 1.3, 3), rng.uniform(-30, 30)
    return np.clip(piece * gain + offset, 0, 255).astype(np.uint8)
