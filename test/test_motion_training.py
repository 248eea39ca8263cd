"""The motion encoders and their training, at small size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mosam_ros.mosam.checkpoints import (
    CheckpointError,
    LoadedModel,
    load_model,
    load_motion_encoders,
    save_weights,
)
from mosam_ros.mosam.motion.encoders import HISTORY, FlowEncoder, MotionEncoders, features_at
from mosam_ros.mosam.motion.flow import FeatureFlow, Region
from mosam_ros.mosam.prompts import Prompt
from mosam_ros.mosam.sam2_model import ImageFeatures
from mosam_ros.mosam.tracker import MosamTracker, MotionConfig, TrackerConfig
from mosam_ros.synthetic import FIRST_HELD_OUT_SEED, SceneConfig, SyntheticScene
from mosam_ros.training.motion import (
    LEARNING_RATE,
    OBJECT_WEIGHT,
    DavisClips,
    MotionClip,
    MotionTrainer,
    SyntheticClips,
    _cells,
    _warp_loss,
    add_gradients,
    encode_frames,
    flow_loss_shares,
    learning_rate,
    main,
    synthetic_clip,
)

SIZE = 96


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("nano", device="cpu", image_size=SIZE)


def test_an_untrained_key_point_encoder_extrapolates_linearly():
    encoders = MotionEncoders(16)
    velocities = torch.randn(2, 5, HISTORY, 2)
    answer = encoders.key_points(velocities, torch.randn(2, 5, 16))
    torch.testing.assert_close(answer, velocities.mean(2))


def test_features_are_read_at_the_points():
    x = torch.arange(8.0).expand(1, 1, 4, 8)
    points = torch.tensor([[79.5, 10.0], [39.5, 30.0]])
    torch.testing.assert_close(features_at(x, points, (80, 160))[:, 0], torch.tensor([3.5, 1.5]))


def shifted_features(dx: int, dy: int) -> tuple[ImageFeatures, ImageFeatures]:
    """Distinct features, and the same moved by whole cells of stride 8 (two of stride 4)."""
    generator = torch.Generator().manual_seed(0)
    fine = torch.randn(1, 16, 48, 48, generator=generator)
    middle = torch.randn(1, 32, 24, 24, generator=generator)
    empty = torch.zeros(1, 1, 1, 1)
    moved = [
        torch.roll(fine, (2 * dy, 2 * dx), (2, 3)),
        torch.roll(middle, (dy, dx), (2, 3)),
    ]
    return ImageFeatures(fine, middle, empty, empty), ImageFeatures(*moved, empty, empty)


def test_feature_flow_finds_a_known_shift_by_matching_alone():
    torch.manual_seed(0)
    encoder = FlowEncoder(16, 32).eval()
    encoder.sharpness.data.fill_(4.0)
    flow = FeatureFlow(encoder)
    noise = np.random.default_rng(0).integers(0, 255, (24, 48, 1), np.uint8)
    frame = noise.repeat(8, 0).repeat(8, 1).repeat(3, 2)
    frames = frame, np.roll(frame, (-8, 16), (0, 1))
    with torch.inference_mode():
        earlier, now = map(flow.prepare, frames, shifted_features(1, -1))
        field = flow.estimate(earlier, now, Region(80, 40, 200, 100))
    assert (field.region.x, field.region.y) == (80, 40)
    inner = field.motion[6:-6, 6:-6]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), [16, -8], atol=0.5)
    assert field.consistent[6:-6, 6:-6].mean() > 0.9


def test_both_encoders_learn(loaded):
    torch.manual_seed(0)
    encoders = MotionEncoders(loaded.model.width)
    optimizer = torch.optim.AdamW(encoders.parameters(), lr=2e-3)
    clip = synthetic_clip(11, SIZE)
    features = encode_frames(loaded, clip.frames)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = add_gradients(encoders, features, clip, np.random.default_rng(0))
        optimizer.step()
        losses.append((loss.flow, loss.key_points))
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert losses[-1][1] < 0.7 * losses[0][1]
    assert all(p.grad is None for p in loaded.model.base.parameters())


def whole_flow_loss(encoder: FlowEncoder, features: ImageFeatures, clip: MotionClip):
    """The flow's loss with all pairs of a clip at once."""
    described = encoder.describe(features.fine, features.middle)
    flow = encoder(described[:-1], described[1:])
    masks = _cells(clip.masks.any(0)[:, None].astype(np.float32), flow)
    if clip.flow is None:
        return _warp_loss(flow, clip.frames, masks)
    scale = flow.shape[-1] / clip.frames.shape[2]
    truth = _cells(clip.flow.transpose(0, 3, 1, 2).copy(), flow) * scale
    error = (flow - truth).square().sum(1, keepdim=True).add(1e-4).sqrt()
    weights = 1 + (OBJECT_WEIGHT - 1) * masks[:-1]
    return (weights * error).sum() / weights.sum()


