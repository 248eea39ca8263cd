"""Views of training clips, as the tracker chooses them and worse ones."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from mosam_ros.evaluation.metrics import tight_box
from mosam_ros.mosam.views import NEARLY_WHOLE, View

CONTEXT = (1.7, 3.1)
"""A view's sides in extents of the target, drawn for every clip."""

LEAST_SHARE = 0.28
"""Of the image's sides, that a view has."""

OFF_CENTER = 0.12
"""How far, of a view's sides, the target may be from its middle."""

TOO_WIDE = 1.6
"""A view so many times as wide as it should be is given up."""


def draw_context(rng: np.random.Generator) -> float:
    """A view's sides in extents of the target."""
    return float(rng.uniform(*CONTEXT))


def look_at(rng: np.random.Generator, box: NDArray[np.float64], context: float, size: int) -> View:
    """A view around a box (4,) in a square image, not quite in its middle."""
    share = wanted_share(box, context, size)
    if share > NEARLY_WHOLE:
        return View.whole((size, size))
    offset = rng.uniform(-OFF_CENTER, OFF_CENTER, 2) * share * size
    return View.around(box + np.tile(offset, 2), share, (size, size))


def wanted_share(box: NDArray[np.float64], context: float, size: int) -> float:
    """Of the image's sides that a view of a box (4,) should have."""
    return float(np.clip((box[2:] - box[:2]).max() / size * context, LEAST_SHARE, 1))


def view_path(
    rng: np.random.Generator, masks: NDArray[np.bool_], first: View, most_patience: int
) -> list[View]:
    """The views in which a target with masks (T, S, S) is looked for.

    A view is kept while the target lies in it and now and then given up for none; after some frames
    without the target, two to `most_patience`, it is the whole image.
    """
    context = draw_context(rng)
    patience = int(rng.integers(2, most_patience + 1))
    margin = float(rng.uniform(0.05, 0.35))
    jump_rate = float(rng.choice([0.0, 0.03, 0.08]))
    size = masks.shape[1]
    views, hidden, box = [first], 0, tight_box(masks[0])
    for mask in masks[1:]:
        view = views[-1]
        if hidden >= patience:
            view = View.whole((size, size))
        elif hidden == 0 and box is not None:
            too_wide = view.width > TOO_WIDE * wanted_share(box, context, size) * size
            if rng.random() < jump_rate:
                view = look_at(rng, box, context * float(rng.uniform(0.75, 1.35)), size)
            elif too_wide or not view.contains(box, margin):
                view = look_at(rng, box, context, size)
        views.append(view)
        seen = tight_box(mask)
        hidden = hidden + 1 if seen is None else 0
        box = box if seen is None else seen
    return views


def see_through(
    views: list[View], frames: NDArray[np.uint8], masks: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Frames (T, R, R, 3) and masks (K, T, R, R) as they are in T views, `size` pixels a side."""
    images = [_resized(f[v.slices], size) for f, v in zip(frames, views, strict=True)]
    seen = np.empty((*masks.shape[:2], size, size), bool)
    for k, t in np.ndindex(masks.shape[:2]):
        seen[k, t] = _resized_mask(masks[k, t][views[t].slices], size)
    return np.stack(images), seen


def _resized(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if len(image) == size:
        return image
    how = cv2.INTER_CUBIC if len(image) < size else cv2.INTER_AREA
    return cv2.resize(image, (size, size), interpolation=how)


def _resized_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    if len(mask) == size:
        return mask
    how = cv2.INTER_LINEAR if len(mask) < size else cv2.INTER_AREA
    return cv2.resize(mask.astype(np.float32), (size, size), interpolation=how) >= 0.5
