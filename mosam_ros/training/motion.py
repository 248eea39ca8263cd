"""Training of the motion encoders with SAM 2 frozen (paper, section 4.1).

    python -m mosam_ros.training.motion --data synthetic --out runs/motion --seed 0
    python -m mosam_ros.training.motion --data DAVIS --out runs/motion

DAVIS is the root of DAVIS 2017 (JPEGImages/480p, Annotations/480p, ImageSets/2017/train.txt). On
synthetic video the flow is learnt from the true flow, on DAVIS from the masks and the images. The
run is resumable: start the same command again and it goes on after the last epoch.
"""

from __future__ import annotations

import argparse
import json
import math
import time
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
from mosam_ros.mosam.motion.encoders import HISTORY, MotionEncoders, features_at
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


@dataclass(frozen=True)
class MotionClip:
    """A clip with what its motion can be learnt from.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB.
        masks: (K, T, H, W) bool.
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

    def __len__(self) -> int:
        return self._num_clips

    def epoch(self, index: int) -> Iterator[MotionClip]:
        """The clips of an epoch."""
        rng = np.random.default_rng([self._seed, index, 5])
        for seed in rng.integers(0, FIRST_HELD_OUT_SEED, self._num_clips):
            yield synthetic_clip(int(seed), self._size)


class DavisClips:
    """One random clip of every training sequence of DAVIS 2017 per epoch.

    Raises:
        FileNotFoundError: the folder has not DAVIS 2017's layout.
    """

    def __init__(self, root: Path, size: int, seed: int) -> None:
        self._root, self._size, self._seed = root, size, seed
        listing = root / "ImageSets" / "2017" / "train.txt"
        if not listing.is_file():
            raise FileNotFoundError(
                f"{listing} is missing: --data takes the root of DAVIS 2017, which holds "
                f"JPEGImages/480p, Annotations/480p and ImageSets/2017"
            )
        self._sequences = listing.read_text().split()

    def __len__(self) -> int:
        return len(self._sequences)

    def epoch(self, index: int) -> Iterator[MotionClip]:
        """The clips of an epoch."""
        rng = np.random.default_rng([self._seed, index, 6])
        for number in rng.permutation(len(self._sequences)):
            yield self._clip(self._sequences[number], rng)

    def _clip(self, name: str, rng: np.random.Generator) -> MotionClip:
        paths = sorted((self._root / "Annotations" / "480p" / name).glob("*.png"))
        first = int(rng.integers(0, max(1, len(paths) - CLIP_LENGTH + 1)))
        paths = paths[first : first + CLIP_LENGTH]
        images = self._root / "JPEGImages" / "480p" / name
        frames = [Image.open(images / f"{p.stem}.jpg").convert("RGB") for p in paths]
        square = (self._size, self._size)
        labels = [np.array(Image.open(p).resize(square, Image.Resampling.NEAREST)) for p in paths]
        ids = np.unique(np.stack(labels))
        masks = np.stack([np.stack(labels) == i for i in ids if i not in (0, 255)])
        resized = [np.array(f.resize(square, Image.Resampling.BILINEAR)) for f in frames]
        return MotionClip(np.stack(resized), masks, None)


@dataclass(frozen=True)
class MotionLoss:
    """A step's losses: of the flow in cells, of the key points in sizes of the target."""

    flow: Tensor
    key_points: Tensor


def encode_frames(loaded: LoadedModel, frames: NDArray[np.uint8]) -> ImageFeatures:
    """SAM 2's features of T frames, without gradients."""
    with torch.no_grad(), loaded.autocast():
        images = loaded.model.normalize(torch.from_numpy(frames))
        return loaded.model.encode_image(images)


def motion_loss(
    encoders: MotionEncoders, features: ImageFeatures, clip: MotionClip, rng: np.random.Generator
) -> MotionLoss:
    """Both encoders' losses on one clip."""
    fine, middle = features.fine.float(), features.middle.float()
    described = encoders.flow.describe(fine, middle)
    flow = encoders.flow(described[:-1], described[1:])
    masks = _cells(clip.masks.any(0)[:, None].astype(np.float32), flow)
    if clip.flow is None:
        loss = _warp_loss(flow, clip, masks)
    else:
        loss = _true_flow_loss(flow, clip.flow, masks[:-1])
    return MotionLoss(loss, _key_point_loss(encoders, features, clip, rng))


