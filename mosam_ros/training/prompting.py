"""The prompts that a careful user would give."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mosam_ros.mosam.prompts import Prompt


def prompt_for(kind: str, mask: NDArray[np.bool_]) -> Prompt:
    """A `mask`, a `box` or a `point` for the object with this mask (height, width)."""
    if kind == "mask":
        return Prompt.from_mask(mask)
    y, x = np.nonzero(mask)
    if kind == "box":
        return Prompt.from_box(x.min(), y.min(), x.max() + 1, y.max() + 1)
    nearest = np.hypot(x - x.mean(), y - y.mean()).argmin()
    return Prompt.from_points([[x[nearest], y[nearest]]])
