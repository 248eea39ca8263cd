"""What the trained motion encoders are worth, on held-out synthetic clips with true flow and masks.

    python benchmarks/motion_encoders.py --clips 14 --json motion_encoders.json
    python benchmarks/motion_encoders.py --encoders runs/motion/nano_motion.pt

Flow: end-point error and time of `feature` beside `dis`, at the target's pixels that are seen in
both frames. Key points: how far those expected in the next frame are off, carried on linearly and
by the encoder.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mosam_ros.evaluation.flow_errors import flow_errors
from mosam_ros.evaluation.key_point_errors import key_point_errors
from mosam_ros.mosam.checkpoints import CheckpointError, load_model, load_motion_encoders
from mosam_ros.mosam.motion.flow import make_flow


def untrained(model: str) -> str:
    """What to do where no motion encoders come with a model."""
    return (
        f"no motion encoders come with the model {model}: train them with `mosam train motion "
        f"--data synthetic --model {model} --out FOLDER`, then pass --encoders "
        f"FOLDER/{model}_motion.pt"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=14)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--encoders", type=Path, help="weights; the model's own if not given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args(arguments)
    loaded = load_model(options.model, device=options.device)
    try:
        encoders = load_motion_encoders(loaded, options.encoders)
    except CheckpointError as error:
        parser.error(str(error) if options.encoders else untrained(options.model))
    methods = {name: make_flow(name, loaded.device, encoders.flow) for name in ("dis", "feature")}
    flow = flow_errors(loaded, methods, options.clips, options.seed)
    for name, row in flow.items():
        time = f"{row['ms']:6.2f} ms" if "ms" in row else ""
        print(f"flow, {name:10} error {row['epe']:.3f} px, median {row['median']:.3f} px {time}")
    points = key_point_errors(loaded, encoders.key_points, options.clips, options.seed)
    for name, row in points.items():
        print(f"key points, {name:10} error {row['error']:.3f} px, median {row['median']:.3f} px")
    print(f"over {flow['dis']['n']} and {points['linear']['n']} frames, on {loaded.device}")
    figures = {"flow": flow, "key_points": points}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
