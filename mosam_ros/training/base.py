"""Training of the small bundled model from scratch on synthetic video.

    python -m mosam_ros.training.base --out runs/nano --seed 0

The run is resumable: start the same command again and it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mosam_ros.mosam.checkpoints import build_model, load_config, save_weights
from mosam_ros.mosam.sam2_model import Sam2Model
from mosam_ros.training.data import HIDE_RATE, ClipStream
from mosam_ros.training.model_steps import clip_loss, image_loss, initialize

BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.05
GRADIENT_CLIP = 1.0
EMA_DECAY = 0.98
WARMUP_STEPS = 50


@dataclass(frozen=True)
class Stage:
    """One stage of the schedule.

    Attributes:
        name: for the log.
        size: S in pixels.
        clip_length: frames of a clip.
        num_clips, num_targets: per step.
        steps: optimizer steps.
        learning_rate: at the start; it falls to a tenth along a cosine.
        single_images: train on each frame by itself (prompts only, no memory).
        hide_rate: share of clips in which the target is hidden for some frames.
        long_memory: pretend, on half of the steps, that the prompt lies long back and all object
            pointers are there, as they are after the first frames of a stream.
        frozen_trunk: leave the image trunk as it is and spend the time on longer clips.
    """

    name: str
    size: int
    clip_length: int
    num_clips: int
    num_targets: int
    steps: int
    learning_rate: float
    single_images: bool = False
    hide_rate: float = HIDE_RATE
    long_memory: bool = False
    frozen_trunk: bool = False


SCHEDULE = (
    Stage("images", 128, 3, 8, 3, 700, 1e-3, single_images=True),
    Stage("short clips", 128, 3, 8, 3, 400, 1e-3),
    Stage("clips", 192, 4, 5, 3, 450, 6e-4),
    Stage("long clips", 192, 7, 3, 3, 200, 4e-4),
    Stage("full size", 256, 5, 3, 3, 750, 3e-4),
    Stage("hiding", 256, 8, 3, 2, 300, 2.5e-4, hide_rate=0.75, long_memory=True),
    Stage("memory", 192, 12, 2, 4, 700, 3e-4, hide_rate=0.6, long_memory=True, frozen_trunk=True),
    Stage("polish", 256, 8, 2, 4, 800, 2.5e-4, hide_rate=0.6, long_memory=True),
    Stage(
        "own prompts", 256, 9, 2, 4, 600, 2e-4, hide_rate=0.6, long_memory=True, frozen_trunk=True
    ),
    Stage("crowds", 256, 10, 2, 4, 600, 3e-4, hide_rate=0.6, long_memory=True, frozen_trunk=True),
)


def learning_rate(stage: Stage, step: int) -> float:
    """Warm-up, then a cosine from the stage's rate to a tenth of it."""
    progress = step / stage.steps
    cosine = 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * progress))
    return float(stage.learning_rate * cosine * min(1.0, (step + 1) / WARMUP_STEPS))