def _cells(maps: NDArray[np.float32], like: Tensor) -> Tensor:
    """Maps (T, C, H, W) averaged over the cells of a flow (…, h, w)."""
    tensor = torch.from_numpy(maps).to(like.device)
    return F.interpolate(tensor, size=like.shape[-2:], mode="area")


def _true_flow_loss(flow: Tensor, truth: NDArray[np.float32], masks: Tensor) -> Tensor:
    scale = flow.shape[-1] / truth.shape[2]
    wanted = _cells(truth.transpose(0, 3, 1, 2).copy(), flow) * scale
    error = (flow - wanted).square().sum(1, keepdim=True).add(1e-4).sqrt()
    weight = 1 + (OBJECT_WEIGHT - 1) * masks
    return (weight * error).sum() / weight.sum()


def _warp_loss(flow: Tensor, clip: MotionClip, masks: Tensor) -> Tensor:
    """How badly the next frame and its masks, fetched back by the flow, fit this frame; and that
    neighbours move alike.
    """
    images = _cells(clip.frames.transpose(0, 3, 1, 2).astype(np.float32) / 255, flow)
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
) -> Tensor:
    """Huber loss of the key points of every object in every frame with enough past."""
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
    if not losses:
        return features.coarse.new_zeros(())
    return torch.stack(losses).mean()


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


class MotionTrainer:
    """The encoders, their optimizer, and where the run stands."""

    def __init__(
        self, loaded: LoadedModel, clips: SyntheticClips | DavisClips, out: Path, seed: int
    ) -> None:
        self.loaded, self.clips, self.out, self.seed = loaded, clips, out, seed
        torch.manual_seed(seed)
        self.encoders = MotionEncoders(loaded.model.width).to(loaded.device)
        self.optimizer = torch.optim.AdamW(self.encoders.parameters(), lr=LEARNING_RATE)
        self.epoch = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []
        if self.checkpoint.exists():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        return self.out / "motion_last.pt"

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.encoders.load_state_dict(state["encoders"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.seconds, self.history = state["epoch"], state["seconds"], state["history"]

    def _save(self) -> None:
        state = {
            "encoders": self.encoders.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "seconds": self.seconds,
            "history": self.history,
        }
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)

    def run(self, epochs: int, schedule: int = EPOCHS) -> None:
        """Train to the end of epoch `epochs`, with a rate that decays over `schedule` epochs."""
        while self.epoch < epochs:
            decay = 0.5 * (1 + math.cos(math.pi * self.epoch / schedule))
            for group in self.optimizer.param_groups:
                group["lr"] = LEARNING_RATE * max(0.02, decay)
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
        loss = motion_loss(self.encoders, features, clip, rng)
        self.optimizer.zero_grad(set_to_none=True)
        (loss.flow + 5 * loss.key_points).backward()
        torch.nn.utils.clip_grad_norm_(self.encoders.parameters(), 1.0)
        self.optimizer.step()
        return float(loss.flow.detach()), float(loss.key_points.detach())

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
    if options.data == "synthetic":
        clips: SyntheticClips | DavisClips = SyntheticClips(size, options.clips, options.seed)
    else:
        clips = DavisClips(Path(options.data), size, options.seed)
    trainer = MotionTrainer(loaded, clips, options.out, options.seed)
    trainer.run(options.epochs, options.epochs)
    command = (
        f"mosam train motion --data {'synthetic' if options.data == 'synthetic' else 'DAVIS'} "
        f"--model {options.model} --epochs {options.epochs} --clips {options.clips} "
        f"--seed {options.seed} --out FOLDER"
    )
    print(f"wrote {trainer.export(command)}")


if __name__ == "__main__":
    main()