@pytest.mark.parametrize("has_flow", [True, False])
def test_pair_by_pair_the_gradients_are_those_of_the_whole_clip(loaded, has_flow):
    clip = synthetic_clip(11, SIZE)
    if not has_flow:
        clip = replace(clip, flow=None)
    features = encode_frames(loaded, clip.frames)
    torch.manual_seed(0)
    encoder = FlowEncoder(loaded.model.width // 8, loaded.model.width // 4)
    torch.nn.init.normal_(encoder.refine[-1].weight, std=0.1)
    wanted_loss = whole_flow_loss(encoder, features, clip)
    wanted = torch.autograd.grad(wanted_loss, list(encoder.parameters()))
    shares = []
    for share in flow_loss_shares(encoder, features, clip):
        share.backward()
        shares.append(float(share.detach()))
    assert len(shares) == len(clip.frames) - 1
    assert sum(shares) == pytest.approx(float(wanted_loss.detach()), rel=1e-5)
    for parameter, gradient in zip(encoder.parameters(), wanted, strict=True):
        assert gradient.norm() > 0
        # Rounding may put single activations on the other side of a ReLU's kink.
        assert (parameter.grad - gradient).norm() < 5e-3 * gradient.norm()


def test_features_are_matched_with_those_in_the_window():
    encoder = FlowEncoder(16, 32, radius=2)
    first, second = torch.randn(2, 1, 24, 5, 6, generator=torch.Generator().manual_seed(0))
    found = encoder._matches(first, second)
    around = torch.nn.functional.unfold(second, 5, padding=2).view(1, 24, 25, 5, 6)
    torch.testing.assert_close(found, (first[:, :, None] * around).sum(1))
    place = encoder.offsets.T.tolist().index([2.0, -1.0])
    torch.testing.assert_close(found[0, place, 3, 2], first[0, :, 3, 2] @ second[0, :, 2, 4])


def test_matching_takes_little_more_memory_than_its_result():
    encoder = FlowEncoder(16, 32)
    first, second = (torch.randn(1, 24, 48, 48, requires_grad=True) for _ in range(2))
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        matches = encoder._matches(first, second)
    assert sum(kept.values()) < 2 * matches.nbytes


SHIFT = (2, -1)


@pytest.mark.parametrize("what_moves", ["images", "masks"])
def test_warp_loss_is_least_for_the_true_flow(what_moves):
    """Blobs that move by two cells to the right and one up, as images or as masks alone."""
    cells, side, (dx, dy) = 24, 4, SHIFT
    noise = torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    texture = torch.nn.functional.interpolate(noise, size=(cells, cells), mode="bicubic")[0, 0]
    maps = torch.stack([texture, texture.roll((dy, dx), (0, 1))]).clamp(0, 1)
    frames = np.zeros((2, cells * side, cells * side, 3), np.uint8)
    masks = torch.zeros(2, 1, cells, cells)
    if what_moves == "images":
        large = maps.repeat_interleave(side, 1).repeat_interleave(side, 2)
        frames[:] = (255 * large).byte().numpy()[..., None]
    else:
        masks = maps[:, None]

    def loss(x: float, y: float) -> float:
        flow = torch.tensor([float(x), float(y)]).view(1, 2, 1, 1).expand(1, 2, cells, cells)
        return float(_warp_loss(flow, frames, masks))

    true = loss(dx, dy)
    for other in ((0, 0), (-dx, -dy), (dy, dx), (dx, -dy), (dx + 1, dy)):
        assert true < 0.8 * loss(*other), other


def test_warp_loss_wants_neighbours_to_move_alike():
    frames, masks = np.zeros((2, 32, 32, 3), np.uint8), torch.zeros(2, 1, 8, 8)
    even = torch.ones(1, 2, 8, 8)
    uneven = even.clone()
    uneven[..., ::2] = -1
    assert float(_warp_loss(even, frames, masks)) < float(_warp_loss(uneven, frames, masks))


def trainer(loaded: LoadedModel, out: Path, seed: int = 3, epochs: int = 2) -> MotionTrainer:
    out.mkdir(exist_ok=True)
    return MotionTrainer(loaded, SyntheticClips(SIZE, 2, 3), out, seed, epochs)


def test_resumed_training_gives_the_same_losses(loaded, tmp_path):
    whole = trainer(loaded, tmp_path / "whole")
    whole.run()
    stopped = trainer(loaded, tmp_path / "stopped")
    stopped.run(until=1)
    resumed = trainer(loaded, tmp_path / "stopped")
    assert resumed.epoch == 1
    resumed.run()
    assert resumed.history == whole.history


def test_a_folder_with_another_run_is_refused(loaded, tmp_path):
    trainer(loaded, tmp_path)._save()
    held = "model: nano; data: synthetic, 2 clips per epoch; epochs: 2; seed: 3"
    with pytest.raises(ValueError, match=rf"holds another run \({held}\).*seed: 4"):
        trainer(loaded, tmp_path, seed=4)
    with pytest.raises(ValueError, match=rf"{held}.*epochs: 30"):
        trainer(loaded, tmp_path, epochs=30)
    with pytest.raises(ValueError, match=rf"{held}.*5 clips"):
        MotionTrainer(loaded, SyntheticClips(SIZE, 5, 3), tmp_path, 3, 2)
    other = replace(loaded, name="sam2.1_hiera_tiny")
    with pytest.raises(ValueError, match=rf"{held}.*model: sam2\.1_hiera_tiny"):
        trainer(other, tmp_path)


def test_the_command_refuses_the_folder_of_another_run(loaded, tmp_path, davis, capsys):
    trainer(loaded, tmp_path / "run")._save()
    with pytest.warns(UserWarning), pytest.raises(SystemExit):
        main(["--data", str(davis), "--out", str(tmp_path / "run")])
    assert "holds another run (model: nano; data: synthetic, 2 clips" in capsys.readouterr().err


def test_synthetic_clips_are_never_held_out_ones(monkeypatch):
    clips = SyntheticClips(SIZE, 1000, 3)
    seeds = [seed for epoch in range(30) for seed in clips.seeds(epoch)]
    assert max(seeds) < FIRST_HELD_OUT_SEED and min(seeds) >= 0
    assert max(seeds) > 0.99 * FIRST_HELD_OUT_SEED
    assert len(set(seeds)) > 29_900
    assert SyntheticClips(SIZE, 1000, 4).seeds(0) != clips.seeds(0)
    made = []
    monkeypatch.setattr("mosam_ros.training.motion.synthetic_clip", lambda s, _: made.append(s))
    list(clips.epoch(2))
    assert made == clips.seeds(2)


def test_the_rate_falls_from_a_thousandth_over_thirty_epochs(loaded, tmp_path):
    run = MotionTrainer(loaded, SyntheticClips(SIZE, 1, 3), tmp_path, seed=3)
    assert run.epochs == 30
    rates = [learning_rate(epoch, run.epochs) for epoch in range(run.epochs)]
    assert rates[0] == LEARNING_RATE == 1e-3
    assert rates[15] == pytest.approx(5e-4)
    assert all(later < earlier for earlier, later in zip(rates[:-2], rates[1:-1], strict=True))
    assert rates[-1] == pytest.approx(2e-5)
    run.epoch = 15
    run.run(until=16)
    assert [group["lr"] for group in run.optimizer.param_groups] == [rates[15]]


@pytest.fixture
def davis(tmp_path) -> Path:
    """A folder in the layout of DAVIS 2017 with short sequences: one of a single frame, one with
    no object in it.
    """
    root = tmp_path / "DAVIS"
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "train.txt").write_text("cup\nstill\nbare\n")
    for name, length in (("cup", 10), ("still", 1), ("bare", 3)):
        images = root / "JPEGImages" / "480p" / name
        annotations = root / "Annotations" / "480p" / name
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        scene = SyntheticScene(FIRST_HELD_OUT_SEED, SceneConfig(height=60, width=80, num_frames=10))
        for t in range(length):
            frame = scene.frame(t)
            Image.fromarray(frame.image).save(images / f"{t:05d}.jpg")
            ids = frame.masks[0] + 2 * frame.masks[1].astype(np.uint8)
            labels = Image.fromarray(ids * (name != "bare"))
            labels.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
            labels.save(annotations / f"{t:05d}.png")
    return root


