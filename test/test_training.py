"""Training really learns, resumes exactly, and its data ask for the prompt."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mosam_ros.evaluation.metrics import mask_iou
from mosam_ros.mosam.checkpoints import build_model, load_model, read_metadata
from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, TARGET, SceneConfig, SyntheticScene
from mosam_ros.training import data, model_steps
from mosam_ros.training.base import Stage, Trainer
from mosam_ros.training.curves import read_log
from mosam_ros.training.data import ClipConfig, ClipStream, make_clip
from mosam_ros.training.model_steps import (
    clip_loss,
    combine_losses,
    forecast_masks,
    initialize,
    learned_frames,
    point_prompts,
    tight_boxes,
)
from mosam_ros.training.release import model_card
from mosam_ros.training.validate import (
    format_report,
    held_out_clips,
    rank_correlation,
    validate,
)

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
    stream = ClipStream(1, ClipConfig(64, 3, 2), 2)
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


def test_a_run_past_the_schedule_is_not_gone_on_with(tmp_path):
    Trainer(tmp_path, 1, TINY).run(num_workers=0, save_every=1)
    with pytest.raises(ValueError, match="in stage 2 already: take more than 1 stages"):
        Trainer(tmp_path, 1, TINY[:1]).resume()


def test_as_many_frames_are_learned_wherever_they_start():
    drawn = [learned_frames(10, 4, np.random.default_rng(seed)) for seed in range(40)]
    assert {frames.start for frames in drawn} == {0, 1, 2, 3, 4}
    assert {len(frames) for frames in drawn} == {6}
    assert learned_frames(10, 0, np.random.default_rng(0)) == range(10)


def test_only_learned_frames_count(monkeypatch):
    model = build_model("nano", image_size=64)
    initialize(model)
    clip = ClipStream(1, ClipConfig(64, 4, 2), 1).batch(0)
    counted = []

    def count(candidates, truth):
        counted.append(candidates.mask_logits.requires_grad)
        return combine_losses(candidates, truth)

    monkeypatch.setattr(model_steps, "combine_losses", count)
    loss = clip_loss(model, clip, np.random.default_rng(2), burn_in=2)
    loss.total.backward()
    assert counted == [True, True] and np.isfinite(loss.mask)


@pytest.mark.slow
def test_processes_that_train_together_agree_and_write_one_log(tmp_path):
    script = Path(__file__).parent / "train_together.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(script), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(script.parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert first["first_batch"] != second["first_batch"]
    assert all(torch.equal(first["weights"][k], v) for k, v in second["weights"].items())
    assert len(losses(tmp_path)) == 6
    assert (tmp_path / "stage1.pt").is_file() and (tmp_path / "last.pt").is_file()
    assert cv2.imread(str(tmp_path / "curves.png")) is not None


def test_the_log_counts_steps_once_that_were_done_again(tmp_path):
    rows = [("a", 1, 3.0), ("a", 2, 2.0), ("a", 2, 1.0), ("b", 1, 0.5)]
    keys = ("stage", "step", "loss")
    lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    by_stage = read_log(tmp_path / "log.jsonl")
    assert [row["loss"] for row in by_stage["a"]] == [3.0, 1.0]
    assert [row["loss"] for row in by_stage["b"]] == [0.5]


def test_the_loss_falls(tmp_path):
    stage = Stage("images", 64, 3, 2, 2, 60, 1e-3, single_images=True)
    trainer = Trainer(tmp_path, 0, (stage,))
    batch = ClipStream(0, ClipConfig(64, 3, 2), 2).batch(0)
    history = []
    for step in range(40):
        trainer.step = step
        history.append(trainer.train_step(stage, batch)["loss"])
    assert np.mean(history[-5:]) < 0.6 * np.mean(history[:5])


@pytest.mark.parametrize("kind", ["box", "point"])
def test_the_first_stage_soon_listens_to_prompts(kind, listening):
    """Both targets of a clip share their image, so that only the prompt tells them apart."""
    trainer, clip = listening
    masks = clip.masks[:, :, 0].flatten(0, 1)
    points = point_prompts(kind, masks, np.random.default_rng(0), torch.device("cpu"))
    model = trainer.model
    model.base.eval()
    with torch.inference_mode():
        features = model.encode_image(model.normalize(clip.frames[:, 0])).for_targets([0, 0, 1, 1])
        logits = model.decode(features, model.without_memory(features), points).mask_logits[:, :1]
    found = (torch.nn.functional.interpolate(logits, size=(64, 64))[:, 0] > 0).numpy()
    own = [mask_iou(found[i], masks[i].numpy()) for i in range(4)]
    other = [mask_iou(found[i], masks[i ^ 1].numpy()) for i in range(4)]
    assert np.mean(own) > 0.5 and np.mean(other) < 0.2


@pytest.fixture(scope="module")
def listening(tmp_path_factory) -> tuple[Trainer, data.Clip]:
    """A trainer after a few steps of the first stage on one batch, and the batch."""
    stage = Stage("images", 64, 2, 2, 2, 400, 2e-3, single_images=True)
    trainer = Trainer(tmp_path_factory.mktemp("listening"), 0, (stage,))
    clip = ClipStream(0, stage.clips, stage.num_clips).batch(0)
    for step in range(80):
        trainer.step = step
        trainer.train_step(stage, clip)
    return trainer, clip


def test_clips_are_repeatable_and_hold_several_targets():
    frames, masks = make_clip(12, ClipConfig(64, 4, 3))
    again, _ = make_clip(12, ClipConfig(64, 4, 3))
    assert np.array_equal(frames, again)
    assert frames.shape == (4, 64, 64, 3) and masks.shape == (3, 4, 64, 64)
    assert masks[:, 0].any((1, 2)).all()
    assert masks[:, 0].sum(0).max() == 1


def test_training_never_sees_held_out_seeds(monkeypatch):
    seen = []

    class SeenScene(SyntheticScene):
        def __init__(self, seed: int, config: SceneConfig) -> None:
            seen.append(seed)
            super().__init__(seed, config)

    monkeypatch.setattr(data, "SyntheticScene", SeenScene)
    for batch in range(4):
        ClipStream(3, ClipConfig(32, 2, 2), 4).batch(batch)
    assert len(set(seen)) >= 16
    assert max(seen) < FIRST_HELD_OUT_SEED


def test_at_even_speed_objects_are_as_fast_however_many_frames_are_skipped():
    seeds = range(8)
    skipping = [speed_of(make_clip(seed, ClipConfig(64, 8, 2))) for seed in seeds]
    even = [speed_of(make_clip(seed, ClipConfig(64, 8, 2, even_speed=True))) for seed in seeds]
    assert np.mean(even) < 0.8 * np.mean(skipping)


def speed_of(clip: tuple[np.ndarray, np.ndarray]) -> float:
    """Pixels per frame that the first target's center moves, where it is in sight."""
    centers = [np.argwhere(mask).mean(0) for mask in clip[1][0] if mask.any()]
    return float(np.linalg.norm(np.diff(centers, axis=0), axis=1).mean())


