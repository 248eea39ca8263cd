"""Tracked frames per second, and what a further target costs.

python benchmarks/tracker_speed.py --json tracker_speed.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from mosam_ros.mosam.checkpoints import load_model
from mosam_ros.mosam.prompts import Prompt
from mosam_ros.mosam.tracker import MosamTracker
from mosam_ros.synthetic import SceneConfig, SyntheticScene

WARM_UP = 20


def measure(num_targets: int, num_frames: int, options: argparse.Namespace) -> dict[str, float]:
    """Seconds per frame of 640x480 camera frames, with full memory banks."""
    config = SceneConfig(
        height=480, width=640, num_frames=num_frames, num_objects=max(num_targets, 2)
    )
    scene = SyntheticScene(0, config)
    frames = [scene.frame(t) for t in range(min(num_frames, 30))]
    loaded = load_model(options.model, options.checkpoint, options.device, options.precision)
    tracker = MosamTracker(loaded)
    for mask in frames[0].masks[:num_targets]:
        tracker.add(Prompt.from_mask(mask))
    seconds, stages = [], []
    for t in range(WARM_UP + num_frames):
        started = time.perf_counter()
        result = tracker.track(frames[t % len(frames)].image)
        seconds.append(time.perf_counter() - started)
        stages.append(result.seconds)
    seconds, stages = seconds[WARM_UP:], stages[WARM_UP:]
    return {
        "frames_per_second": round(1.0 / float(np.mean(seconds)), 2),
        "ms_p50": round(1e3 * float(np.percentile(seconds, 50)), 2),
        "ms_p99": round(1e3 * float(np.percentile(seconds, 99)), 2),
        "encode_ms": round(1e3 * float(np.median([s.encode for s in stages])), 2),
        "decode_ms": round(1e3 * float(np.median([s.decode for s in stages])), 2),
        "memory_ms": round(1e3 * float(np.median([s.memory for s in stages])), 2),
    }


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
    report = {"model": options.model, "threads": torch.get_num_threads(), "targets": {}}
    for count in options.targets:
        row = measure(count, options.frames, options)
        report["targets"][str(count)] = row
        print(f"{count} target(s): " + ", ".join(f"{k} {v}" for k, v in row.items()))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
