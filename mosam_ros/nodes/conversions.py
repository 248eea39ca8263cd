"""ROS messages to arrays, prompts and results, and back. Pure functions, no node in sight."""

from __future__ import annotations

import sys
from array import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point32, Vector3
from numpy.typing import NDArray
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from mosam_ros.mosam.prompts import Prompt, PromptError
from mosam_ros.mosam.results import Box, FrameResult, MotionPrompt, TargetResult
from mosam_ros.mosam.selection import Action, Selection
from mosam_ros.msg import MotionPrompt as MotionPromptMessage
from mosam_ros.msg import TargetSelection, TrackedTarget, TrackedTargetArray
from mosam_ros.nodes.image_input import ImageError, image_pixels


def mask_from_image(message: Image) -> NDArray[np.bool_]:
    """A mono8 mask as (height, width) bool; whatever is not zero is set.

    Raises:
        ImageError: another encoding, no pixels, or too little data.
    """
    if message.encoding not in ("mono8", "8UC1"):
        raise ImageError(f"the mask's encoding is {message.encoding!r}: send mono8")
    return image_pixels(message) != 0


def labels_from_image(message: Image) -> NDArray[np.uint16]:
    """A mono16 label image as (height, width) uint16.

    Raises:
        ImageError: another encoding, no pixels, or too little data.
    """
    if message.encoding not in ("mono16", "16UC1"):
        raise ImageError(f"the label image's encoding is {message.encoding!r}: send mono16")
    return image_pixels(message)


def color_to_image(pixels: NDArray[np.uint8], encoding: str, header: Header) -> Image:
    """An image message from (height, width, 3) uint8; `encoding` is rgb8 or bgr8."""
    return _image(pixels, encoding, header)


def mask_to_image(mask: NDArray[np.bool_], header: Header) -> Image:
    """A mono8 message from (height, width) bool, 255 where it is set."""
    return _image(mask.astype(np.uint8) * 255, "mono8", header)


def labels_to_image(labels: NDArray[np.uint16], header: Header) -> Image:
    """A mono16 message from (height, width) uint16."""
    return _image(labels, "mono16", header)


def _image(pixels: NDArray, encoding: str, header: Header) -> Image:
    pixels = np.ascontiguousarray(pixels)
    # The only assignment that rclpy does not check byte by byte is an array of unsigned bytes.
    data = array("B")
    data.frombytes(memoryview(pixels).cast("B"))
    message = Image(header=header, encoding=encoding, is_bigendian=int(sys.byteorder == "big"))
    message.height, message.width = pixels.shape[:2]
    message.step = pixels.strides[0]
    message.data = data
    return message


def header_seconds(header: Header) -> float:
    """The stamp of a header in seconds."""
    return (header.stamp.sec * 10**9 + header.stamp.nanosec) / 1e9


def image_seconds(header: Header) -> float:
    """The stamp of an image in seconds.

    Raises:
        ImageError: it is negative; rclpy cannot read such a stamp, nor can those who get answers.
    """
    if header.stamp.sec < 0:
        raise ImageError(f"its stamp is {header.stamp.sec} s, before 1970: is the clock set?")
    return header_seconds(header)


def selection_from_message(message: TargetSelection) -> Selection:
    """What a TargetSelection asks for.

    Raises:
        PromptError: an unknown action, or see `prompt_from_selection`.
    """
    try:
        action = Action(message.action)
    except ValueError as error:
        raise PromptError(
            f"unknown action {message.action}: use 0 to 3, see TargetSelection"
        ) from error
    prompted = action in (Action.SELECT, Action.REFINE)
    return Selection(
        action,
        prompt_from_selection(message) if prompted else None,
        message.target_id,
        message.label,
        header_seconds(message.header) or None,
    )


def prompt_from_selection(selection: TargetSelection) -> Prompt:
    """What a SELECT or REFINE message says about the target.

    Raises:
        PromptError: nothing given, numbers that are not finite, parts that contradict each other.
    """
    points = np.array([(p.x, p.y) for p in selection.points], np.float32).reshape(-1, 2)
    labels = np.array(selection.point_labels, np.int32)
    if labels.size == 0:
        labels = np.ones(len(points), np.int32)
    return Prompt(points, labels, _box_corners(selection), _selected_mask(selection))


