"""The forecast beside simple rules: known answers, clean motion, files."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mosam_ros.evaluation.forecasts import (
    METHODS,
    PAST_MASKS,
    BoxKalman,
    BoxVelocity,
    LastBox,
    MosamForecast,
    SeenMask,
    measure,
    score_forecasts,
    summarize,
)
from mosam_ros.evaluation.motion_clips import (
    CLEAN_MOTIONS,
    camera_clip,
    clean_clip,
    object_clips,
    read_images,
    read_label_images,
)
from mosam_ros.mosam.motion.flow import DisFlow

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "motion_forecast.py"


def block(x: int, y: int = 30, width: int = 20) -> np.ndarray:
    mask = np.zeros((100, 200), bool)
    mask[y : y + 20, x : x + width] = True
    return mask


def forecast(forecaster, positions: list[int]) -> np.ndarray:
    for x in positions:
        forecaster.observe(SeenMask.of(block(x)))
    return forecaster.predict()


@pytest.mark.parametrize(
    ("forecaster", "left"),
    [
        (LastBox(), 60),
        (BoxVelocity(1), 60 + 30),
        (BoxVelocity(3), 60 + 50 / 3),
        (BoxVelocity(3, np.median), 60 + 12),
        (BoxVelocity(3, np.median, 0.5), 60 + 6),
    ],
)
def test_simple_rules_have_known_answers(forecaster, left):
    """Steps of 5 (too old for all), 8, 12 and 30 pixels."""
    box = forecast(forecaster, [5, 10, 18, 30, 60])
    np.testing.assert_allclose(box, [left, 30, left + 20, 50])


def test_edges_move_by_themselves():
    forecaster = BoxVelocity(1)
    for width in (20, 30):
        forecaster.observe(SeenMask.of(block(10, width=width)))
    np.testing.assert_allclose(forecaster.predict(), [10, 30, 50, 50])


def test_the_kalman_filter_learns_a_constant_velocity():
    early = forecast(BoxKalman(), [10, 15])
    late = forecast(BoxKalman(), list(range(10, 135, 5)))
    assert early[0] < 19
    np.testing.assert_allclose(late, [135, 30, 155, 50], atol=0.3)


def test_the_kalman_filter_weighs_position_and_velocity_by_their_noise():
    """By hand for a box of height 20: variances 4 and 1.5625 before the second mask, of noise 1."""
    before, moved = 4 + 1.5625 + 1, 1.5625
    gain, velocity_gain = before / (before + 1), moved / (before + 1)
    left = 10 + 8 * (gain + velocity_gain)
    assert forecast(BoxKalman(), [10, 18])[0] == pytest.approx(left)


@pytest.mark.parametrize("name", METHODS)
def test_a_target_out_of_sight_has_no_forecast(name):
    forecaster = METHODS[name]()
    forecaster.observe(SeenMask.of(block(10)))
    forecaster.observe(None)
    with pytest.raises(ValueError, match="last frame"):
        forecaster.predict()


@pytest.mark.parametrize("name", ["velocity_1", "velocity_3", "median_3", "kalman"])
def test_history_ends_where_the_target_is_out_of_sight(name):
    forecaster = METHODS[name]()
    forecast(forecaster, [10, 20, 30])
    forecaster.observe(None)
    np.testing.assert_allclose(forecast(forecaster, [100]), [100, 30, 120, 50])


def test_key_points_move_and_stretch_with_the_box():
    forecaster = BoxVelocity(1)
    for width in (20, 40):
        forecaster.observe(SeenMask.of(block(10, width=width)))
    points = forecaster.predict_key_points()
    np.testing.assert_allclose(points[0], [10 + 60 * 19.5 / 40, 39.5])


def test_only_frames_with_enough_past_masks_are_scored():
    positions = [10, 20, 30, 40, 50, 60, None, 80, 90, 100, 110, 120]
    clip = [None if x is None else SeenMask.of(block(x)) for x in positions]
    scores = score_forecasts(LastBox(), clip)
    assert PAST_MASKS == 4 and len(scores) == 2 + 1
    assert scores[0].iou == pytest.approx(1 / 3)
    assert scores[0].key_point_error == pytest.approx(10.0)
    row = summarize({"last_box": scores, "nothing": []})
    assert list(row) == ["last_box"]
    assert row["last_box"]["n"] == 3 and row["last_box"]["mean"] == pytest.approx(1 / 3, abs=1e-6)


@pytest.mark.parametrize("kind", CLEAN_MOTIONS)
def test_clean_motion_is_forecast(kind):
    scores = {name: [] for name in ("last_box", "kalman", "mosam")}
    for seed in range(4):
        seen = measure(clean_clip(kind, seed).masks)
        for name, kept in scores.items():
            kept += score_forecasts(METHODS[name](), seen)
    mean = {name: np.mean([s.iou for s in kept]) for name, kept in scores.items()}
    assert mean["mosam"] > mean["last_box"] + 0.10
    assert mean["mosam"] > mean["kalman"]


def test_clean_clips_are_whole_and_repeatable():
    clip = clean_clip("turning", 3)
    for mask in clip.masks:
        assert mask.any() and not (mask[[0, -1]].any() or mask[:, [0, -1]].any())
    np.testing.assert_array_equal(clip.masks, clean_clip("turning", 3).masks)
    with pytest.raises(ValueError, match="'jumps': take one of constant_velocity"):
        clean_clip("jumps", 0)


def test_flow_helps_under_a_moving_camera():
    scores = {False: [], True: []}
    for seed in range(2):
        clip = camera_clip(seed)
        seen = measure(clip.masks)
        for with_flow, kept in scores.items():
            ours = MosamForecast(DisFlow() if with_flow else None)
            kept += score_forecasts(ours, seen, clip.images)
    mean = {with_flow: np.mean([s.iou for s in kept]) for with_flow, kept in scores.items()}
    assert mean[True] > mean[False]


def write_masks(folder: Path, labels: list[np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for t, label in enumerate(labels):
        image = Image.fromarray(label)
        image.putpalette([i for color in range(256) for i in (color, 255 - color, 0)])
        image.save(folder / f"{t:05}.png")


def two_objects(t: int) -> np.ndarray:
    label = np.zeros((100, 200), np.uint8)
    label[block(10 + 6 * t)] = 1
    label[block(150 - 3 * t, y=60)] = 2
    label[:2] = 255
    return label


def test_every_object_of_label_images_is_a_clip(tmp_path):
    write_masks(tmp_path / "a", [two_objects(t) for t in range(3)])
    labels = read_label_images(tmp_path / "a")
    clips = list(object_clips(labels))
    assert len(clips) == 2 and all(len(clip.masks) == 3 for clip in clips)
    assert (clips[1].masks[2] == block(144, y=60)).all()
    with pytest.raises(ValueError, match="2 images do not go with 3 masks"):
        list(object_clips(labels, labels[:2]))
    for read in (read_label_images, read_images):
        with pytest.raises(FileNotFoundError):
            read(tmp_path)


def run_benchmark(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["motion_forecast.py", *map(str, arguments)])
    runpy.run_path(str(BENCHMARK), run_name="__main__")


def test_the_benchmark_reports_all_methods(tmp_path, monkeypatch, capsys):
    for name in ("first", "second"):
        write_masks(tmp_path / "masks" / name, [two_objects(t) for t in range(9)])
    figures = tmp_path / "figures.json"
    run_benchmark(monkeypatch, "--masks", tmp_path / "masks", "--json", figures)
    report = json.loads(figures.read_text())
    assert list(report["sequences"]) == ["first", "second"]
    for rows in (report["all"], *report["sequences"].values()):
        assert list(rows) == list(METHODS)
    assert report["all"]["mosam"]["n"] == 2 * 2 * 5
    assert report["all"]["velocity_1"]["mean"] == 1.0
    assert "half_median_3" in capsys.readouterr().out


def test_the_benchmark_compares_flow_on_a_video(tmp_path, monkeypatch):
    write_masks(tmp_path / "masks", [two_objects(t) for t in range(6)])
    write_masks(tmp_path / "images", [two_objects(t) for t in range(6)])
    figures = tmp_path / "figures.json"
    run_benchmark(
        monkeypatch, "--video", tmp_path / "images", tmp_path / "masks", "--json", figures
    )
    report = json.loads(figures.read_text())
    assert list(report["video"]) == [*METHODS, "mosam_flow"]


def test_the_benchmark_wants_something_to_measure(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run_benchmark(monkeypatch)
    assert "nothing to measure" in capsys.readouterr().err
