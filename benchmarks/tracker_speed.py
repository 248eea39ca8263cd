"""Tracked frames per second of full MoSAM and of plain SAM 2, and what a further target costs.

    python benchmarks/tracker_speed.py --json tracker_speed.json

Both trackers take every frame in turn, so that their ratio holds on a busy machine too.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from mosam_ros.mosam.checkpoints import LoadedModel, load_model
from mosam_ros.mosam.prompts import Prompt
from mosam_ros.mosam.results import FrameResult
from mosam_ros.mosam.tracker import MosamTracker, TrackerConfig
from mosam_ros.synthetic import SceneConfig, SceneFrame, SyntheticScene

WARM_UP = 40
"""Frames until all memories are full."""

CLIP_FRAMES = 30
STAGES = ("encode", "decode", "memory", "motion")


def timed(tracker: MosamTracker, frame: SceneFrame) -> tuple[float, FrameResult]:
    """Seconds that a frame took, and its result."""
    started = time.perf_counter()
    result = tracker.track(frame.image)
    return time.perf_counter() - started, result


def measure(loaded: LoadedModel, num_targets: int, num_frames: int) -> dict:
    """Figures of both trackers on 640x480 camera frames; the clip is played forth and back."""
    config = SceneConfig(
        height=480, width=640, num_frames=CLIP_FRAMES, num_objects=max(num_targets, 2)
    )
    scene = SyntheticScene(0, config)
    frames = [scene.frame(t) for t in range(CLIP_FRAMES)]
    frames += frames[-2:0:-1]
    trackers = {
        "sam2": MosamTracker(loaded, TrackerConfig.sam2()),
        "mosam": MosamTracker(loaded),
    }
    for tracker in trackers.values():
        for mask in frames[0].masks[:num_targets]:
            tracker.add(Prompt.from_mask(mask))
    rows: dict[str, list[tuple[float, FrameResult]]] = {name: [] for name in trackers}
    for t in range(WARM_UP + num_frames):
        for name, tracker in trackers.items():
            rows[name].append(timed(tracker, frames[t % len(frames)]))
    report: dict = {name: figures(row[WARM_UP:]) for name, row in rows.items()}
    seconds = {name: np.array([s for s, _ in row[WARM_UP:]]) for name, row in rows.items()}
    report["mosam_over_sam2"] = round(float(np.median(seconds["mosam"] / seconds["sam2"])), 3)
    return report


def figures(rows: list[tuple[float, FrameResult]]) -> dict[str, float]:
    """Frames per second, milliseconds a frame, and the medians of its stages."""
    seconds = [s for s, _ in rows]
    report = {
        "frames_per_second": round(1.0 / float(np.mean(seconds)), 2),
        "ms_p50": round(1e3 * float(np.percentile(seconds, 50)), 2),
        "ms_p99": round(1e3 * float(np.percentile(seconds, 99)), 2),
    }
    for stage in STAGES:
        values = [getattr(result.seconds, stage) for _, result in rows]
        report[f"{stage}_ms"] = round(1e3 * float(np.median(values)), 2)
    prompted = [t.injected_prompt is not None for _, r in rows for t in r.targets]
    return report | {"frames_prompted_by_motion": round(float(np.mean(prompted)), 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--targets", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    loaded = load_model(options.model, options.checkpoint, options.device, options.precision)
    report: dict = {"model": options.model, "threads": torch.get_num_threads(), "targets": {}}
    for count in options.targets:
        row = measure(loaded, count, options.frames)
        report["targets"][str(count)] = row
        print(f"{count} target(s): MoSAM takes {row['mosam_over_sam2']} of the time of SAM 2")
        for name in ("sam2", "mosam"):
            print(f"  {name:6}" + ", ".join(f"{k} {v}" for k, v in row[name].items()))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
