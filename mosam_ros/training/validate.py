"""How well a model tracks, on synthetic clips that were never trained on.

python -m mosam_ros.training.validate --clips 24 --seed 0 --json validation.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mosam_ros.evaluation.metrics import mask_iou
from mosam_ros.mosam.checkpoints import LoadedModel, load_model
from mosam_ros.mosam.tracker import MosamTracker
from mosam_ros.synthetic import (
    FIRST_HELD_OUT_SEED,
    SCENARIOS,
    SUITE,
    TARGET,
    VISIBLE_PIXELS,
    SceneFrame,
    SyntheticScene,
)
from mosam_ros.training.prompting import prompt_for

PROMPT_KINDS = ("mask", "box", "point")


FRAME_GROUP = 10
"""Frames in a row that share a figure in the report by frame number."""

REPEATED = "first_mask_repeated"
"""What stands beside every IoU: that of the first mask, had it been repeated."""


@dataclass(frozen=True)
class ClipScore:
    """One clip tracked from one prompt; every array has one entry per frame after the prompted one.

    Attributes:
        scenario: its name.
        iou: with the true mask; NaN where the target is not visible.
        repeated: the same for repeating the first mask.
        predicted_iou: what the model says of its mask.
        seen: whether the tracker gave a mask: the object score says that the target is there, and
            it is not in doubt.
        hidden: whether no pixel of it is visible.
    """

    scenario: str
    iou: NDArray[np.float64]
    repeated: NDArray[np.float64]
    predicted_iou: NDArray[np.float64]
    seen: NDArray[np.bool_]
    hidden: NDArray[np.bool_]

    @property
    def visible(self) -> NDArray[np.bool_]:
        """Frames that count as showing the target."""
        return ~np.isnan(self.iou)


def held_out_clips(count: int, seed: int, size: int) -> Iterator[tuple[str, list[SceneFrame]]]:
    """`count` clips, those of the suite in turn; in each the target is whole in the first frame."""
    candidate = FIRST_HELD_OUT_SEED + seed * 10_000
    for index in range(count):
        name = SUITE[index % len(SUITE)]
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
    tracker.track(clip[0].image)
    rows = []
    for frame in clip[1:]:
        result = tracker.track(frame.image).targets[0]
        truth = frame.masks[TARGET]
        visible = np.count_nonzero(truth) >= VISIBLE_PIXELS
        iou = mask_iou(result.mask, truth) if visible else np.nan
        repeated = mask_iou(first, truth) if visible else np.nan
        rows.append((iou, repeated, result.predicted_iou, result.area > 0, not truth.any()))
    iou, repeated, predicted, seen, hidden = map(np.array, zip(*rows, strict=True))
    return ClipScore(name, iou, repeated, predicted, seen, hidden)


def prompt_moves_mask(loaded: LoadedModel, frame: SceneFrame, kind: str) -> bool | None:
    """Whether a prompt on the largest other object of a frame gives that object's mask rather than
    the target's; None where no other object is large enough to be prompted.
    """
    areas = frame.masks.sum((1, 2))
    areas[TARGET] = 0
    other = int(areas.argmax())
    if areas[other] < 10 * VISIBLE_PIXELS:
        return None
    tracker = MosamTracker(loaded)
    tracker.add(prompt_for(kind, frame.masks[other]))
    mask = tracker.track(frame.image).targets[0].mask
    return mask_iou(mask, frame.masks[other]) > mask_iou(mask, frame.masks[TARGET])


def rank_correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Spearman's correlation; equal values share their mean rank."""

    def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
        _, index, count = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(count) - (count - 1) / 2)[index]

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def summarize(scores: dict[str, list[ClipScore]], moves: dict[str, list[bool]]) -> dict:
    """Means over clips by kind of prompt and by scenario, and what the scores are worth.

    Args:
        scores: by kind of prompt, in the order of the clips.
        moves: by kind of prompt, the answers of `prompt_moves_mask`.
    """
    everything = [s for by_clip in scores.values() for s in by_clip]
    num_frames = max(len(s.iou) for s in everything)
    visible = [s.visible for s in everything]
    iou = np.concatenate([s.iou[v] for s, v in zip(everything, visible, strict=True)])
    predicted = np.concatenate(
        [s.predicted_iou[v] for s, v in zip(everything, visible, strict=True)]
    )
    report: dict = {
        kind: {
            "iou_visible": _mean([np.nanmean(s.iou) for s in by_clip]),
            REPEATED: _mean([np.nanmean(s.repeated) for s in by_clip]),
        }
        for kind, by_clip in scores.items()
    }
    for kind, answers in moves.items():
        report[kind]["prompt_moves_mask"] = _mean(answers)
    return report | {
        "presence_visible": _mean(np.concatenate([s.seen[s.visible] for s in everything])),
        "presence_hidden": _mean(np.concatenate([~s.seen[s.hidden] for s in everything])),
        "hidden_frames": int(sum(s.hidden.sum() for s in next(iter(scores.values())))),
        "iou_rank_correlation": round(rank_correlation(predicted, iou), 4),
        "iou_calibration_error": _mean(np.abs(predicted - iou)),
        "scenarios": {
            name: _by_kind(scores, scenario=name)
            for name in dict.fromkeys(s.scenario for s in everything)
        },
        "frames": {
            f"{first + 1}-{min(first + FRAME_GROUP, num_frames)}": _by_kind(
                scores, frames=slice(first, first + FRAME_GROUP)
            )
            for first in range(0, num_frames, FRAME_GROUP)
        },
    }