class Trainer:
    """The optimizer, the running average of the weights, and where the run stands."""

    def __init__(self, out: Path, seed: int, schedule: tuple[Stage, ...] = SCHEDULE) -> None:
        self.out = out
        self.seed = seed
        self.schedule = schedule
        self.stage_index = 0
        self.step = 0
        self.seconds = 0.0
        torch.manual_seed(seed)
        self.model = build_model("nano", image_size=schedule[0].size)
        initialize(self.model)
        self.average = {k: v.clone() for k, v in self.model.base.state_dict().items()}
        self.optimizer = self._make_optimizer(self.model)

    @staticmethod
    def _make_optimizer(model: Sam2Model) -> torch.optim.Optimizer:
        decayed = [p for p in model.base.parameters() if p.ndim >= 2]
        plain = [p for p in model.base.parameters() if p.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": WEIGHT_DECAY},
            {"params": plain, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=1e-3, betas=BETAS)

    @property
    def checkpoint(self) -> Path:
        return self.out / "last.pt"

    def save(self) -> None:
        """Write everything needed to go on exactly from here."""
        state = {
            "model": self.model.base.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "stage_index": self.stage_index,
            "step": self.step,
            "seconds": self.seconds,
            "seed": self.seed,
        }
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)

    def resume(self) -> None:
        """Go on from the last checkpoint of this run."""
        state = torch.load(self.checkpoint, weights_only=True)
        self._enter_stage(state["stage_index"])
        self.model.base.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average = state["average"]
        self.step, self.seconds = state["step"], state["seconds"]

    def _enter_stage(self, index: int) -> None:
        """Rebuild the model at the stage's image size with the same weights and optimizer state."""
        self.stage_index = index
        size = self.schedule[index].size
        if size == self.model.image_size:
            return
        model = build_model("nano", image_size=size)
        model.base.load_state_dict(self.model.base.state_dict())
        optimizer = self._make_optimizer(model)
        optimizer.load_state_dict(self.optimizer.state_dict())
        self.model, self.optimizer = model, optimizer

    def run(self, num_workers: int, save_every: int) -> None:
        """Train to the end of the schedule."""
        for index in range(self.stage_index, len(self.schedule)):
            self._enter_stage(index)
            self._run_stage(self.schedule[index], num_workers, save_every)
            self.step = 0
            self.stage_index = index + 1
            if self.stage_index < len(self.schedule):
                self.save()
            self.export(self.out / f"stage{index}.pt")

    def _run_stage(self, stage: Stage, num_workers: int, save_every: int) -> None:
        stream = ClipStream(
            self.seed,
            stage.size,
            stage.clip_length,
            stage.num_clips,
            stage.num_targets,
            self.step,
            stage.hide_rate,
        )
        batches = iter(stream.loader(num_workers))
        recent: deque[dict] = deque(maxlen=50)
        bar = tqdm(range(self.step, stage.steps), desc=stage.name, mininterval=5)
        for step in bar:
            started = time.monotonic()
            row = self.train_step(stage, next(batches))
            self.seconds += time.monotonic() - started
            self.step = step + 1
            recent.append(row)
            bar.set_postfix({k: f"{np.mean([r[k] for r in recent]):.3f}" for k in row})
            self._log(stage, row)
            if self.step % save_every == 0:
                self.save()

    def train_step(self, stage: Stage, clip) -> dict[str, float]:
        """One optimizer step; returns its losses."""
        generator = np.random.default_rng([self.seed, self.stage_index, self.step])
        rate = learning_rate(stage, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.base.train()
        self.model.base.image_encoder.trunk.train(not stage.frozen_trunk)
        self.model.base.image_encoder.trunk.requires_grad_(not stage.frozen_trunk)
        if stage.single_images:
            loss = image_loss(self.model, clip, generator)
        else:
            loss = clip_loss(self.model, clip, generator, stage.long_memory)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.base.parameters(), GRADIENT_CLIP)
        self.optimizer.step()
        self._update_average()
        return {
            "loss": float(loss.total.detach()),
            "mask": loss.mask,
            "iou": loss.iou,
            "presence": loss.presence,
            "mean_iou": loss.mean_iou,
        }

    @torch.no_grad()
    def _update_average(self) -> None:
        for name, value in self.model.base.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1 - EMA_DECAY)
            else:
                self.average[name].copy_(value)

    def _log(self, stage: Stage, row: dict[str, float]) -> None:
        with (self.out / "log.jsonl").open("a") as log:
            entry = {"stage": stage.name, "step": self.step, "seconds": round(self.seconds, 1)}
            log.write(json.dumps(entry | {k: round(v, 4) for k, v in row.items()}) + "\n")

    def export(self, path: Path) -> None:
        """Write the averaged weights in half precision with how they were made."""
        history = [asdict(s) for s in self.schedule[: self.stage_index]]
        if self.step:
            stage = asdict(self.schedule[self.stage_index])
            history.append(stage | {"steps": self.step})
        metadata = {
            "command": f"python -m mosam_ros.training.base --out FOLDER --seed {self.seed}",
            "seed": self.seed,
            "stages": history,
            "training_hours": round(self.seconds / 3600, 2),
        }
        save_weights(path, self.average, metadata)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes that make clips")
    parser.add_argument("--save-every", type=int, default=50, help="steps between checkpoints")
    options = parser.parse_args(arguments)
    load_config("nano")
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(options.out, options.seed)
    if trainer.checkpoint.exists():
        trainer.resume()
    trainer.run(options.workers, options.save_every)


if __name__ == "__main__":
    main()