def test_tight_boxes():
    masks = torch.zeros(2, 10, 12, dtype=torch.bool)[:, :, :10].clone()
    masks[0, 2:5, 3:9] = True
    assert tight_boxes(masks).tolist() == [[[3, 2], [8, 4]], [[0, 0], [0, 0]]]


def test_forecasts_of_targets_that_have_just_been_hidden_are_stale():
    before = torch.zeros(3, 16, 16, dtype=torch.bool)
    before[:2, 2:6, 2:6] = True
    now = torch.zeros_like(before)
    now[0, 8:12, 8:12] = now[2, 8:12, 8:12] = True
    drawn = [forecast_masks(before, now, np.random.default_rng(s)) for s in range(40)]
    stale = [bool((d[0] == before[0]).all()) for d in drawn]
    assert 0 < sum(stale) < 40
    assert all(old or (d[0] == now[0]).all() for d, old in zip(drawn, stale, strict=True))
    assert all((d[1] == before[1]).all() and not d[2].any() for d in drawn)
    labels = point_prompts("motion", drawn[0], np.random.default_rng(0), torch.device("cpu")).labels
    assert labels[1].tolist() == [2, 3, 1, 1, 1, 1, 1]
    assert labels[2].tolist() == [-1] * 7


def test_repeating_the_first_mask_is_no_way_through_the_suite():
    ious = []
    for _, clip in held_out_clips(16, 0, 64):
        first, *rest = (frame.masks[TARGET] for frame in clip)
        ious.append(np.mean([mask_iou(first, mask) for mask in rest if mask.any()]))
    assert 0.1 < np.mean(ious) <= 0.4


def test_rank_correlation():
    a = np.array([0.1, 0.4, 0.2, 0.9])
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    tied = rank_correlation(np.array([1.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert tied == pytest.approx(0.9487, abs=1e-4)


def test_validation_reports_every_kind_of_prompt_and_scenario():
    report = validate(load_model("nano", device="cpu", image_size=128), 2, seed=3)
    for kind in ("mask", "box", "point"):
        assert report[kind]["iou_visible"] > report[kind]["first_mask_repeated"]
    assert list(report["scenarios"]) == ["easy", "lookalikes"]
    assert 0 <= report["presence_visible"] <= 1 and report["hidden_frames"] >= 0
    assert -1 <= report["iou_rank_correlation"] <= 1
    assert "rank correlation" in format_report(report)
    made = {"command": "mosam train base", "torch": "2", "training_hours": 1.5, "parameters": 4e6}
    card = model_card(made | {"stages": [asdict(TINY[0])], "validation": report})
    assert "| images | 64 | 3 | 2 x 2 | 3 |" in card and "4.0 million parameters" in card
    assert f"| mask | {report['mask']['iou_visible']:.2f} |" in card
