"""Training of the motion encoders with SAM 2 frozen (paper, section 4.1).

    python -m mosam_ros.training.motion --data synthetic --out runs/motion --seed 0
    python -m mosam_ros.training.motion --data DAVIS --out runs/motion

DAVIS is the root of DAVIS 2017 (JPEGImages/480p, Annotations/480p, ImageSets/2017/train.txt). On
synthetic video the flow is learnt from the true flow, on DAVIS from the masks and the images. The
run is resumable: start the same command again and it goes on after the last epoch.

Where this is not section 4.1: the paper trains on the training and the validation subset of DAVIS,
this on the training subset alone, so that the validation subset stays held out. The paper's batch
is 32; a step here is one clip of `CLIP_LENGTH` frames: every pair of frames in a row for the flow,
and every object in every frame with enough past for the key points.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from mosam_ros.mosam.checkpoints import LoadedModel, load_model, save_weights
from mosam_ros.mosam.motion.encoders import HISTORY, FlowEncoder, MotionEncoders, features_at
from mosam_ros.mosam.motion.keypoints import MaskGeometry, key_points
from mosam_ros.mosam.sam2_model import ImageFeatures
from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, SyntheticScene
from mosam_ros.training.data import random_scene_config

EPOCHS = 30
LEARNING_RATE = 1e-3
CLIP_LENGTH = 8
NUM_KEY_POINTS = 5
MIN_PIXELS = 60
OBJECT_WEIGHT = 4.0
"""Flow errors on objects count so many times those on the background."""

KEY_POINT_WEIGHT = 5.0
"""Of the key points' loss beside that of the flow."""


@dataclass(frozen=True)
class MotionClip:
    """A clip with what its motion can be learnt from.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        masks: (K, T, H, W) bool; K may be 0.
        flow: (T - 1, H, W, 2) float32 pixels from each frame to the next; None where it is unknown.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    flow: NDArray[np.float32] | None


def synthetic_clip(seed: int, size: int) -> MotionClip:
    """A clip of the synthetic generator; the same for the same seed."""
    rng = np.random.default_rng([seed, 41])
    config = random_scene_config(rng, size, CLIP_LENGTH, hide_rate=0.0)
    scene = SyntheticScene(seed, config)
    frames = [scene.frame(t) for t in range(CLIP_LENGTH)]
    flow = np.stack([scene.flow(t) for t in range(CLIP_LENGTH - 1)])
    masks = np.stack([f.masks for f in frames], axis=1)
    return MotionClip(np.stack([f.image for f in frames]), masks, flow)


class SyntheticClips:
    """`num_clips` new clips per epoch from seeds that are held out of all validation."""

    def __init__(self, size: int, num_clips: int, seed: int) -> None:
        self._size, self._num_clips, self._seed = size, num_clips, seed
        self.name = f"synthetic, {num_clips} clips per epoch"

    def __len__(self) -> int:
        return self._num_clips

    def epoch(self, index: int) -> Iterator[MotionClip]:
        """The clips of an epoch."""
        for seed in self.seeds(index):
            yield synthetic_clip(seed, self._size)

    def seeds(self, index: int) -> list[int]:
        """The seeds of an epoch's clips, all below `FIRST_HELD_OUT_SEED`."""
        rng = np.random.default_rng([self._seed, index, 5])
        return rng.integers(0, FIRST_HELD_OUT_SEED, self._num_clips).tolist()


