"""Draw tracked targets into the camera's image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from mosam_ros.mosam.results import TargetState
from mosam_ros.msg import TrackedTarget

TINT = 0.45
"""How much of a mask's color covers the image, 0..1."""


def target_color(target_id: int) -> tuple[int, int, int]:
    """A BGR color that differs between neighboring ids and never changes for one id."""
    hue = (0.33 + 0.618034 * (target_id - 1)) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return int(255 * blue), int(255 * green), int(255 * red)


def draw_overlay(
    image: NDArray[np.uint8], labels: NDArray[np.uint16], targets: Sequence[TrackedTarget]
) -> NDArray[np.uint8]:
    """Masks, boxes, ids, names and states on a copy of the image.

    Args:
        image: (height, width, 3) uint8 BGR.
        labels: (height, width) uint16, each pixel's target id.
        targets: what to write beside the masks.

    Returns:
        (height, width, 3) uint8 BGR.
    """
    canvas = image.copy()
    for target in targets:
        _draw_mask(canvas, labels == target.id, target_color(target.id))
    size = max(min(image.shape[:2]) / 480, 0.5)
    hidden = 0
    for target in targets:
        color = target_color(target.id)
        text = _caption(target)
        box = target.box
        if box.width:
            corner = (box.x_offset, box.y_offset)
            opposite = (corner[0] + box.width - 1, corner[1] + box.height - 1)
            cv2.rectangle(canvas, corner, opposite, color, 1, cv2.LINE_AA)
            _write(canvas, text, corner, color, size)
        else:
            hidden += 1
            _write(canvas, text, (4, int(24 * size) * hidden), color, size)
    return canvas


def _draw_mask(canvas: NDArray[np.uint8], mask: NDArray[np.bool_], color) -> None:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if width == 0:
        return
    inside = mask[y : y + height, x : x + width]
    patch = canvas[y : y + height, x : x + width]
    tinted = cv2.addWeighted(patch, 1 - TINT, np.full_like(patch, color), TINT, 0)
    patch[inside] = tinted[inside]
    contours, _ = cv2.findContours(
        inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y)
    )
    cv2.drawContours(canvas, contours, -1, color, 2, cv2.LINE_AA)


def _caption(target: TrackedTarget) -> str:
    name = f"{target.id} {target.label}".strip()
    return f"{name} {TargetState(target.state).name.lower()}"


def _write(canvas: NDArray[np.uint8], text: str, corner: tuple[int, int], color, size: float):
    """Black on the target's color, above `corner` where there is room."""
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.5 * size
    (width, height), baseline = cv2.getTextSize(text, font, scale, 1)
    left = int(np.clip(corner[0], 0, max(canvas.shape[1] - width - 4, 0)))
    bottom = int(np.clip(corner[1], height + baseline + 2, canvas.shape[0] - 1))
    cv2.rectangle(
        canvas,
        (left, bottom - height - baseline - 2),
        (left + width + 4, bottom),
        color,
        cv2.FILLED,
    )
    cv2.putText(canvas, text, (left + 2, bottom - baseline), font, scale, (0, 0, 0), 1, cv2.LINE_AA)
