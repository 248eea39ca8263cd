"""Put trained weights into the package, with what made them and how well they track.

    mosam train release runs/nano/stage11.pt runs/nano/stage12.pt --shares 1 2

Of several checkpoints of one run the mean of the weights is released, where the shares say so with
more of one than of another.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from mosam_ros.mosam.checkpoints import load_model, read_metadata, save_weights
from mosam_ros.training.validate import PROMPT_KINDS, REPEATED, validate

WEIGHTS = Path(__file__).parents[1] / "weights" / "nano.pt"


def mean_weights(checkpoints: Sequence[Path], shares: Sequence[float]) -> dict[str, Tensor]:
    """The mean of the weights of checkpoints of one network.

    Args:
        checkpoints: their files.
        shares: how much each counts; only their ratios matter.

    Raises:
        CheckpointError: one is damaged or does not fit `nano`.
        ValueError: there are not as many shares as checkpoints, or one is not positive.
    """
    if len(shares) != len(checkpoints) or min(shares) <= 0:
        raise ValueError(f"{len(checkpoints)} checkpoints need as many positive shares")
    states = [load_model("nano", path, "cpu").model.base.state_dict() for path in checkpoints]
    return {name: _mean([state[name] for state in states], shares) for name in states[0]}


def _mean(tensors: list[Tensor], shares: Sequence[float]) -> Tensor:
    if not tensors[0].is_floating_point():
        return tensors[-1]
    weights = torch.tensor(shares) / sum(shares)
    return torch.tensordot(weights, torch.stack(tensors), 1)


def release(
    checkpoints: Sequence[Path],
    target: Path,
    num_clips: int,
    seed: int,
    note: str = "",
    shares: Sequence[float] | None = None,
) -> dict:
    """Validate the mean of checkpoints and write it to `target`, its metadata beside it as JSON and
    as a model card.

    Args:
        checkpoints: as a training run exports them, the latest last: its metadata is kept.
        target: the file of the weights, in the package or elsewhere.
        num_clips: of the validation.
        seed: of its clips.
        note: what else is to be known of how the weights were made.
        shares: how much each checkpoint counts; all the same by default.

    Returns:
        The metadata: command, seed, stages, hours and validation figures.
    """
    shares = shares or [1] * len(checkpoints)
    metadata = read_metadata(checkpoints[-1])
    with TemporaryDirectory() as folder:
        rounded = Path(folder) / "mean.pt"
        save_weights(rounded, mean_weights(checkpoints, shares), metadata)
        loaded = load_model("nano", rounded)
    metadata["mean_of"] = [path.stem for path in checkpoints]
    metadata["shares"] = list(shares)
    metadata["note"] = note
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
    everything = {k: report[k]["iou_visible"] for k in PROMPT_KINDS}
    everything |= {REPEATED: report[PROMPT_KINDS[0]][REPEATED]}
    frames = {f"frames {name}": row for name, row in report["frames"].items()}
    rows = {"all": everything} | report["scenarios"] | frames
    ious = "\n".join(
        f"| {name} | " + " | ".join(_figure(row[key]) for key in (*PROMPT_KINDS, REPEATED)) + " |"
        for name, row in rows.items()
    )
    weakest = sorted(report["scenarios"].items(), key=lambda item: item[1]["mask"])[:3]
    weak = ", ".join(f"{name} ({row['mask']:.2f})" for name, row in weakest)
    note = f"\n{metadata['note']}\n" if metadata["note"] else ""
    shares = " ".join(f"{share:g}" for share in metadata["shares"])
    mean = " ".join(metadata["mean_of"]) + f" --shares {shares}"
    return f"""# Model card: nano

SAM 2.1 in miniature ({metadata["parameters"] / 1e6:.1f} million parameters, half precision on
disk), for demonstration and tests: it makes the package work on a machine without a GPU and without
a download. For work take SAM 2.1.

**Data.** Procedural video only (`mosam_ros/synthetic/`): textured shapes and solids that move,
bend, turn, hide each other, leave and come back, with look-alikes. It has never seen a real image.
Scenes with seeds from 1,000,000,000 on are never trained on.

**Made by** `{metadata["command"]}` and
`mosam train release {mean}`, {metadata["training_hours"]} hours of
steps, PyTorch {metadata["torch"]}:

| stage | pixels | frames | clips x targets | steps |
|---|---|---|---|---|
{stages}
{note}
**Measured** on {report["clips"]} held-out clips by the tracker as it comes
(`mosam train validate --clips {report["clips"]} --seed {report["seed"]}`), IoU on frames that show
the target:

| clips | {" | ".join(PROMPT_KINDS)} | first mask repeated |
|---|---|---|---|---|
{ious}

Whether the target is in sight is right on {report["presence_visible"]:.0%} of the visible and
{report["presence_hidden"] or 0:.0%} of the {report["hidden_frames"]} hidden frames. The predicted
IoU has a rank correlation (Spearman) of {report["iou_rank_correlation"]:.2f} with the true one.

**Limits.** It is weakest on {weak}. It loses targets that touch or pass behind look-alikes, and it
knows no real objects, textures or light.
"""


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--shares",
        type=float,
        nargs="+",
        help="how much each checkpoint counts in the mean, a number for each; by default equally",
    )
    parser.add_argument("--note", default="", help="for the model card: what else is to be known")
    options = parser.parse_args(arguments)
    try:
        metadata = release(
            options.checkpoints, WEIGHTS, options.clips, options.seed, options.note, options.shares
        )
    except ValueError as error:
        parser.error(str(error))
    print(model_card(metadata))


if __name__ == "__main__":
    main()
