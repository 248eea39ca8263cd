"""How well a model tracks, on synthetic clips that were never trained on.

python -m mosam_ros.training.validate --clips 21 --seed 0 --json validation.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mosam_ros.evaluation.metrics import mask_iou
from mosam_ros.mosam.checkpoints import LoadedModel, load_model
from mosam_ros.mosam.tracker import MosamTracker
from mosam_ros.synthetic import (
    FIRST_HELD_OUT_SEED,
    SCENARIOS,
    TARGET,
    VISIBLE_PIXELS,
    SceneFrame,
    SyntheticScene,
)
from mosam_ros.training.prompting import prompt_for

PROMPT_KINDS = ("mask", "box", "point")


@dataclass(frozen=True)
class ClipScore:
    """One clip tracked from one prompt.

    Attributes:
        scenario: its name.
        iou_visible: mean IoU over frames in which the target is visible, the prompted one excluded.
        first_mask_repeated: the same for repeating the first mask.
        presence_visible, presence_hidden: share of those frames with the right sign of the object
            score; None where there are none.
    """

    scenario: str
    iou_visible: float
    first_mask_repeated: float
    presence_visible: float | None
    presence_hidden: float | None


def held_out_clips(count: int, seed: int, size: int) -> Iterator[tuple[str, list[SceneFrame]]]:
    """`count` clips, the scenarios in turn; in each the target is whole in the first frame."""
    names = list(SCENARIOS)
    candidate = FIRST_HELD_OUT_SEED + seed * 10_000
    for index in range(count):
        name = names[index % len(names)]
        config = replace(SCENARIOS[name], height=size, width=size)
        while True:
            scene = SyntheticScene(candidate, config)
            candidate += 1
            first = scene.frame(0)
            if first.visibility[TARGET] > 0.8 and first.masks[TARGET].mean() > 0.004:
                break
        yield name, [scene.frame(t) for t in range(len(scene))]


def score_clip(loaded: LoadedModel, name: str, clip: list[SceneFrame], kind: str) -> ClipScore:
    """Track the target of a clip from one prompt on its first frame."""
    tracker = MosamTracker(loaded)
    first = clip[0].masks[TARGET]
    tracker.add(prompt_for(kind, first))
    ious, repeated, visible, hidden = [], [], [], []
    for index, frame in enumerate(clip):
        result = tracker.track(frame.image).targets[0]
        if index == 0:
            continue
        truth = frame.masks[TARGET]
        if np.count_nonzero(truth) >= VISIBLE_PIXELS:
            ious.append(mask_iou(result.mask, truth))
            repeated.append(mask_iou(first, truth))
            visible.append(result.object_score > 0)
        elif not truth.any():
            hidden.append(result.object_score < 0)
    return ClipScore(
        name,
        float(np.mean(ious)),
        float(np.mean(repeated)),
        float(np.mean(visible)) if visible else None,
        float(np.mean(hidden)) if hidden else None,
    )


def summarize(scores: list[ClipScore]) -> dict:
    """Means over clips, all together and by scenario."""

    def mean(values: list[float | None]) -> float | None:
        known = [v for v in values if v is not None]
        return round(float(np.mean(known)), 4) if known else None

    by_scenario = {
        name: mean([s.iou_visible for s in scores if s.scenario == name])
        for name in dict.fromkeys(s.scenario for s in scores)
    }
    return {
        "iou_visible": mean([s.iou_visible for s in scores]),
        "first_mask_repeated": mean([s.first_mask_repeated for s in scores]),
        "presence_visible": mean([s.presence_visible for s in scores]),
        "presence_hidden": mean([s.presence_hidden for s in scores]),
        "scenarios": by_scenario,
    }


def validate(loaded: LoadedModel, num_clips: int, seed: int) -> dict:
    """Scores of a model by kind of prompt, each as from `summarize`."""
    scores: dict[str, list[ClipScore]] = {kind: [] for kind in PROMPT_KINDS}
    clips = held_out_clips(num_clips, seed, loaded.model.image_size)
    for name, clip in tqdm(clips, total=num_clips, desc="validation"):
        for kind in PROMPT_KINDS:
            scores[kind].append(score_clip(loaded, name, clip, kind))
    return {"clips": num_clips, "seed": seed} | {k: summarize(s) for k, s in scores.items()}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", type=Path, help="weights; the bundled ones if not given")
    parser.add_argument("--clips", type=int, default=21)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    report = validate(load_model(options.model, options.checkpoint), options.clips, options.seed)
    for kind in PROMPT_KINDS:
        row = report[kind]
        print(
            f"{kind:6} IoU on visible frames {row['iou_visible']:.3f} "
            f"(first mask repeated {row['first_mask_repeated']:.3f}), presence right on "
            f"{row['presence_visible']:.0%} of visible, {row['presence_hidden'] or 0:.0%} of hidden"
        )
        print("       " + "  ".join(f"{k} {v:.2f}" for k, v in row["scenarios"].items()))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