def _by_kind(
    scores: dict[str, list[ClipScore]], scenario: str | None = None, frames: slice = slice(None)
) -> dict[str, float | None]:
    """Mean IoU over some frames of the clips of a scenario, for every kind of prompt and for the
    first mask repeated; clips that show nothing there are left out.
    """
    chosen = {
        kind: [s for s in by_clip if scenario in (None, s.scenario) and s.visible[frames].any()]
        for kind, by_clip in scores.items()
    }
    ious = {k: _mean([np.nanmean(s.iou[frames]) for s in some]) for k, some in chosen.items()}
    any_kind = next(iter(chosen.values()))
    return ious | {REPEATED: _mean([np.nanmean(s.repeated[frames]) for s in any_kind])}


def _mean(values: Sequence | NDArray) -> float | None:
    return round(float(np.mean(values)), 4) if len(values) else None


def validate(loaded: LoadedModel, num_clips: int, seed: int) -> dict:
    """Scores of a model, as from `summarize`."""
    scores: dict[str, list[ClipScore]] = {kind: [] for kind in PROMPT_KINDS}
    moves: dict[str, list[bool]] = {kind: [] for kind in PROMPT_KINDS}
    clips = held_out_clips(num_clips, seed, loaded.model.image_size)
    for name, clip in tqdm(clips, total=num_clips, desc="validation"):
        for kind in PROMPT_KINDS:
            scores[kind].append(score_clip(loaded, name, clip, kind))
            moved = prompt_moves_mask(loaded, clip[0], kind)
            moves[kind] += [] if moved is None else [moved]
    return {"clips": num_clips, "seed": seed} | summarize(scores, moves)


def format_report(report: dict) -> str:
    """The figures as a table."""
    lines = []
    for kind in PROMPT_KINDS:
        row = report[kind]
        lines.append(
            f"{kind:6} IoU on visible frames {row['iou_visible']:.3f} (first mask repeated "
            f"{row[REPEATED]:.3f}); a prompt on another object moves the mask in "
            f"{row['prompt_moves_mask'] or 0:.0%}"
        )
    parts = {f"frames {name}": row for name, row in report["frames"].items()}
    for name, row in (report["scenarios"] | parts).items():
        cells = "  ".join(f"{kind} {row[kind]:.2f}" for kind in PROMPT_KINDS)
        lines.append(f"  {name:18} {cells}  (first mask repeated {row[REPEATED]:.2f})")
    lines.append(
        f"presence right on {report['presence_visible']:.1%} of visible and "
        f"{report['presence_hidden'] or 0:.1%} of hidden frames ({report['hidden_frames']} a "
        f"prompt); rank correlation of predicted and true IoU {report['iou_rank_correlation']:.2f}"
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", type=Path, help="weights; the bundled ones if not given")
    parser.add_argument("--clips", type=int, default=21)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    report = validate(load_model(options.model, options.checkpoint), options.clips, options.seed)
    print(format_report(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