def _box_corners(selection: TargetSelection) -> NDArray[np.float32] | None:
    if len(selection.box) == 0:
        return None
    if len(selection.box) != 4:
        raise PromptError(
            f"the box has {len(selection.box)} numbers: give x, y, width and height, or none"
        )
    x, y, width, height = selection.box
    return np.array([x, y, x + width, y + height], np.float32)


def _selected_mask(selection: TargetSelection) -> NDArray[np.bool_] | None:
    if selection.mask.height == 0:
        return None
    try:
        return mask_from_image(selection.mask)
    except ImageError as error:
        raise PromptError(f"in the selection's mask, {error}") from error


def targets_message(
    result: FrameResult, header: Header, seconds_convert: float = 0.0
) -> TrackedTargetArray:
    """The result as a message with the processed frame's header.

    Args:
        result: what the tracker said about the frame.
        header: the frame's, copied unchanged.
        seconds_convert: time that it took to turn the frame's message into an image.
    """
    seconds = result.seconds
    return TrackedTargetArray(
        header=header,
        targets=[
            _target_message(target, result.image_size)
            for target in sorted(result.targets, key=lambda target: target.target_id)
        ],
        seconds_convert=seconds_convert,
        seconds_encode=seconds.encode,
        seconds_decode=seconds.decode,
        seconds_memory=seconds.memory,
        seconds_motion=seconds.motion,
        seconds_total=seconds_convert + seconds.total,
    )


def _target_message(target: TargetResult, image_size: tuple[int, int]) -> TrackedTarget:
    x, y = target.centroid or (0.0, 0.0)
    return TrackedTarget(
        id=target.target_id,
        label=target.label,
        state=int(target.state),
        box=_region(target.box),
        centroid=Point32(x=float(x), y=float(y)),
        area=int(target.area),
        mask_confidence=float(target.predicted_iou),
        presence=target.presence,
        frames_since_seen=int(target.frames_since_seen),
        motion_prompt=motion_prompt_message(target.motion_prompt, image_size),
    )


def motion_prompt_message(
    prompt: MotionPrompt | None, image_size: tuple[int, int]
) -> MotionPromptMessage:
    """A forecast as a message, not valid where there is none.

    Args:
        prompt: in pixels, seconds of the frames' stamps and pixels per second.
        image_size: (height, width) in pixels, which the box is cut to.
    """
    if prompt is None:
        return MotionPromptMessage()
    velocity_x, velocity_y = map(float, prompt.velocity)
    return MotionPromptMessage(
        predicted_stamp=_time(prompt.time),
        valid=prompt.valid,
        key_points=[Point32(x=float(x), y=float(y)) for x, y in prompt.key_points],
        box=_region(_cut_box(prompt.box, image_size)),
        velocity=Vector3(x=velocity_x, y=velocity_y),
        uncertainty=prompt.uncertainty,
    )


def forecast_box(message: MotionPromptMessage) -> NDArray[np.float64] | None:
    """The box of a forecast: (4,) x_min, y_min, x_max, y_max in pixels; None where it cannot be
    trusted or lies outside the image.
    """
    box = message.box
    if not message.valid or not (box.width and box.height):
        return None
    x, y = box.x_offset, box.y_offset
    return np.array([x, y, x + box.width, y + box.height], np.float64)


def _time(seconds: float) -> Time:
    """A stamp; what lies outside of what a stamp can say becomes the nearest that it can."""
    whole, nanoseconds = divmod(round(seconds * 1e9), 10**9)
    return Time(sec=min(max(whole, -(2**31)), 2**31 - 1), nanosec=nanoseconds)


def _cut_box(corners: NDArray[np.float32], image_size: tuple[int, int]) -> Box | None:
    """The part of a box (4,) x_min, y_min, x_max, y_max that lies in the image, in whole pixels."""
    height, width = image_size
    limits = [width, height, width, height]
    x_min, y_min, x_max, y_max = np.rint(np.clip(corners, 0, limits)).astype(int).tolist()
    if x_max <= x_min or y_max <= y_min:
        return None
    return Box(x_min, y_min, x_max - x_min, y_max - y_min)


def _region(box: Box | None) -> RegionOfInterest:
    if box is None:
        return RegionOfInterest()
    return RegionOfInterest(
        x_offset=int(box.x), y_offset=int(box.y), width=int(box.width), height=int(box.height)
    )
