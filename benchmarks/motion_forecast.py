"""How well the next frame's box is forecast from past masks, beside simple rules.

python benchmarks/motion_forecast.py --masks FOLDER --synthetic --json motion_forecast.json
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from tqdm import tqdm

from mosam_ros.evaluation.forecasts import (
    METHODS,
    BoxForecaster,
    ForecastScore,
    MosamForecast,
    measure,
    score_forecasts,
    summarize,
)
from mosam_ros.evaluation.motion_clips import (
    CLEAN_MOTIONS,
    MotionClip,
    camera_clip,
    clean_clip,
    object_clips,
    read_images,
    read_label_images,
)
from mosam_ros.mosam.motion.flow import DisFlow

Methods = Mapping[str, Callable[[], BoxForecaster]]
Scores = dict[str, list[ForecastScore]]
Report = dict[str, dict[str, float]]

CLIPS_PER_KIND = 30

WITH_FLOW: Methods = {**METHODS, "mosam_flow": lambda: MosamForecast(DisFlow())}


def score_clips(clips: Iterable[MotionClip], methods: Methods) -> Scores:
    """All methods' forecasts on all clips."""
    scores: Scores = {name: [] for name in methods}
    for clip in clips:
        seen = measure(clip.masks)
        for name, make in methods.items():
            scores[name] += score_forecasts(make(), seen, clip.images)
    return scores


def mask_sequences(folder: Path) -> dict:
    """Figures of all sequences FOLDER/SEQ/NNNNN.png, alone and together."""
    sequences = sorted(path for path in folder.iterdir() if path.is_dir())
    together: dict[str, list[ForecastScore]] = defaultdict(list)
    reports: dict[str, Report] = {}
    for path in tqdm(sequences, desc="mask sequences"):
        scores = score_clips(object_clips(read_label_images(path)), METHODS)
        reports[path.name] = summarize(scores)
        for name, method_scores in scores.items():
            together[name] += method_scores
    return {"all": summarize(together), "sequences": reports}


def synthetic_motion() -> dict[str, Report]:
    """Figures on clean motion of each kind, and of a swinging camera with flow."""
    seeds = range(CLIPS_PER_KIND)
    reports = {}
    for kind in CLEAN_MOTIONS:
        clips = (clean_clip(kind, seed) for seed in tqdm(seeds, desc=kind))
        reports[kind] = summarize(score_clips(clips, METHODS))
    clips = (camera_clip(seed) for seed in tqdm(seeds, desc="camera_motion"))
    reports["camera_motion"] = summarize(score_clips(clips, WITH_FLOW))
    return reports


def video(images: Path, masks: Path) -> Report:
    """Figures on a video of which both images and masks are there, with flow."""
    clips = list(object_clips(read_label_images(masks), read_images(images)))
    return summarize(score_clips(tqdm(clips, desc="video"), WITH_FLOW))


def print_table(title: str, report: Report) -> None:
    """One line per method."""
    print(f"\n{title:28} {'mean':>7} {'median':>7} {'p10':>7} {'points, px':>10} {'n':>6}")
    for name, row in report.items():
        print(
            f"{name:28} {row['mean']:7.3f} {row['median']:7.3f} {row['p10']:7.3f} "
            f"{row['key_point_error']:10.2f} {row['n']:6d}"
        )


def print_report(report: dict) -> None:
    """All tables; of single sequences the mean IoU only."""
    if "all" in report:
        print_table("all sequences, box IoU", report["all"])
        print(f"\n{'mean box IoU':28} " + " ".join(f"{name:>13}" for name in METHODS))
        for sequence, rows in report["sequences"].items():
            print(f"{sequence:28} " + " ".join(f"{r['mean']:13.3f}" for r in rows.values()))
    for kind, rows in report.get("synthetic", {}).items():
        print_table(f"synthetic, {kind}", rows)
    if "video" in report:
        print_table("video", report["video"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--masks", type=Path, metavar="FOLDER", help="with SEQ/NNNNN.png, palette ids"
    )
    parser.add_argument("--synthetic", action="store_true", help="also on made motion")
    parser.add_argument(
        "--video", type=Path, nargs=2, metavar=("IMAGES", "MASKS"), help="also on this video"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    if not (options.masks or options.synthetic or options.video):
        parser.error("nothing to measure: give --masks, --synthetic or --video")
    report: dict = {}
    if options.masks:
        report |= mask_sequences(options.masks)
    if options.synthetic:
        report["synthetic"] = synthetic_motion()
    if options.video:
        report["video"] = video(*options.video)
    print_report(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
