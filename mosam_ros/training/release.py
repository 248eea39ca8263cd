"""Put trained weights into the package, with what made them and how well they track.

python -m mosam_ros.training.release runs/nano/stage5.pt --clips 35 --seed 0
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from mosam_ros.mosam.checkpoints import load_model, read_metadata, save_weights
from mosam_ros.training.validate import validate

WEIGHTS = Path(__file__).parents[1] / "weights" / "nano.pt"


def release(checkpoint: Path, target: Path, num_clips: int, seed: int) -> dict:
    """Validate a checkpoint and write it to `target`, its metadata beside it as JSON.

    Returns:
        The metadata: command, seed, stages, hours and validation figures.
    """
    loaded = load_model("nano", checkpoint)
    metadata = read_metadata(checkpoint)
    metadata["validation"] = validate(loaded, num_clips, seed)
    metadata["torch"] = torch.__version__
    save_weights(target, loaded.model.base.state_dict(), metadata)
    target.with_suffix(".json").write_text(json.dumps(metadata, indent=2) + "\n")
    return metadata


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--clips", type=int, default=35)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    metadata = release(options.checkpoint, WEIGHTS, options.clips, options.seed)
    print(json.dumps(metadata["validation"], indent=2))


if __name__ == "__main__":
    main()