def test_davis_clips_have_images_and_masks_of_all_objects(davis):
    with pytest.warns(UserWarning, match="fewer than two annotated frames: still$") as warned:
        source = DavisClips(davis, SIZE, seed=0)
        clips = {len(c.frames): c for c in source.epoch(0)}
    assert len(warned) == 1
    assert set(clips) == {8, 3} and len(source) == 2
    assert clips[8].frames.shape == (8, SIZE, SIZE, 3)
    assert clips[8].masks.shape == (2, 8, SIZE, SIZE) and clips[8].masks[0].any()
    assert clips[8].flow is None
    assert clips[3].masks.shape == (0, 3, SIZE, SIZE)


@pytest.mark.filterwarnings("ignore:left out")
def test_the_command_trains_on_davis_and_its_encoders_load(davis, tmp_path, loaded):
    main(["--data", str(davis), "--out", str(tmp_path / "run"), "--epochs", "1"])
    (losses,) = json.loads((tmp_path / "run" / "nano_motion.json").read_text())["losses"]
    assert np.isfinite(losses["flow"]) and np.isfinite(losses["key_points"])
    assert losses["flow"] > 0 and losses["key_points"] > 0
    encoders = load_motion_encoders(loaded, tmp_path / "run" / "nano_motion.pt")
    for last in (encoders.flow.refine[-1], encoders.key_points.out):
        assert last.weight.abs().max() > 0, "training starts with zeros here"
    config = TrackerConfig(motion=MotionConfig(flow="feature", sparse_encoder="trained"))
    tracker = MosamTracker(loaded, config, encoders)
    scene = SyntheticScene(FIRST_HELD_OUT_SEED + 7, SceneConfig(height=240, width=320))
    tracker.add(Prompt.from_mask(scene.frame(0).masks[0]))
    results = [tracker.track(scene.frame(t).image).targets[0] for t in range(6)]
    assert np.isfinite(results[-1].motion_prompt.key_points).all()


def test_davis_without_a_sequence_to_train_on_is_refused(davis):
    (davis / "ImageSets" / "2017" / "train.txt").write_text("still\nmissing\n")
    with pytest.raises(FileNotFoundError, match="no sequence of .* has two frames"):
        DavisClips(davis, SIZE, seed=0)


def test_a_folder_that_is_not_davis_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.txt is missing: --data takes the root"):
        DavisClips(tmp_path, SIZE, seed=0)


def test_encoders_of_another_model_are_refused(loaded, tmp_path):
    save_weights(tmp_path / "other.pt", MotionEncoders(64).state_dict(), {})
    with pytest.raises(CheckpointError, match="mosam train motion --model nano"):
        load_motion_encoders(loaded, tmp_path / "other.pt")
