"""Training of the small bundled model from scratch on synthetic video.

    mosam train base --out runs/nano --seed 0
    mosam train base --out runs/first --stages 1
    torchrun --nproc-per-node 2 -m mosam_ros.training.base --out runs/nano

The run is resumable: start the same command again and it goes on from the last checkpoint. With
torchrun every process takes clips of its own, so that a step sees so many times more.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mosam_ros.mosam.checkpoints import build_model, save_weights
from mosam_ros.mosam.sam2_model import Sam2Model
from mosam_ros.synthetic import ObjectKinds
from mosam_ros.training.curves import plot_curves
from mosam_ros.training.data import (
    EXIT_SHARE,
    HIDE_RATE,
    PART_RATE,
    VIEW_PATIENCE,
    Clip,
    ClipConfig,
    ClipStream,
)
from mosam_ros.training.model_steps import MOSAM_RATE, StepLoss, clip_loss, image_loss, initialize
from mosam_ros.training.ranks import Ranks

BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.05
GRADIENT_CLIP = 1.0
EMA_DECAY = 0.99
WARMUP_STEPS = 50

LOGGED = ("loss", "mask", "iou", "presence", "mean_iou")
"""What is logged of every step."""


@dataclass(frozen=True)
class Stage:
    """One stage of the schedule.

    Attributes:
        name: for the log.
        size: S in pixels.
        clip_length: frames of a clip.
        num_clips, num_targets: per step and process.
        steps: optimizer steps.
        learning_rate: at the start; it falls to a tenth along a cosine.
        single_images: train on each frame by itself (prompts only, no memory).
        hide_rate: share of clips in which the target is hidden for some frames.
        part_rate: share of clips in which half of the target is hidden for some frames.
        long_memory: pretend, on half of the steps, that the prompt lies long back and all object
            pointers are there, as they are after the first frames of a stream.
        frozen_trunk: leave the image trunk as it is and spend the time on longer clips.
        burn_in: the most frames at a clip's start that are only tracked, so that what follows is
            learned from memories that have drifted as they do in long streams.
        even_speed: objects are no faster where frames of the scene are skipped.
        kinds: what share of the objects is hard to make out.
        piece_rate: share of clips whose targets are, in the main, pieces of a cluttered background.
        mosam_rate: share of steps in which forecasts prompt most frames, and of those in which
            memories are selected.
        exit_share: of the clips in which the target is hidden, the share in which it leaves.
        zoom_rate: share of clips that are seen through views around their targets.
        view_patience: hidden frames after which a view is given up, at the most.
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
    part_rate: float = PART_RATE
    long_memory: bool = False
    frozen_trunk: bool = False
    burn_in: int = 0
    even_speed: bool = False
    kinds: ObjectKinds = ObjectKinds()
    piece_rate: float = 0.0
    mosam_rate: float = MOSAM_RATE
    exit_share: float = EXIT_SHARE
    zoom_rate: float = 0.0
    view_patience: int = VIEW_PATIENCE

    @property
    def clips(self) -> ClipConfig:
        """What its clips are like."""
        return ClipConfig(
            self.size,
            self.clip_length,
            self.num_targets,
            self.hide_rate,
            self.part_rate,
            self.even_speed,
            self.kinds,
            self.piece_rate,
            self.exit_share,
            self.zoom_rate,
            self.view_patience,
        )


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
    Stage(
        "drift",
        size=256,
        clip_length=20,
        num_clips=2,
        num_targets=3,
        steps=800,
        learning_rate=3e-4,
        hide_rate=0.6,
        long_memory=True,
        frozen_trunk=True,
        burn_in=12,
        even_speed=True,
    ),
    Stage(
        "parts",
        size=256,
        clip_length=12,
        num_clips=2,
        num_targets=3,
        steps=500,
        learning_rate=2e-4,
        hide_rate=0.5,
        part_rate=0.45,
        long_memory=True,
        burn_in=4,
        even_speed=True,
    ),
    Stage(
        "together",
        size=256,
        clip_length=13,
        num_clips=2,
        num_targets=3,
        steps=460,
        learning_rate=1e-4,
        hide_rate=0.5,
        part_rate=0.35,
        long_memory=True,
        burn_in=6,
        even_speed=True,
        kinds=ObjectKinds(compound=0.3),
    ),
    Stage(
        "reflections",
        size=256,
        clip_length=12,
        num_clips=2,
        num_targets=3,
        steps=1000,
        learning_rate=2e-4,
        hide_rate=0.55,
        part_rate=0.35,
        long_memory=True,
        burn_in=5,
        even_speed=True,
        kinds=ObjectKinds(compound=0.1, wiry=0.25, translucent=0.25),
    ),
    Stage(
        "pieces",
        size=256,
        clip_length=10,
        num_clips=2,
        num_targets=3,
        steps=800,
        learning_rate=2e-4,
        hide_rate=0.55,
        part_rate=0.35,
        long_memory=True,
        burn_in=3,
        even_speed=True,
        kinds=ObjectKinds(compound=0.1, wiry=0.2, camouflaged=0.2, translucent=0.15),
        piece_rate=0.5,
    ),
    Stage(
        "turning",
        size=256,
        clip_length=10,
        num_clips=2,
        num_targets=3,
        steps=600,
        learning_rate=2e-4,
        hide_rate=0.6,
        part_rate=0.3,
        long_memory=True,
        burn_in=3,
        even_speed=True,
        kinds=ObjectKinds(
            compound=0.35, wiry=0.15, camouflaged=0.15, translucent=0.15, turning=0.4
        ),
        piece_rate=0.35,
    ),
    Stage(
        "solids",
        size=256,
        clip_length=12,
        num_clips=2,
        num_targets=3,
        steps=1100,
        learning_rate=2e-4,
        hide_rate=0.65,
        part_rate=0.25,
        long_memory=True,
        burn_in=4,
        even_speed=True,
        kinds=ObjectKinds(
            solid=0.55, compound=0.3, wiry=0.15, camouflaged=0.15, translucent=0.12, turning=0.25
        ),
        piece_rate=0.12,
    ),
    Stage(
        "large",
        size=320,
        clip_length=11,
        num_clips=2,
        num_targets=3,
        steps=800,
        learning_rate=2e-4,
        hide_rate=0.65,
        part_rate=0.3,
        long_memory=True,
        burn_in=4,
        even_speed=True,
        kinds=ObjectKinds(
            solid=0.5, compound=0.3, wiry=0.15, camouflaged=0.15, translucent=0.12, turning=0.25
        ),
        piece_rate=0.15,
        mosam_rate=0.75,
    ),
    Stage(
        "large hiding",
        size=320,
        clip_length=14,
        num_clips=2,
        num_targets=3,
        steps=560,
        learning_rate=2e-4,
        hide_rate=0.8,
        part_rate=0.15,
        long_memory=True,
        burn_in=7,
        even_speed=True,
        kinds=ObjectKinds(
            solid=0.5, compound=0.3, wiry=0.15, camouflaged=0.15, translucent=0.12, turning=0.25
        ),
        piece_rate=0.12,
        mosam_rate=0.75,
    ),
    Stage(
        "exits",
        size=256,
        clip_length=14,
        num_clips=2,
        num_targets=3,
        steps=640,
        learning_rate=2e-4,
        hide_rate=0.75,
        part_rate=0.2,
        long_memory=True,
        burn_in=7,
        even_speed=True,
        kinds=ObjectKinds(
            solid=0.5, compound=0.3, wiry=0.15, camouflaged=0.1, translucent=0.12, turning=0.25
        ),
        piece_rate=0.05,
        mosam_rate=0.85,
        exit_share=0.7,
    ),
    Stage(
        "views",
        size=256,
        clip_length=14,
        num_clips=3,
        num_targets=2,
        steps=900,
        learning_rate=2e-4,
        hide_rate=0.6,
        part_rate=0.22,
        long_memory=True,
        burn_in=6,
        even_speed=True,
        kinds=ObjectKinds(
            solid=0.4, compound=0.3, wiry=0.15, camouflaged=0.15, translucent=0.12, turning=0.25
        ),
        piece_rate=0.08,
        mosam_rate=0.85,
        exit_share=0.5,
        zoom_rate=0.85,
    ),
    Stage(
        "hiding in views",
        size=256,
        clip_length=16,
        num_clips=32,
        num_targets=2,
        steps=488,
        learning_rate=3.5e-4,
        hide_rate=0.8,
        part_rate=0.14,
        long_memory=True,
        burn_in=7,
        even_speed=True,
        kinds=ObjectKinds(
            solid=0.35, compound=0.3, wiry=0.15, camouflaged=0.3, translucent=0.15, turning=0.25
        ),
        piece_rate=0.05,
        mosam_rate=0.85,
        exit_share=0.5,
        zoom_rate=0.85,
        view_patience=15,
    ),
)


