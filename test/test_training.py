"""Training really learns, resumes exactly, and its data ask for the prompt."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mosam_ros.mosam.checkpoints import load_model, read_metadata
from mosam_ros.synthetic import FIRST_HELD_OUT_SEED
from mosam_ros.training.base import Stage, Trainer
from mosam_ros.training.data import ClipStream, make_clip
from mosam_ros.training.model_steps import tight_boxes

TINY = (
    Stage("images", 64, 3, 2, 2, 3, 1e-3, single_images=True),
    Stage("clips", 64, 3, 2, 2, 3, 1e-3),
)


def losses(folder) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_stopped_and_resumed_training_gives_the_same_losses(tmp_path):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    Trainer(whole, 1, TINY).run(num_workers=0, save_every=1)

    first = Trainer(halves, 1, TINY)
    stopped_after = (Stage(**{**TINY[0].__dict__, "steps": 2}),)
    stream = ClipStream(1, 64, 3, 2, 2)
    for step in range(stopped_after[0].steps):
        first._log(TINY[0], first.train_step(TINY[0], stream.batch(step)) | {"step": step + 1})
        first.step = step + 1
    first.save()
    second = Trainer(halves, 1, TINY)
    second.resume()
    second.run(num_workers=0, save_every=1)
    assert losses(halves) == pytest.approx(losses(whole), abs=1e-4)
    assert len(losses(whole)) == 6

    loaded = load_model("nano", whole / "stage1.pt", device="cpu", image_size=64)
    assert loaded.model.image_size == 64
    metadata = read_metadata(whole / "stage1.pt")
    assert metadata["seed"] == 1 and [s["steps"] for s in metadata["stages"]] == [3, 3]


def test_the_loss_falls(tmp_path):
    stage = Stage("images", 64, 3, 2, 2, 60, 1e-3, single_images=True)
    trainer = Trainer(tmp_path, 0, (stage,))
    batch = ClipStream(0, 64, 3, 2, 2).batch(0)
    history = []
    for step in range(40):
        trainer.step = step
        history.append(trainer.train_step(stage, batch)["loss"])
    assert np.mean(history[-5:]) < 0.6 * np.mean(history[:5])


def test_clips_are_repeatable_and_hold_several_targets():
    frames, masks = make_clip(12, 64, 4, 3)
    again, _ = make_clip(12, 64, 4, 3)
    assert np.array_equal(frames, again)
    assert frames.shape == (4, 64, 64, 3) and masks.shape == (3, 4, 64, 64)
    assert masks[:, 0].any((1, 2)).all()
    assert masks[:, 0].sum(0).max() == 1


def test_training_never_sees_held_out_seeds():
    stream = ClipStream(3, 64, 3, 4, 2)
    rng = np.random.default_rng([3, 64, 3, 17])
    seeds = rng.integers(0, FIRST_HELD_OUT_SEED // 20 - 1, stream.num_clips)
    assert seeds.max() * 20 + 19 < FIRST_HELD_OUT_SEED


def test_tight_boxes():
    masks = torch.zeros(2, 10, 12, dtype=torch.bool)[:, :, :10].clone()
    masks[0, 2:5, 3:9] = True
    assert tight_boxes(masks).tolist() == [[[3, 2], [8, 4]], [[0, 0], [0, 0]]]
