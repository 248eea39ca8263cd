"""Where the demo's camera takes its frames from: a scene, a video file, a folder of images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from mosam_ros.synthetic import SceneFrame
from mosam_ros.synthetic.demo_scene import demo_scene_config, find_demo_scene

SYNTHETIC = "synthetic"

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


class SourceError(ValueError):
    """Frames that cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class CameraFrame:
    """One frame as the camera publishes it.

    Attributes:
        pixels: (height, width, 3) uint8.
        encoding: rgb8 or bgr8.
        labels: (height, width) uint16, 1 the target, 2 … the other objects; None where there is
            no ground truth.
    """

    pixels: np.ndarray
    encoding: str
    labels: np.ndarray | None = None


def scene_frames(seed: int, width: int, height: int, num_frames: int) -> Iterator[CameraFrame]:
    """The demo's scene for a seed; the search for it starts with the first frame."""
    scene = find_demo_scene(seed, demo_scene_config(width, height, num_frames))
    for t in range(len(scene)):
        frame = scene.frame(t)
        yield CameraFrame(frame.image, "rgb8", label_objects(frame))


def label_objects(frame: SceneFrame) -> np.ndarray:
    """(height, width) uint16 of a scene's frame: object i is i + 1, the background 0."""
    labels = np.zeros(frame.masks.shape[1:], np.uint16)
    for index, mask in enumerate(frame.masks):
        labels[mask] = index + 1
    return labels


def source_size(path: Path) -> tuple[int, int]:
    """(height, width) of the first frame.

    Raises:
        SourceError: there is none.
    """
    return next(path_frames(path)).pixels.shape[:2]


def path_frames(path: Path) -> Iterator[CameraFrame]:
    """The frames of a video file, or of a folder of images in the order of their names.

    Raises:
        SourceError: nothing there, or nothing that OpenCV can read.
    """
    if not path.exists():
        raise SourceError(f"there is no video and no folder {path}")
    frames = _folder_frames(path) if path.is_dir() else _video_frames(path)
    count = 0
    for count, pixels in enumerate(frames, 1):  # noqa: B007
        yield CameraFrame(pixels, "bgr8")
    if count == 0:
        raise SourceError(f"{path} holds no frame that OpenCV can read: give a video or images")


def _video_frames(path: Path) -> Iterator[np.ndarray]:
    video = cv2.VideoCapture(str(path))
    try:
        while (read := video.read())[0]:
            yield read[1]
    finally:
        video.release()


def _folder_frames(path: Path) -> Iterator[np.ndarray]:
    for file in sorted(path.iterdir()):
        if file.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        pixels = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if pixels is None:
            raise SourceError(f"{file} is not an image that OpenCV can read")
        yield pixels
