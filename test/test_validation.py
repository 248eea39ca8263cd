"""What a model is worth on held-out clips, and the card that says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mosam_ros.evaluation.metrics import mask_iou
from mosam_ros.mosam.checkpoints import load_model, read_metadata, save_weights
from mosam_ros.synthetic import TARGET
from mosam_ros.training.release import mean_weights, model_card, release
from mosam_ros.training.validate import (
    ClipScore,
    format_report,
    held_out_clips,
    rank_correlation,
    summarize,
    validate,
)

NUMBERS = {"command": "mosam train base", "training_hours": 1.5, "seed": 0, "note": "A note."}
STAGE = {
    **{"name": "images", "size": 64, "clip_length": 3, "num_clips": 2, "num_targets": 2},
    "steps": 7,
}


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


def clip_score(scenario: str, iou: list[float], repeated: float) -> ClipScore:
    """One clip with a frame for each IoU; NaN: the target is hidden there."""
    ious = np.array(iou)
    hidden = np.isnan(ious)
    return ClipScore(
        scenario,
        ious,
        np.where(hidden, np.nan, repeated),
        predicted_iou=np.nan_to_num(ious),
        seen=np.arange(len(ious)) % 2 == 0,
        hidden=hidden,
    )


def test_means_are_over_clips_scenarios_and_groups_of_frames():
    clips = [
        clip_score("easy", [0.8] * 10 + [0.6] * 10, 0.4),
        clip_score("exit_reentry", [0.5] * 10 + [np.nan] * 8 + [0.3] * 2, 0.1),
        clip_score("exit_reentry", [0.9] * 10 + [np.nan] * 10, 0.2),
    ]
    report = summarize({"mask": clips, "box": clips}, {"mask": [True, False], "box": []})
    assert report["mask"]["iou_visible"] == pytest.approx((0.7 + 5.6 / 12 + 0.9) / 3, abs=1e-4)
    assert report["mask"]["first_mask_repeated"] == pytest.approx(0.7 / 3, abs=1e-4)
    assert report["mask"]["prompt_moves_mask"] == 0.5 and report["box"]["prompt_moves_mask"] is None
    exits = report["scenarios"]["exit_reentry"]
    assert exits["mask"] == exits["box"] == pytest.approx((5.6 / 12 + 0.9) / 2, abs=1e-4)
    assert exits["first_mask_repeated"] == pytest.approx(0.15)
    assert list(report["frames"]) == ["1-10", "11-20"]
    assert report["frames"]["1-10"]["mask"] == pytest.approx((0.8 + 0.5 + 0.9) / 3, abs=1e-4)
    assert report["frames"]["11-20"]["mask"] == pytest.approx((0.6 + 0.3) / 2), "two clips show it"
    assert report["frames"]["11-20"]["first_mask_repeated"] == pytest.approx(0.25)
    assert report["hidden_frames"] == 18, "however often a clip is tracked"
    assert report["presence_hidden"] == pytest.approx(0.5)
    assert report["iou_rank_correlation"] == pytest.approx(1)
    assert report["iou_calibration_error"] == 0


def test_a_checkpoint_is_released_with_its_figures_and_its_card(tmp_path):
    loaded = load_model("nano", device="cpu")
    metadata = NUMBERS | {"stages": [STAGE]}
    save_weights(tmp_path / "stage0.pt", loaded.model.base.state_dict(), metadata)
    released = tmp_path / "package" / "nano.pt"
    released.parent.mkdir()
    release([tmp_path / "stage0.pt"], released, num_clips=2, seed=3, note="A note.")

    assert load_model("nano", released, device="cpu").model.image_size == 256
    figures = json.loads(released.with_suffix(".json").read_text())
    assert read_metadata(released) == figures
    report = figures["validation"]
    for kind in ("mask", "box", "point"):
        assert report[kind]["iou_visible"] > report[kind]["first_mask_repeated"]
    assert list(report["scenarios"]) == ["easy", "lookalikes"]
    assert list(report["frames"]) == ["1-10", "11-20", "21-30", "31-39"]
    text = format_report(report)
    assert "rank correlation" in text and "frames 31-39" in text
    card = released.with_suffix(".md").read_text()
    assert card == model_card(figures)
    assert "| images | 64 | 3 | 2 x 2 | 7 |" in card and "\nA note.\n" in card
    row = report["scenarios"]["lookalikes"]
    cells = " | ".join(f"{row[k]:.2f}" for k in ("mask", "box", "point", "first_mask_repeated"))
    assert f"| lookalikes | {cells} |" in card


def test_of_several_checkpoints_the_mean_is_released(tmp_path):
    state = load_model("nano", device="cpu").model.base.state_dict()
    paths = [tmp_path / "stage0.pt", tmp_path / "stage1.pt"]
    for path, shift in zip(paths, (0.0, 0.5), strict=True):
        moved = {k: v + shift if v.is_floating_point() else v for k, v in state.items()}
        save_weights(path, moved, NUMBERS | {"stages": [STAGE]})
    mean = mean_weights(paths, [1, 3])
    for name, value in state.items():
        expected = value + 0.375 if value.is_floating_point() else value
        torch.testing.assert_close(mean[name], expected, atol=2e-3, rtol=2e-3)

    released = tmp_path / "nano.pt"
    release(paths, released, num_clips=1, seed=3, shares=[1, 3])
    shipped = torch.load(released, weights_only=True)["model"]
    name = "no_obj_ptr"
    torch.testing.assert_close(shipped[name].float(), mean[name], atol=2e-3, rtol=2e-3)
    made_by = "mosam train release stage0 stage1 --shares 1 3"
    assert made_by in released.with_suffix(".md").read_text()


@pytest.mark.parametrize("shares", [[1], [1, 2, 3], [1, 0], [1, -1]])
def test_every_checkpoint_needs_a_share(shares):
    with pytest.raises(ValueError, match="2 checkpoints need as many positive shares"):
        mean_weights([Path("stage0.pt"), Path("stage1.pt")], shares)


def test_the_validation_command_writes_its_figures(tmp_path, capsys):
    from mosam_ros.training import validate as module

    module.main(["--clips", "1", "--seed", "5", "--json", str(tmp_path / "figures.json")])
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report == validate(load_model("nano"), 1, 5)
    assert "presence right on" in capsys.readouterr().out
