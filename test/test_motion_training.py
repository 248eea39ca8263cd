"""The motion encoders and their training, at small size."""

from __future__ import annotations

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
    DavisClips,
    MotionTrainer,
    SyntheticClips,
    encode_frames,
    main,
    motion_loss,
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
    frame = np.zeros((192, 384, 3), np.uint8)
    with torch.inference_mode():
        earlier, now = (flow.prepare(frame, f) for f in shifted_features(1, -1))
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
        loss = motion_loss(encoders, features, clip, np.random.default_rng(0))
        optimizer.zero_grad()
        (loss.flow + loss.key_points).backward()
        optimizer.step()
        losses.append((float(loss.flow.detach()), float(loss.key_points.detach())))
    assert losses[-1][0] < 0.7 * losses[0][0]
    assert losses[-1][1] < 0.7 * losses[0][1]
    assert all(p.grad is None for p in loaded.model.base.parameters())


def trainer(loaded: LoadedModel, out: Path) -> MotionTrainer:
    out.mkdir(exist_ok=True)
    return MotionTrainer(loaded, SyntheticClips(SIZE, 2, 3), out, seed=3)


def test_resumed_training_gives_the_same_losses(loaded, tmp_path):
    whole = trainer(loaded, tmp_path / "whole")
    whole.run(epochs=2, schedule=2)
    stopped = trainer(loaded, tmp_path / "stopped")
    stopped.run(epochs=1, schedule=2)
    resumed = trainer(loaded, tmp_path / "stopped")
    assert resumed.epoch == 1
    resumed.run(epochs=2, schedule=2)
    assert resumed.history == whole.history


@pytest.fixture
def davis(tmp_path) -> Path:
    """A folder in the layout of DAVIS 2017 with two short sequences, the second of one frame."""
    root = tmp_path / "DAVIS"
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "train.txt").write_text("cup\nstill\n")
    for name, length in (("cup", 10), ("still", 1)):
        images = root / "JPEGImages" / "480p" / name
        annotations = root / "Annotations" / "480p" / name
        images.mkdir(parents=True)
        annotations.mkdir(parents=True)
        scene = SyntheticScene(FIRST_HELD_OUT_SEED, SceneConfig(height=60, width=80, num_frames=10))
        for t in range(length):
            frame = scene.frame(t)
            Image.fromarray(frame.image).save(images / f"{t:05d}.jpg")
            labels = Image.fromarray(frame.masks[0] + 2 * frame.masks[1].astype(np.uint8))
            labels.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
            labels.save(annotations / f"{t:05d}.png")
    return root


def test_davis_clips_have_images_and_masks_of_all_objects(davis):
    clips = {len(c.frames): c for c in DavisClips(davis, SIZE, seed=0).epoch(0)}
    assert clips[8].frames.shape == (8, SIZE, SIZE, 3)
    assert clips[8].masks.shape == (2, 8, SIZE, SIZE) and clips[8].masks[0].any()
    assert clips[8].flow is None


def test_the_command_trains_on_davis_and_its_encoders_load(davis, tmp_path, loaded):
    main(["--data", str(davis), "--out", str(tmp_path / "run"), "--epochs", "1"])
    encoders = load_motion_encoders(loaded, tmp_path / "run" / "nano_motion.pt")
    config = TrackerConfig(motion=MotionConfig(flow="feature", sparse_encoder="trained"))
    tracker = MosamTracker(loaded, config, encoders)
    scene = SyntheticScene(FIRST_HELD_OUT_SEED + 7, SceneConfig(height=240, width=320))
    tracker.add(Prompt.from_mask(scene.frame(0).masks[0]))
    results = [tracker.track(scene.frame(t).image).targets[0] for t in range(6)]
    assert np.isfinite(results[-1].motion_prompt.key_points).all()


def test_a_folder_that_is_not_davis_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"train\.txt is missing: --data takes the root"):
        DavisClips(tmp_path, SIZE, seed=0)


def test_encoders_of_another_model_are_refused(loaded, tmp_path):
    save_weights(tmp_path / "other.pt", MotionEncoders(64).state_dict(), {})
    with pytest.raises(CheckpointError, match="mosam train motion --model nano"):
        load_motion_encoders(loaded, tmp_path / "other.pt")
