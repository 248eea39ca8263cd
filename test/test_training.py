"""Training really learns, resumes exactly, and its data ask for the prompt."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mosam_ros.evaluation.metrics import mask_iou
from mosam_ros.mosam.checkpoints import build_model, load_model, read_metadata
from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, ObjectKinds, SceneConfig, SyntheticScene
from mosam_ros.training import base, data, model_steps
from mosam_ros.training.base import Stage, Trainer
from mosam_ros.training.curves import read_log
from mosam_ros.training.data import ClipConfig, ClipStream, make_clip, random_scene_config
from mosam_ros.training.model_steps import (
    clip_loss,
    combine_losses,
    forecast_masks,
    initialize,
    learned_frames,
    mislead,
    point_prompts,
    tight_boxes,
)

TINY = (
    Stage("images", 64, 3, 2, 2, 3, 1e-3, single_images=True),
    Stage("clips", 64, 3, 2, 2, 3, 1e-3),
)


def read_rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_rows(folder)]


class StoppingTrainer(Trainer):
    """Is stopped in the second stage, after its second step."""

    def train_step(self, stage: Stage, clip: data.Clip) -> dict[str, float]:
        if (self.stage_index, self.step) == (1, 2):
            raise KeyboardInterrupt
        return super().train_step(stage, clip)


def test_stopped_and_resumed_training_gives_the_same_losses_and_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "WARMUP_STEPS", 1)
    monkeypatch.setattr(base, "EMA_DECAY", 0.5)
    schedule = (
        Stage("images", 64, 2, 2, 2, 2, 1e-3, single_images=True),
        Stage("clips", 96, 3, 2, 2, 3, 1e-3, long_memory=True, frozen_trunk=True, burn_in=1),
    )
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    for folder in (whole, halves):
        folder.mkdir()
    Trainer(whole, 1, schedule).run(num_workers=0, save_every=1)

    with pytest.raises(KeyboardInterrupt):
        StoppingTrainer(halves, 1, schedule).run(num_workers=2, save_every=1)
    assert len(losses(halves)) == 4 and not (halves / "stage1.pt").exists()
    resumed = Trainer(halves, 1, schedule)
    resumed.resume()
    resumed.run(num_workers=2, save_every=1)
    assert losses(halves) == pytest.approx(losses(whole), abs=1e-4)
    assert len(losses(whole)) == 5

    metadata = read_metadata(whole / "stage1.pt")
    assert metadata["seed"] == 1 and [s["steps"] for s in metadata["stages"]] == [2, 3]
    exported, again = (weights(folder / "stage1.pt") for folder in (whole, halves))
    for name, value in exported.items():
        torch.testing.assert_close(again[name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert exported.keys() == again.keys()


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return load_model("nano", checkpoint, device="cpu").model.base.state_dict()


def test_a_run_past_the_schedule_is_not_gone_on_with(tmp_path):
    Trainer(tmp_path, 1, TINY).run(num_workers=0, save_every=1)
    with pytest.raises(ValueError, match="in stage 2 already: take more than 1 stages"):
        Trainer(tmp_path, 1, TINY[:1]).resume()


def test_a_run_of_another_seed_is_not_gone_on_with(tmp_path):
    Trainer(tmp_path, 1, TINY).save()
    with pytest.raises(ValueError, match="has seed 1: go on with --seed 1"):
        Trainer(tmp_path, 2, TINY).resume()
    Trainer(tmp_path, 1, TINY).resume()


def test_the_command_trains_resumes_and_refuses(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(base, "SCHEDULE", TINY)
    command = ["--out", str(tmp_path / "run"), "--seed", "3", "--device", "cpu"]
    base.main([*command, "--stages", "1", "--save-every", "3"])
    assert len(losses(tmp_path / "run")) == 3
    assert read_metadata(tmp_path / "run" / "stage0.pt")["command"].endswith("--seed 3 --stages 1")
    assert cv2.imread(str(tmp_path / "run" / "curves.png")) is not None

    base.main([*command, "--workers", "0"])
    assert list(read_log(tmp_path / "run" / "log.jsonl")) == ["images", "clips"]
    assert len(losses(tmp_path / "run")) == 6
    assert [s["name"] for s in read_metadata(tmp_path / "run" / "stage1.pt")["stages"]] == [
        "images",
        "clips",
    ]
    for wrong, reason in (
        (["--seed", "4"], "has seed 3: go on with --seed 3, or take another folder"),
        (["--stages", "1"], "in stage 2 already"),
        (["--stages", "3"], "--stages is 1 to 2, not 3"),
    ):
        with pytest.raises(SystemExit) as stopped:
            base.main([*command, *wrong])
        assert stopped.value.code == 2 and reason in capsys.readouterr().err


@pytest.mark.parametrize(
    "cores, processes, workers", [(1, 1, 1), (2, 1, 1), (2, 2, 1), (16, 1, 15), (16, 4, 3)]
)
def test_clips_are_made_on_the_cores_that_are_left(cores, processes, workers, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert base.default_workers(processes) == workers


def test_stages_have_clips_of_their_own():
    first, second = (ClipStream(1, ClipConfig(32, 2, 2), 1, stage).batch(0) for stage in (0, 1))
    again = ClipStream(1, ClipConfig(32, 2, 2), 1, stage=1).batch(0)
    assert not torch.equal(first.frames, second.frames)
    assert torch.equal(second.frames, again.frames)


def test_the_trainer_gives_every_stage_its_clips(tmp_path):
    seen = []

    class SeeingTrainer(Trainer):
        def train_step(self, stage: Stage, clip: data.Clip) -> dict[str, float]:
            seen.append(clip.frames)
            return dict.fromkeys(base.LOGGED, 1.0)

    SeeingTrainer(tmp_path, 1, (TINY[1], TINY[1])).run(num_workers=0, save_every=9)
    assert len(seen) == 6
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(seen, 2))


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


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_stage_says_how_often_clips_are_tracked_as_by_mosam(monkeypatch, rate):
    model = build_model("nano", image_size=64)
    initialize(model)
    clip = ClipStream(1, ClipConfig(64, 5, 2), 1).batch(0)
    remember, follow = model_steps._memory, model_steps._propagated
    selected, guided = set(), set()

    def see_selection(model, history, gap, selects):
        selected.add(selects)
        return remember(model, history, gap, selects)

    def see_guide(model, seen, memory, guide):
        guided.add(guide is not None)
        return follow(model, seen, memory, guide)

    monkeypatch.setattr(model_steps, "_memory", see_selection)
    monkeypatch.setattr(model_steps, "_propagated", see_guide)
    for seed in range(4):
        clip_loss(model, clip, np.random.default_rng(seed), mosam_rate=rate)
    assert selected == {bool(rate)} and (True in guided) == bool(rate)


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
    for state in ("begun", "average", "resumed"):
        assert all(torch.equal(first[state][k], v) for k, v in second[state].items()), state
    (tmp_path / "alone").mkdir()
    alone = Trainer(tmp_path / "alone", 1, TINY[:1])
    alone.run(num_workers=0, save_every=9)
    used = [name for name, p in alone.model.base.named_parameters() if p in alone.optimizer.state]
    assert first["used"] == used and len(used) < len(list(alone.model.base.parameters()))
    assert [row["step"] for row in read_rows(tmp_path)] == [1, 2, 3, 1, 2, 3]
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


def test_training_in_bfloat16_has_nearly_the_same_loss_and_keeps_the_weights_as_they_are(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(base, "SCHEDULE", TINY[1:])
    seen = {}
    for name, options in (("single", []), ("half", ["--bfloat16"])):
        base.main(
            [
                "--out",
                str(tmp_path / name),
                "--device",
                "cpu",
                "--workers",
                "0",
                "--save-every",
                "3",
                *options,
            ]
        )
        seen[name] = losses(tmp_path / name)
        state = torch.load(tmp_path / name / "last.pt")["model"]
        assert {v.dtype for v in state.values() if v.is_floating_point()} == {torch.float32}
    assert seen["half"] == pytest.approx(seen["single"], rel=0.03)
    assert seen["half"] != seen["single"]


def test_frames_that_are_only_tracked_are_encoded_as_the_others_but_are_not_learned_from():
    model = load_model("nano", device="cpu", image_size=64).model
    model.base.requires_grad_(True)
    frames = ClipStream(0, ClipConfig(64, 5, 2), 2).batch(0).frames
    every = model_steps._clip_features(model, frames, 2, 0)
    some = model_steps._clip_features(model, frames, 2, 3)
    for t in range(5):
        whole, part = every(t).coarse, some(t).coarse
        torch.testing.assert_close(part, whole, rtol=1e-3, atol=1e-4)
        assert part.requires_grad == (t >= 3) and whole.requires_grad


def test_the_loss_falls(tmp_path):
    stage = Stage("images", 64, 3, 2, 2, 60, 1e-3, single_images=True)
    trainer = Trainer(tmp_path, 0, (stage,))
    batch = ClipStream(0, ClipConfig(64, 3, 2), 2).batch(0)
    history = []
    for step in range(40):
        trainer.step = step
        history.append(trainer.train_step(stage, batch)["loss"])
    assert np.mean(history[-5:]) < 0.6 * np.mean(history[:5])


@pytest.mark.slow
def test_the_first_stage_teaches_a_deaf_decoder_to_listen(tmp_path, monkeypatch):
    """The decoder's transformer is new, the rest of the network as shipped. The targets of a clip
    share their image, so that only the prompt tells them apart. The clips of the check are new.
    """
    monkeypatch.setattr(base, "WARMUP_STEPS", 10)
    stage = Stage("images", 64, 2, 4, 2, 100, 1e-3, single_images=True, frozen_trunk=True)
    trainer = Trainer(tmp_path, 0, (stage,))
    shipped = load_model("nano", device="cpu").model.base.state_dict()
    for name, value in trainer.model.base.state_dict().items():
        if "sam_mask_decoder.transformer" not in name:
            value.copy_(shipped[name])
    unseen = ClipStream(0, stage.clips, 16).batch(1_000_000)
    deaf = {kind: listening(trainer, unseen, kind) for kind in ("box", "point")}
    trainer.run(num_workers=0, save_every=1000)
    for kind, (own_before, other_before) in deaf.items():
        own, other = listening(trainer, unseen, kind)
        assert abs(own_before - other_before) < 0.05
        assert own > 0.12 and own - other > 0.1 and own > 4 * other


def listening(trainer: Trainer, clip: data.Clip, kind: str) -> tuple[float, float]:
    """IoU of what is found in the first frames with the prompted and with the other target."""
    model, size = trainer.model, trainer.model.image_size
    masks = clip.masks[:, :, 0].flatten(0, 1)
    points = point_prompts(kind, masks, np.random.default_rng(0), torch.device("cpu"))
    model.base.eval()
    with torch.inference_mode():
        images = model.encode_image(model.normalize(clip.frames[:, 0]))
        features = images.for_targets([i // 2 for i in range(len(masks))])
        logits = model.decode(features, model.without_memory(features), points).mask_logits[:, :1]
    found = (torch.nn.functional.interpolate(logits, size=(size, size))[:, 0] > 0).numpy()
    own = [mask_iou(found[i], mask.numpy()) for i, mask in enumerate(masks)]
    other = [mask_iou(found[i ^ 1], mask.numpy()) for i, mask in enumerate(masks)]
    return float(np.mean(own)), float(np.mean(other))


def test_clips_are_repeatable_and_hold_several_targets():
    clip, again = (make_clip(12, ClipConfig(64, 4, 3)) for _ in range(2))
    assert np.array_equal(clip.frames, again.frames)
    assert clip.frames.shape == (4, 64, 64, 3) and clip.masks.shape == (3, 4, 64, 64)
    assert clip.masks[:, 0].any((1, 2)).all()
    assert clip.masks[:, 0].sum(0).max() == 1
    assert clip.views.tolist() == [[0, 0, 1, 1]] * 4


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


def test_a_stage_says_what_share_of_its_objects_is_hard_to_make_out(monkeypatch):
    seen = set()

    class SeenScene(SyntheticScene):
        def __init__(self, seed: int, config: SceneConfig) -> None:
            seen.add(config.kinds)
            super().__init__(seed, config)

    monkeypatch.setattr(data, "SyntheticScene", SeenScene)
    kinds = ObjectKinds(compound=0.4, wiry=0.1, translucent=0.2)
    stage = Stage("stage", 32, 2, 1, 2, 1, 1e-3, kinds=kinds)
    make_clip(1, stage.clips)
    assert seen == {kinds}


def test_a_stage_says_in_what_share_of_its_clips_pieces_of_the_background_are_targets(monkeypatch):
    seen = []

    class SeenScene(SyntheticScene):
        def __init__(self, seed: int, config: SceneConfig) -> None:
            seen.append(config.num_pieces)
            super().__init__(seed, config)

    monkeypatch.setattr(data, "SyntheticScene", SeenScene)
    for rate, low, high in ((0.0, 0.0, 0.0), (0.5, 0.2, 0.8), (1.0, 1.0, 1.0)):
        seen.clear()
        stage = Stage("stage", 64, 2, 1, 2, 1, 1e-3, piece_rate=rate)
        for seed in range(40):
            make_clip(seed, stage.clips)
        share = np.mean([pieces > 0 for pieces in seen])
        assert low <= share <= high


def test_a_stage_says_in_what_share_of_the_hiding_the_target_leaves_the_image():
    for share in (0.0, 0.5, 1.0):
        stage = Stage("stage", 64, 4, 1, 2, 1, 1e-3, hide_rate=0.8, exit_share=share)
        drawn = [
            random_scene_config(
                np.random.default_rng(seed), 64, 20, stage.clips.hide_rate, 0.2, stage.exit_share
            )
            for seed in range(200)
        ]
        left = np.mean([config.exits for config in drawn])
        hidden = np.mean([config.full_occlusions for config in drawn])
        assert left == pytest.approx(0.8 * share, abs=0.1)
        assert left + hidden == pytest.approx(0.8, abs=0.08)


def test_a_stage_tells_its_clips_how_often_the_target_leaves(monkeypatch):
    seen = []

    class SeenScene(SyntheticScene):
        def __init__(self, seed: int, config: SceneConfig) -> None:
            seen.append((config.exits, config.full_occlusions))
            super().__init__(seed, config)

    monkeypatch.setattr(data, "SyntheticScene", SeenScene)
    stage = Stage("stage", 64, 4, 1, 2, 1, 1e-3, hide_rate=1.0, exit_share=1.0)
    for seed in range(5):
        make_clip(seed, stage.clips)
    assert set(seen) == {(1, 0)}


def test_pieces_of_the_background_are_among_the_targets(monkeypatch):
    """And so are the objects before it, where there are any."""
    chosen = []
    choose = data._choose_targets

    def seen_choice(*arguments, **options):
        targets = choose(*arguments, **options)
        if targets is not None:
            pieces = len(arguments[1]) - 3
            chosen.extend(targets >= pieces)
        return targets

    monkeypatch.setattr(data, "_choose_targets", seen_choice)
    stage = Stage("stage", 96, 2, 1, 2, 1, 1e-3, piece_rate=1.0)
    for seed in range(20):
        make_clip(seed, stage.clips)
    assert 0.3 < np.mean(chosen) < 0.95


def speed_of(clip: data.TrainingClip) -> float:
    """Pixels per frame that the first target's center moves, where it is in sight."""
    centers = [np.argwhere(mask).mean(0) for mask in clip.masks[0] if mask.any()]
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


def test_misled_forecasts_point_at_another_target_of_the_same_clip():
    masks = torch.zeros(6, 8, 8, dtype=torch.bool)
    masks[torch.arange(6), torch.arange(6)] = True
    drawn = [mislead(masks, masks, 3, np.random.default_rng(s)) for s in range(60)]
    rows = torch.stack(drawn).any(3).float().argmax(2)
    misled = rows != torch.arange(6)
    assert 0.05 < misled.float().mean() < 0.3
    others = torch.tensor([2, 0, 1, 5, 3, 4]).expand_as(rows)
    assert (rows[misled] == others[misled]).all()