class DavisClips:
    """One random clip of every training sequence of DAVIS 2017 per epoch.

    Sequences with fewer than two annotated frames are left out, with one warning.

    Raises:
        FileNotFoundError: the folder has not DAVIS 2017's layout, or no sequence is left.
    """

    name = "DAVIS"

    def __init__(self, root: Path, size: int, seed: int) -> None:
        self._root, self._size, self._seed = root, size, seed
        listing = root / "ImageSets" / "2017" / "train.txt"
        if not listing.is_file():
            raise FileNotFoundError(
                f"{listing} is missing: --data takes the root of DAVIS 2017, which holds "
                f"JPEGImages/480p, Annotations/480p and ImageSets/2017"
            )
        names = listing.read_text().split()
        self._sequences = [name for name in names if len(self._annotations(name)) >= 2]
        if not self._sequences:
            raise FileNotFoundError(
                f"no sequence of {listing} has two frames in {root / 'Annotations' / '480p'}: is "
                f"DAVIS 2017 unpacked as a whole?"
            )
        if short := sorted(set(names) - set(self._sequences)):
            warnings.warn(
                f"left out, with fewer than two annotated frames: {', '.join(short)}", stacklevel=2
            )

    def __len__(self) -> int:
        return len(self._sequences)

    def epoch(self, index: int) -> Iterator[MotionClip]:
        """The clips of an epoch."""
        rng = np.random.default_rng([self._seed, index, 6])
        for number in rng.permutation(len(self._sequences)):
            yield self._clip(self._sequences[number], rng)

    def _annotations(self, name: str) -> list[Path]:
        return sorted((self._root / "Annotations" / "480p" / name).glob("*.png"))

    def _clip(self, name: str, rng: np.random.Generator) -> MotionClip:
        paths = self._annotations(name)
        first = int(rng.integers(0, max(1, len(paths) - CLIP_LENGTH + 1)))
        paths = paths[first : first + CLIP_LENGTH]
        images = self._root / "JPEGImages" / "480p" / name
        frames = [Image.open(images / f"{p.stem}.jpg").convert("RGB") for p in paths]
        square = (self._size, self._size)
        labels = np.stack(
            [np.array(Image.open(p).resize(square, Image.Resampling.NEAREST)) for p in paths]
        )
        ids = np.setdiff1d(labels, (0, 255))
        masks = labels == ids[:, None, None, None]
        resized = [np.array(f.resize(square, Image.Resampling.BILINEAR)) for f in frames]
        return MotionClip(np.stack(resized), masks, None)


@dataclass(frozen=True)
class MotionLoss:
    """A step's losses: of the flow in cells, of the key points in sizes of the target."""

    flow: float
    key_points: float


def encode_frames(loaded: LoadedModel, frames: NDArray[np.uint8]) -> ImageFeatures:
    """SAM 2's features of T frames, without gradients; one frame is in work at a time."""
    with torch.no_grad(), loaded.autocast():
        images = loaded.model.normalize(torch.from_numpy(frames))
        each = [loaded.model.encode_image(image) for image in images.split(1)]
    maps = ("fine", "middle", "coarse", "position")
    return ImageFeatures(*(torch.cat([getattr(x, name) for x in each]) for name in maps))


def add_gradients(
    encoders: MotionEncoders, features: ImageFeatures, clip: MotionClip, rng: np.random.Generator
) -> MotionLoss:
    """Add the gradients of both encoders' losses on one clip to the encoders'.

    The gradients are those of the whole clip's loss, but the flow of no more than one pair of
    frames is in work at a time.
    """
    flow = 0.0
    for share in flow_loss_shares(encoders.flow, features, clip):
        share.backward()
        flow += float(share.detach())
    points = _key_point_loss(encoders, features, clip, rng)
    if points is None:
        return MotionLoss(flow, 0.0)
    (KEY_POINT_WEIGHT * points).backward()
    return MotionLoss(flow, float(points.detach()))


def flow_loss_shares(
    encoder: FlowEncoder, features: ImageFeatures, clip: MotionClip
) -> Iterator[Tensor]:
    """What each pair of frames in a row adds to the clip's loss, which is their sum."""
    fine, middle = features.fine.float(), features.middle.float()
    masks = _cells(clip.masks.any(0)[:, None].astype(np.float32), fine)
    weights = 1 + (OBJECT_WEIGHT - 1) * masks
    total = weights[:-1].sum()
    for t in range(len(fine) - 1):
        pair = slice(t, t + 2)
        described = encoder.describe(fine[pair], middle[pair])
        flow = encoder(described[:1], described[1:])
        if clip.flow is None:
            yield _warp_loss(flow, clip.frames[pair], masks[pair]) / (len(fine) - 1)
        else:
            yield _flow_error(flow, clip.flow[t : t + 1], weights[t : t + 1]) / total


def _cells(maps: NDArray[np.float32], like: Tensor) -> Tensor:
    """Maps (T, C, H, W) averaged over the cells of a flow (…, h, w)."""
    tensor = torch.from_numpy(maps).to(like.device)
    return F.interpolate(tensor, size=like.shape[-2:], mode="area")