def learning_rate(stage: Stage, step: int) -> float:
    """Warm-up, then a cosine from the stage's rate to a tenth of it."""
    progress = step / stage.steps
    cosine = 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * progress))
    return float(stage.learning_rate * cosine * min(1.0, (step + 1) / WARMUP_STEPS))


class Trainer:
    """The optimizer, the running average of the weights, and where the run stands.

    Args:
        out: folder of the run.
        seed: of the weights and the data.
        schedule: the stages.
        ranks: this process among those that train.
        bfloat16: compute products in bfloat16; the weights stay in single precision.
    """

    def __init__(
        self,
        out: Path,
        seed: int,
        schedule: tuple[Stage, ...] = SCHEDULE,
        ranks: Ranks | None = None,
        bfloat16: bool = False,
    ) -> None:
        self.out = out
        self.seed = seed
        self.schedule = schedule
        self.ranks = ranks or Ranks()
        self.bfloat16 = bfloat16
        self.stage_index = 0
        self.step = 0
        self.seconds = 0.0
        torch.manual_seed(seed)
        self.model = self._build(schedule[0].size)
        initialize(self.model)
        self.average = {k: v.clone() for k, v in self.model.base.state_dict().items()}
        self.optimizer = self._make_optimizer(self.model)

    def _build(self, size: int) -> Sam2Model:
        model = build_model("nano", image_size=size)
        model.base.to(self.ranks.device)
        return model

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
        if not self.ranks.is_first:
            return
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
        """Go on from the last checkpoint of this run.

        Raises:
            ValueError: it has another seed, or is past the end of the schedule.
        """
        state = torch.load(self.checkpoint, map_location=self.ranks.device, weights_only=True)
        if state["seed"] != self.seed:
            raise ValueError(
                f"{self.out} has seed {state['seed']}: go on with --seed {state['seed']}, or take "
                "another folder"
            )
        if state["stage_index"] >= len(self.schedule):
            raise ValueError(
                f"{self.out} is in stage {state['stage_index'] + 1} already: take more than "
                f"{len(self.schedule)} stages, or another folder"
            )
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
        model = self._build(size)
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
        ranks = self.ranks
        stream = ClipStream(
            self.seed,
            stage.clips,
            stage.num_clips,
            self.stage_index,
            self.step,
            ranks.rank,
            ranks.count,
        )
        batches = iter(stream.loader(num_workers))
        frames = stage.num_clips * stage.clip_length * self.ranks.count
        recent: deque[dict] = deque(maxlen=50)
        bar = tqdm(
            range(self.step, stage.steps),
            desc=stage.name,
            mininterval=5,
            disable=not self.ranks.is_first,
        )
        for step in bar:
            started = time.monotonic()
            row = self.train_step(stage, next(batches))
            seconds = time.monotonic() - started
            self.seconds += seconds
            self.step = step + 1
            recent.append(row | {"frames/s": frames / seconds})
            bar.set_postfix({k: f"{np.mean([r[k] for r in recent]):.3g}" for k in recent[0]})
            self._log(stage, row)
            if self.step % save_every == 0:
                self.save()

    def train_step(self, stage: Stage, clip: Clip) -> dict[str, float]:
        """One optimizer step; returns its losses."""
        generator = np.random.default_rng([self.seed, self.stage_index, self.step])
        rate = learning_rate(stage, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.base.train()
        self.model.base.image_encoder.trunk.train(not stage.frozen_trunk)
        self.model.base.image_encoder.trunk.requires_grad_(not stage.frozen_trunk)
        with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss = self._loss(stage, clip, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        self.ranks.average_gradients(self.model.base.parameters())
        self.ranks.average_statistics(self.model.base)
        torch.nn.utils.clip_grad_norm_(self.model.base.parameters(), GRADIENT_CLIP)
        self.optimizer.step()
        self._update_average()
        total = float(loss.total.detach())
        parts = torch.tensor([total, loss.mask, loss.iou, loss.presence, loss.mean_iou])
        means = self.ranks.average(parts.to(self.ranks.device)).tolist()
        return dict(zip(LOGGED, means, strict=True))

    def _loss(self, stage: Stage, clip: Clip, generator: np.random.Generator) -> StepLoss:
        if stage.single_images:
            return image_loss(self.model, clip, generator)
        return clip_loss(
            self.model, clip, generator, stage.long_memory, stage.burn_in, stage.mosam_rate
        )

    @torch.no_grad()
    def _update_average(self) -> None:
        for name, value in self.model.base.state_dict().items():
            if value.dtype.is_floating_point:
                self.average[name].lerp_(value, 1 - EMA_DECAY)
            else:
                self.average[name].copy_(value)

    def _log(self, stage: Stage, row: dict[str, float]) -> None:
        if not self.ranks.is_first:
            return
        with (self.out / "log.jsonl").open("a") as log:
            entry = {"stage": stage.name, "step": self.step, "seconds": round(self.seconds, 1)}
            log.write(json.dumps(entry | {k: round(v, 4) for k, v in row.items()}) + "\n")

    def export(self, path: Path) -> None:
        """Write the averaged weights in half precision with how they were made, and the curves."""
        if not self.ranks.is_first:
            return
        history = [asdict(s) for s in self.schedule[: self.stage_index]]
        metadata = {
            "command": f"mosam train base --out FOLDER --seed {self.seed} --stages {len(history)}",
            "seed": self.seed,
            "stages": history,
            "training_hours": round(self.seconds / 3600, 2),
        }
        save_weights(path, self.average, metadata)
        try:
            plot_curves(self.out / "log.jsonl", self.out / "curves.png")
        except ModuleNotFoundError as error:
            print(f"no curves are drawn: {error}; pip install matplotlib")


def default_workers(processes: int) -> int:
    """Processes that make clips for each of those that train: the cores that are left, at least 1.

    Args:
        processes: that train on this machine.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, cores // processes - 1)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers",
        type=int,
        help="processes that make clips, for each that trains; by default one on each core that is "
        "left, at least one",
    )
    parser.add_argument("--save-every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--device", default="auto", help="cpu, cuda, or auto: CUDA where it is")
    parser.add_argument(
        "--stages", type=int, default=len(SCHEDULE), help="of the schedule, from the first; all"
    )
    parser.add_argument(
        "--bfloat16",
        action="store_true",
        help="compute products in bfloat16: faster on GPUs and on CPUs with AMX, slower elsewhere",
    )
    options = parser.parse_args(arguments)
    if not 1 <= options.stages <= len(SCHEDULE):
        parser.error(f"--stages is 1 to {len(SCHEDULE)}, not {options.stages}")
    options.out.mkdir(parents=True, exist_ok=True)
    ranks = Ranks.join(options.device)
    trainer = Trainer(
        options.out, options.seed, SCHEDULE[: options.stages], ranks, options.bfloat16
    )
    if trainer.checkpoint.exists():
        try:
            trainer.resume()
        except ValueError as error:
            parser.error(str(error))
    workers = default_workers(ranks.count) if options.workers is None else options.workers
    trainer.run(workers, options.save_every)
    ranks.leave()


if __name__ == "__main__":
    main()
