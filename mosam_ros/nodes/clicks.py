"""Clicks of people: which pixel is meant, and which target is there. No node in sight."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from geometry_msgs.msg import PointStamped
from sensor_msgs.msg import CameraInfo

from mosam_ros.mosam.catch_up import SeenTarget
from mosam_ros.mosam.prompts import PromptError
from mosam_ros.nodes.image_input import ImageError
from mosam_ros.nodes.position_messages import camera_from_info

SAME_CLICK_SECONDS = 0.4
SAME_CLICK_PIXELS = 5.0
"""What comes so soon and so near after a click is its repetition, as of a double click."""


@dataclass(frozen=True)
class Click:
    """A click in the image.

    Attributes:
        x, y: in pixels.
        arrived: seconds of a steady clock.
    """

    x: float
    y: float
    arrived: float

    def repeats(self, other: Click) -> bool:
        """Whether the other click, an earlier one, was the same."""
        near = math.hypot(self.x - other.x, self.y - other.y) <= SAME_CLICK_PIXELS
        return near and self.arrived - other.arrived <= SAME_CLICK_SECONDS


def seen_pixel(
    clicked: PointStamped, info: CameraInfo | None, size: tuple[int, int], rectified: bool
) -> tuple[float, float]:
    """Where a point in space, as of RViz's "Publish Point", is seen in the image.

    Args:
        clicked: in metres, in the camera's optical frame.
        info: what the camera says about itself, None where it has not said anything.
        size: (height, width) of the image in pixels.
        rectified: whether the images are, so that P counts instead of K and the distortion.

    Returns:
        x, y in pixels; perhaps outside of the image.

    Raises:
        PromptError: no usable camera_info, another frame, or a point that is not in front.
    """
    if info is None:
        raise PromptError("no camera_info came yet, which says where the clicked point is seen")
    frame = info.header.frame_id
    if clicked.header.frame_id != frame:
        raise PromptError(
            f"the clicked point is in the frame {clicked.header.frame_id!r}, the camera in "
            f"{frame!r}: make that RViz's fixed frame"
        )
    point = clicked.point
    if not point.z > 0:
        raise PromptError(f"the clicked point is not in front of the camera: z is {point.z:g} m")
    try:
        camera = camera_from_info(info, size, rectified)
    except ImageError as error:
        raise PromptError(str(error)) from error
    x, y = camera.pixels([(point.x, point.y, point.z)])[0].tolist()
    return x, y


def target_at(seen: Iterable[SeenTarget], x: float, y: float, size: tuple[int, int]) -> int | None:
    """The id of the target in whose mask a pixel of the image lies; the surest of several.

    Args:
        seen: the targets in the image.
        x: in pixels, inside of the image.
        y: likewise.
        size: (height, width) of the image in pixels.
    """
    row, column = min(round(y), size[0] - 1), min(round(x), size[1] - 1)
    there = [target for target in seen if target.covers(column, row)]
    return max(there, key=lambda target: target.predicted_iou).target_id if there else None