def _flow_error(flow: Tensor, truth: NDArray[np.float32], weights: Tensor) -> Tensor:
    """Weighted sum over the cells of the distance from the true flow, in cells."""
    scale = flow.shape[-1] / truth.shape[2]
    wanted = _cells(truth.transpose(0, 3, 1, 2).copy(), flow) * scale
    error = (flow - wanted).square().sum(1, keepdim=True).add(1e-4).sqrt()
    return (weights * error).sum()


def _warp_loss(flow: Tensor, frames: NDArray[np.uint8], masks: Tensor) -> Tensor:
    """How badly the next frame and its masks, fetched back by the flow, fit this frame; and that
    neighbours move alike.

    Args:
        flow: (T - 1, 2, h, w) in cells, from each frame to the next.
        frames: (T, H, W, 3) RGB.
        masks: (T, 1, h, w) share of each cell that objects cover.
    """
    images = _cells(frames.transpose(0, 3, 1, 2).astype(np.float32) / 255, flow)
    both = torch.cat([images, masks], dim=1)
    height, width = flow.shape[-2:]
    rows, columns = (torch.arange(n, device=flow.device) for n in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    there = torch.stack([x, y]) + flow
    extent = flow.new_tensor([width, height])[:, None, None]
    grid = (2 * (there + 0.5) / extent - 1).permute(0, 2, 3, 1)
    fetched = F.grid_sample(both[1:], grid, padding_mode="border", align_corners=False)
    difference = (fetched - both[:-1]).square().add(1e-4).sqrt().mean()
    bends = [flow.diff(dim=d).abs().mean() for d in (2, 3)]
    return 10 * difference + 0.1 * (bends[0] + bends[1])


def _key_point_loss(
    encoders: MotionEncoders, features: ImageFeatures, clip: MotionClip, rng: np.random.Generator
) -> Tensor | None:
    """Huber loss of the key points of every object in every frame with enough past, if any."""
    losses = []
    for masks in clip.masks:
        geometry = MaskGeometry.of(masks)
        points = key_points(masks, geometry.centroids, NUM_KEY_POINTS)
        seen = geometry.areas >= MIN_PIXELS
        for t in range(HISTORY, len(masks) - 1):
            if seen[t - HISTORY : t + 2].all():
                past = points[t - HISTORY : t + 1]
                noisy = past + rng.normal(0, rng.uniform(0, 1.0), past.shape).astype(np.float32)
                coarse = features.coarse[t : t + 1]
                future = points[t + 1]
                losses.append(_one_key_point_loss(encoders, coarse, noisy, future, masks.shape[1:]))
    return torch.stack(losses).mean() if losses else None


def _one_key_point_loss(
    encoders: MotionEncoders,
    coarse: Tensor,
    past: NDArray[np.float32],
    future: NDArray[np.float32],
    image_size: tuple[int, int],
) -> Tensor:
    size = float(np.sqrt(np.prod(np.ptp(past[-1], axis=0) * 2 + 1)))
    to_device = coarse.device
    velocities = torch.from_numpy(np.diff(past, axis=0) / size).to(to_device).transpose(0, 1)
    wanted = torch.from_numpy((future - past[-1]) / size).to(to_device)
    sampled = features_at(coarse, torch.from_numpy(past[-1]).to(to_device), image_size)
    answer = encoders.key_points(velocities[None], sampled[None])[0]
    return F.smooth_l1_loss(answer, wanted, beta=0.05)


def learning_rate(epoch: int, epochs: int) -> float:
    """Of an epoch, from 0: a half cosine from `LEARNING_RATE` down, over all epochs of a run."""
    decay = 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    return LEARNING_RATE * max(0.02, decay)


class MotionTrainer:
    """The encoders, their optimizer, and where the run stands.

    Args:
        loaded: the frozen model.
        clips: to train on.
        out: folder of the run, which is gone on with if there is one.
        seed: of the first weights and of the key points' noise.
        epochs: of the whole run.

    Raises:
        ValueError: the folder holds another run.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        clips: SyntheticClips | DavisClips,
        out: Path,
        seed: int,
        epochs: int = EPOCHS,
    ) -> None:
        self.loaded, self.clips, self.out = loaded, clips, out
        self.seed, self.epochs = seed, epochs
        torch.manual_seed(seed)
        self.encoders = MotionEncoders(loaded.model.width).to(loaded.device)
        self.optimizer = torch.optim.AdamW(self.encoders.parameters(), lr=LEARNING_RATE)
        self.epoch = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        if self.checkpoint.exists():
            self._resume()

    @property
    def _run(self) -> dict[str, str | int]:
        """What makes this run another than others."""
        return {
            "model": self.loaded.name,
            "data": self.clips.name,
            "epochs": self.epochs,
            "seed": self.seed,
        }

    @property
    def checkpoint(self) -> Path:
        return self.out / "motion_last.pt"

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.loaded.device, weights_only=True)
        if state["run"] != self._run:
            held, asked = (
                "; ".join(f"{k}: {v}" for k, v in run.items()) for run in (state["run"], self._run)
            )
            raise ValueError(
                f"{self.out} holds another run ({held}) than this one ({asked}): go on with that "
                f"one, or take another folder"
            )
        self.encoders.load_state_dict(state["encoders"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.seconds, self.history = state["epoch"], state["seconds"], state["history"]

    def _save(self) -> None:
        state = {
            "run": self._run,
            "encoders": self.encoders.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "history": self.history,
        }
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)

    def run(self, until: int | None = None) -> None:
        """Train to the end, or to the end of epoch `until`."""
        while self.epoch < (self.epochs if until is None else until):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.epoch, self.epochs)
            self.history.append(self.run_epoch())
            self.epoch += 1
            self._save()

    def run_epoch(self) -> dict[str, float]:
        """One epoch; returns its mean losses."""
        started = time.monotonic()
        rng = np.random.default_rng([self.seed, self.epoch])
        rows = []
        bar = tqdm(self.clips.epoch(self.epoch), total=len(self.clips), desc=f"epoch {self.epoch}")
        for clip in bar:
            rows.append(self.step(clip, rng))
            mean = np.mean(rows[-20:], axis=0)
            bar.set_postfix(flow=f"{mean[0]:.3f}", key_points=f"{mean[1]:.4f}")
        self.seconds += time.monotonic() - started
        flow, points = np.mean(rows, axis=0).tolist()
        return {"flow": round(flow, 4), "key_points": round(points, 5)}

    def step(self, clip: MotionClip, rng: np.random.Generator) -> tuple[float, float]:
        """One optimizer step; returns its losses."""
        features = encode_frames(self.loaded, clip.frames)
        self.optimizer.zero_grad(set_to_none=True)
        loss = add_gradients(self.encoders, features, clip, rng)
        torch.nn.utils.clip_grad_norm_(self.encoders.parameters(), 1.0)
        self.optimizer.step()
        return loss.flow, loss.key_points

    def export(self, command: str) -> Path:
        """Write the weights with how they were made."""
        path = self.out / f"{self.loaded.name}_motion.pt"
        metadata = {
            "command": command,
            "seed": self.seed,
            "epochs": self.epoch,
            "training_hours": round(self.seconds / 3600, 3),
            "losses": self.history,
        }
        save_weights(path, self.encoders.state_dict(), metadata)
        path.with_suffix(".json").write_text(json.dumps(metadata, indent=2) + "\n")
        return path


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="root of DAVIS 2017, or synthetic")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--checkpoint", type=Path, help="weights; the model's own if not given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--clips", type=int, default=40, help="synthetic clips per epoch")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    loaded = load_model(options.model, options.checkpoint, options.device)
    size = loaded.model.image_size
    try:
        if options.data == "synthetic":
            clips: SyntheticClips | DavisClips = SyntheticClips(size, options.clips, options.seed)
        else:
            clips = DavisClips(Path(options.data), size, options.seed)
        trainer = MotionTrainer(loaded, clips, options.out, options.seed, options.epochs)
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    trainer.run()
    data = "synthetic" if options.data == "synthetic" else "DAVIS"
    checkpoint = "--checkpoint FILE " if options.checkpoint else ""
    command = (
        f"mosam train motion --data {data} --model {options.model} {checkpoint}"
        f"--epochs {options.epochs} --clips {options.clips} --seed {options.seed} --out FOLDER"
    )
    print(f"wrote {trainer.export(command)}")


if __name__ == "__main__":
    main()
