"""Put trained weights into the package, with what made them and how well they track.

mosam train release runs/nano/stage10.pt --clips 100 --seed 0
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from mosam_ros.mosam.checkpoints import load_model, read_metadata, save_weights
from mosam_ros.training.validate import PROMPT_KINDS, validate

WEIGHTS = Path(__file__).parents[1] / "weights" / "nano.pt"


def release(checkpoint: Path, target: Path, num_clips: int, seed: int) -> dict:
    """Validate a checkpoint and write it to `target`, its metadata beside it as JSON and as a model
    card.

    Returns:
        The metadata: command, seed, stages, hours and validation figures.
    """
    loaded = load_model("nano", checkpoint)
    metadata = read_metadata(checkpoint)
    metadata["validation"] = validate(loaded, num_clips, seed)
    metadata["torch"] = torch.__version__
    metadata["parameters"] = sum(p.numel() for p in loaded.model.base.parameters())
    save_weights(target, loaded.model.base.state_dict(), metadata)
    target.with_suffix(".json").write_text(json.dumps(metadata, indent=2) + "\n")
    target.with_suffix(".md").write_text(model_card(metadata))
    return metadata


def model_card(metadata: dict) -> str:
    """A page in Markdown: what the weights are, how they were made and what they can do."""
    report = metadata["validation"]
    stages = "\n".join(
        f"| {s['name']} | {s['size']} | {s['clip_length']} | {s['num_clips']} x {s['num_targets']} "
        f"| {s['steps']} |"
        for s in metadata["stages"]
    )
    prompts = "\n".join(
        f"| {kind} | {report[kind]['iou_visible']:.2f} | {report[kind]['first_mask_repeated']:.2f} "
        f"| {report[kind]['iou_first_frames']:.2f} | {report[kind]['iou_last_frames']:.2f} |"
        for kind in PROMPT_KINDS
    )
    scenarios = "\n".join(
        f"| {name} | " + " | ".join(f"{row[kind]:.2f}" for kind in PROMPT_KINDS) + " |"
        for name, row in report["scenarios"].items()
    )
    return f"""# Model card: nano

SAM 2.1 in miniature ({metadata["parameters"] / 1e6:.1f} million parameters, half precision on
disk), for demonstration and tests: it makes the package work on a machine without a GPU and without
a download. For work take SAM 2.1.

**Data.** Procedural video only (`mosam_ros/synthetic/`): textured shapes that move, bend, hide each
other, leave and come back, with look-alikes. It has never seen a real image. Scenes with seeds from
1,000,000,000 on are never trained on.

**Made by** `{metadata["command"]}` and `mosam train release`, {metadata["training_hours"]} hours of
steps on two CPU cores, PyTorch {metadata["torch"]}:

| stage | pixels | frames | clips x targets | steps |
|---|---|---|---|---|
{stages}

The run was stopped and resumed while later stages, and in part the length and the data of running
ones, were still being set, so that the command gives weights of this kind, not these very numbers.

**Measured** on {report["clips"]} held-out clips by the tracker as it comes
(`mosam train validate --clips {report["clips"]} --seed {report["seed"]}`), IoU on frames that show
the target:

| prompt | IoU | first mask repeated | first 10 frames | last 10 frames |
|---|---|---|---|---|
{prompts}

| scenario | {" | ".join(PROMPT_KINDS)} |
|---|---|---|---|
{scenarios}

The object score is right on {report["presence_visible"]:.0%} of the visible and
{report["presence_hidden"] or 0:.0%} of the {report["hidden_frames"]} hidden frames. The predicted
IoU has a rank correlation (Spearman) of {report["iou_rank_correlation"]:.2f} with the true one.

**Limits.** It loses targets that touch or pass behind look-alikes, and it knows no real objects,
textures or light.
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    metadata = release(options.checkpoint, WEIGHTS, options.clips, options.seed)
    print(model_card(metadata))


if __name__ == "__main__":
    main()
