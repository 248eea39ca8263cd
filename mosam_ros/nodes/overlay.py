"""Draw tracked targets into the camera's image."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import RegionOfInterest

from mosam_ros.mosam.results import TargetState
from mosam_ros.msg import MotionPrompt, TrackedTarget

Color = tuple[int, int, int]

TINT = 0.45
"""How much of a mask's color covers the image, 0..1."""

HIDDEN_SHADE = 0.6
"""Brightness of what is drawn of a target that is not in sight."""

ARROW_SECONDS = 0.5
"""The arrow of the velocity ends where the target's center would be after so long."""

SHORTEST_ARROW = 3.0
"""Pixels; a slower target has no arrow."""

DEVIATIONS = 2.0
"""Radius of the circle around the expected center, in standard deviations."""

DASH = 6
"""Length of a dash and of a gap, in pixels."""

BLACK = (0, 0, 0)


def target_color(target_id: int) -> Color:
    """A BGR color that differs between neighboring ids and never changes for one id."""
    hue = (0.33 + 0.618034 * (target_id - 1)) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 1.0)
    return int(255 * blue), int(255 * green), int(255 * red)


def draw_overlay(
    image: NDArray[np.uint8], labels: NDArray[np.uint16], targets: Sequence[TrackedTarget]
) -> NDArray[np.uint8]:
    """Masks, boxes, ids, names, states and forecasts on a copy of the image.

    A target in sight has a tinted mask and a box. Its forecast for the next frame is a dashed box,
    a dot for each key point, a circle around the expected center, the wider the less certain, and
    an arrow along the velocity. A hidden target is darker, and its mask, if there is one, only
    outlined; of its forecast the dashed box and the circle are left, and nothing once it is lost.

    Args:
        image: (height, width, 3) uint8 BGR.
        labels: (height, width) uint16, each pixel's target id.
        targets: what to draw beside the masks.

    Returns:
        (height, width, 3) uint8 BGR.
    """
    canvas = image.copy()
    for target in targets:
        _draw_mask(canvas, labels == target.id, _color(target), _in_sight(target))
    for target in targets:
        _draw_forecast(canvas, target)
    size = max(min(image.shape[:2]) / 480, 0.5)
    hidden = 0
    for target in targets:
        box = target.box
        if box.width:
            corner = (box.x_offset, box.y_offset)
            if _in_sight(target):
                cv2.rectangle(canvas, corner, _opposite(box), _color(target), 1, cv2.LINE_AA)
        else:
            hidden += 1
            corner = (4, int(24 * size) * hidden)
        _write(canvas, _caption(target), corner, _color(target), size)
    return canvas


def _in_sight(target: TrackedTarget) -> bool:
    return target.state == TrackedTarget.TRACKED


def _color(target: TrackedTarget) -> Color:
    shade = 1.0 if _in_sight(target) else HIDDEN_SHADE
    blue, green, red = target_color(target.id)
    return int(shade * blue), int(shade * green), int(shade * red)


def _lighter(color: Color) -> Color:
    """Half way to white, to be seen on the color itself."""
    blue, green, red = color
    return (blue + 255) // 2, (green + 255) // 2, (red + 255) // 2


def _opposite(box: RegionOfInterest) -> tuple[int, int]:
    return box.x_offset + box.width - 1, box.y_offset + box.height - 1


def _draw_mask(
    canvas: NDArray[np.uint8], mask: NDArray[np.bool_], color: Color, in_sight: bool
) -> None:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if width == 0:
        return
    inside = mask[y : y + height, x : x + width].astype(np.uint8)
    if in_sight:
        patch = canvas[y : y + height, x : x + width]
        tinted = cv2.addWeighted(patch, 1 - TINT, np.full_like(patch, color), TINT, 0)
        cv2.copyTo(tinted, inside, patch)
    contours, _ = cv2.findContours(
        inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x, y)
    )
    cv2.drawContours(canvas, contours, -1, color, 2 if in_sight else 1, cv2.LINE_AA)


def _draw_forecast(canvas: NDArray[np.uint8], target: TrackedTarget) -> None:
    """The forecast of a target in sight if it can be trusted; that of an occluded one always."""
    prompt, color = target.motion_prompt, _lighter(_color(target))
    shown = prompt.valid if _in_sight(target) else target.state == TrackedTarget.OCCLUDED
    if not shown or not prompt.key_points:
        return
    if prompt.box.width:
        _dashed_rectangle(canvas, prompt.box, color)
    if _in_sight(target):
        _draw_velocity(canvas, prompt, color)
        for point in prompt.key_points:
            center = _pixel(point.x, point.y)
            cv2.circle(canvas, center, 4, BLACK, cv2.FILLED, cv2.LINE_AA)
            cv2.circle(canvas, center, 3, color, cv2.FILLED, cv2.LINE_AA)
    _draw_uncertainty(canvas, prompt, color)


def _draw_uncertainty(canvas: NDArray[np.uint8], prompt: MotionPrompt, color: Color) -> None:
    """A circle around the expected center; none where it would not fit into the image."""
    radius = DEVIATIONS * prompt.uncertainty
    if radius < max(canvas.shape[:2]):
        center = _pixel(prompt.key_points[0].x, prompt.key_points[0].y)
        cv2.circle(canvas, center, max(1, round(radius)), color, 1, cv2.LINE_AA)


def _draw_velocity(canvas: NDArray[np.uint8], prompt: MotionPrompt, color: Color) -> None:
    step = ARROW_SECONDS * np.array([prompt.velocity.x, prompt.velocity.y])
    length = float(np.hypot(*step))
    if length < SHORTEST_ARROW:
        return
    longest = max(canvas.shape[:2])
    step *= min(1.0, longest / length)
    start = prompt.key_points[0]
    tip = _pixel(start.x + step[0], start.y + step[1])
    cv2.arrowedLine(canvas, _pixel(start.x, start.y), tip, BLACK, 4, cv2.LINE_AA, tipLength=0.2)
    cv2.arrowedLine(canvas, _pixel(start.x, start.y), tip, color, 2, cv2.LINE_AA, tipLength=0.2)


def _dashed_rectangle(canvas: NDArray[np.uint8], box: RegionOfInterest, color: Color) -> None:
    left, top = box.x_offset, box.y_offset
    right, bottom = _opposite(box)
    for start in range(left, right + 1, 2 * DASH):
        end = min(start + DASH - 1, right)
        for y in (top, bottom):
            cv2.line(canvas, (start, y), (end, y), color)
    for start in range(top, bottom + 1, 2 * DASH):
        end = min(start + DASH - 1, bottom)
        for x in (left, right):
            cv2.line(canvas, (x, start), (x, end), color)


def _pixel(x: float, y: float) -> tuple[int, int]:
    return round(x), round(y)


def _caption(target: TrackedTarget) -> str:
    name = f"{target.id} {target.label}".strip()
    return f"{name} {TargetState(target.state).name.lower()}"


def _write(
    canvas: NDArray[np.uint8], text: str, corner: tuple[int, int], color: Color, size: float
) -> None:
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
    cv2.putText(canvas, text, (left + 2, bottom - baseline), font, scale, BLACK, 1, cv2.LINE_AA)
