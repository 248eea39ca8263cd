"""How well a target in a real video is held, from its mask in the first frame; and a picture of it.

python benchmarks/real_video.py --images FOLDER --masks FOLDER --strip chair.jpg --json chair.json
python benchmarks/real_video.py --images video.mp4 --box "450 375 255 175" --strip dog.jpg

Without masks there are no figures but those of the tracker itself, and the picture to judge by.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mosam_ros.demo_report import contact_sheet, parse_box, spread
from mosam_ros.evaluation.metrics import mask_iou
from mosam_ros.evaluation.motion_clips import read_label_images
from mosam_ros.frame_sources import path_frames
from mosam_ros.mosam.checkpoints import load_model
from mosam_ros.mosam.prompts import Prompt
from mosam_ros.mosam.results import TargetResult, TargetState
from mosam_ros.mosam.tracker import MosamTracker

PICTURES = 16
FOUND, TRUE = (0, 0, 255), (0, 255, 0)
"""BGR colors of the outlines."""


def read_truth(folder: Path) -> list[NDArray[np.bool_]]:
    """(height, width) masks of the first object of a folder of palette images."""
    labels = read_label_images(folder)
    first = min(set(np.unique(labels[0])) - {0})
    return [image == first for image in labels]


def first_prompt(options: argparse.Namespace, truth: list[NDArray[np.bool_]] | None) -> Prompt:
    """The true mask, or the box of the command line."""
    if truth is not None:
        return Prompt.from_mask(truth[0])
    x, y, width, height = parse_box(options.box)
    return Prompt.from_box(x, y, x + width, y + height)


def track(
    tracker: MosamTracker, images: Path, prompt: Prompt, limit: int | None
) -> Iterator[tuple[NDArray[np.uint8], TargetResult]]:
    """Every frame, BGR, with what was found in it."""
    tracker.add(prompt)
    for index, frame in enumerate(path_frames(images)):
        if index == limit:
            return
        rgb = np.ascontiguousarray(frame.pixels[..., ::-1])
        yield frame.pixels, tracker.track(rgb).targets[0]


def outlined(image: NDArray[np.uint8], mask: NDArray[np.bool_], color: tuple) -> None:
    """Draw the outline of a mask into an image."""
    contours, _ = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    cv2.drawContours(image, contours, -1, color, max(2, image.shape[0] // 200))


def figures(results: list[TargetResult], truth: list[NDArray[np.bool_]] | None) -> dict:
    """Frames in sight, and with a truth the mean IoU beside repeating the first mask."""
    seen = [result.state is TargetState.TRACKED for result in results]
    report: dict = {"frames": len(results), "tracked": round(float(np.mean(seen)), 4)}
    if truth is None:
        return report
    pairs = list(zip(results, truth, strict=True))[1:]
    tracked = [mask_iou(result.mask, mask) for result, mask in pairs]
    repeated = [mask_iou(truth[0], mask) for _, mask in pairs]
    return report | {
        "iou": round(float(np.mean(tracked)), 4),
        "iou_first_mask_repeated": round(float(np.mean(repeated)), 4),
        "iou_by_quarter": [round(float(np.mean(part)), 4) for part in np.array_split(tracked, 4)],
    }


def draw(
    frames: list[NDArray[np.uint8]],
    results: list[TargetResult],
    truth: list[NDArray[np.bool_]] | None,
) -> NDArray[np.uint8]:
    """Frames spread over the video, what was found in red and the truth in green."""
    pictures = []
    for index in spread(len(frames), PICTURES):
        picture = frames[index].copy()
        if truth is not None:
            outlined(picture, truth[index], TRUE)
        outlined(picture, results[index].mask, FOUND)
        pictures.append(picture)
    return contact_sheet(pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="video file or image folder")
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--masks", type=Path, help="folder of palette images, one per frame")
    start.add_argument("--box", help="'x y width height' of the target in the first frame")
    parser.add_argument("--frames", type=int, help="stop after so many")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--image-size", type=int, help="that the model sees, in pixels")
    parser.add_argument("--strip", type=Path, help="write a picture of frames to this file")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    truth = read_truth(options.masks)[: options.frames] if options.masks else None
    loaded = load_model(options.model, options.checkpoint, image_size=options.image_size)
    tracker = MosamTracker(loaded)
    answers = track(tracker, options.images, first_prompt(options, truth), options.frames)
    frames, results = zip(*tqdm(answers, desc=options.images.name), strict=True)
    report = figures(list(results), truth)
    print(json.dumps(report))
    if options.strip:
        cv2.imwrite(str(options.strip), draw(list(frames), list(results), truth))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
