"""What each part contributes: settings of the rows, the clips, resuming, and the figures."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mosam_ros.evaluation import ablation
from mosam_ros.evaluation.ablation import (
    ABLATION_SCENARIOS,
    BASE,
    FIGURE_PANELS,
    FULL,
    HIDING,
    AblationClip,
    ClipResult,
    Estimate,
    ResultFile,
    describe,
    fingerprint,
    gain,
    make_clip,
    score_clip,
    summarize,
    sweep_rows,
    table_rows,
)
from mosam_ros.mosam.checkpoints import LoadedModel, load_model
from mosam_ros.mosam.tracker import TrackerConfig, ViewConfig
from mosam_ros.synthetic import TARGET, SceneFrame

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "ablation.py"


def test_the_rows_are_those_of_table_4():
    rows = table_rows()
    names = ["sam2", "SM", "DM", "SM+DM", "TS", "SS", "SM+DM+TS", "SM+DM+SS", "SM+DM+TS+SS"]
    written = ["SM+DM as written", "TS as written", "mosam as written"]
    assert list(rows) == [*names, "views", "SM+DM+TS+SS+views", "mosam", *written]
    assert rows["sam2"] == TrackerConfig.sam2() and rows["mosam"] == TrackerConfig()
    whole_frames = ViewConfig(max_zoom=1.0)
    assert rows["views"] == replace(TrackerConfig.sam2(), view=ViewConfig())
    assert rows["SM+DM+TS+SS+views"] == replace(rows["mosam"], doubt_frames=0)
    assert rows["SM+DM+TS+SS"] == replace(rows["mosam"], view=whole_frames, doubt_frames=0)
    for name in names[1:]:
        assert rows[name].doubt_frames == 0 and rows[name].view == whole_frames
        motion, memory = rows[name].motion, rows[name].memory
        parts = {
            "SM": motion.sparse,
            "DM": motion.dense,
            "TS": memory.temporal,
            "SS": memory.spatial,
        }
        assert {part for part, on in parts.items() if on} == set(name.split("+"))
    assert rows["TS as written"].memory.keep_absent == 0 and not rows["TS as written"].motion.sparse
    assert rows["mosam as written"] == replace(
        rows["mosam"],
        motion=replace(
            rows["mosam"].motion,
            prompt_iou=0.0,
            max_overlap=1.0,
            min_area_ratio=0.0,
            min_iou_ratio=0.0,
        ),
        memory=replace(
            rows["mosam"].memory,
            keep_absent=0,
            keep_unsure=False,
            min_score_ratio=0.0,
            rank_threshold=0.6,
        ),
        view=whole_frames,
        doubt_frames=0,
    )
    assert rows["SM+DM as written"].motion.max_overlap == 1.0


def test_a_sweep_changes_one_setting_and_meets_the_full_tracker():
    full = TrackerConfig()
    sweeps = sweep_rows()
    assert set(sweeps) == {setting for panel in FIGURE_PANELS.values() for setting in panel}
    for setting, values in sweeps.items():
        owner = "motion" if hasattr(full.motion, setting) else "memory"
        default = getattr(getattr(full, owner), setting)
        assert values[default] == (FULL, full)
        for value, (_, config) in values.items():
            assert getattr(getattr(config, owner), setting) == value
            part = replace(getattr(config, owner), **{setting: default})
            assert replace(config, **{owner: part}) == full


@pytest.mark.parametrize("index", range(4))
def test_clips_show_what_their_scenario_says(index):
    clip = make_clip(index, 0, 64)
    visibility = np.array([frame.visibility[TARGET] for frame in clip.frames])
    assert clip.scenario == ABLATION_SCENARIOS[index]
    assert visibility[0] > 0.8 and visibility[-1] > 0.3
    assert (visibility == 0).any() or clip.scenario not in HIDING
    again = make_clip(index, 0, 64)
    assert all((a.image == b.image).all() for a, b in zip(clip.frames, again.frames, strict=True))


def test_other_seeds_show_other_clips():
    first, second = (make_clip(2, seed, 64).frames[0].image for seed in (0, 1))
    assert (first != second).any()


def test_a_clip_that_cannot_be_is_an_error(monkeypatch):
    monkeypatch.setattr(ablation, "CANDIDATES", 3)
    with pytest.raises(ValueError, match="no scene of 3 frames shows full_occlusion"):
        make_clip(0, 0, 32, num_frames=3)


def result(clip: int, row: str, jf: float, scenario: str = "exit") -> ClipResult:
    config = table_rows().get(row, TrackerConfig())
    absent = float("nan") if scenario == "lookalikes" else 0.5
    return ClipResult(
        "weights", 0, 64, clip, scenario, row, describe(config), jf, jf, jf, jf, absent
    )


def test_results_go_on_where_they_stopped(tmp_path):
    path = tmp_path / "results.csv"
    kept = [result(0, BASE, 0.4), result(1, BASE, 0.5, "lookalikes"), result(0, FULL, 0.6)]
    file = ResultFile(path)
    for r in kept:
        file.add(r)
    ResultFile(path).add(result(2, FULL, 0.7))
    read = ResultFile(path)
    assert repr(read.results) == repr([*kept, result(2, FULL, 0.7)])
    rows = table_rows()
    chosen = read.select({name: rows[name] for name in (BASE, FULL)}, "weights", 0, 64, 2)
    assert {name: sorted(clips) for name, clips in chosen.items()} == {BASE: [0, 1], FULL: [0]}


@pytest.mark.parametrize(
    "run", [("others", 0, 64, 3), ("weights", 1, 64, 3), ("weights", 0, 32, 3)]
)
def test_results_of_another_run_do_not_count(run):
    file = ResultFile()
    file.add(result(0, FULL, 0.6))
    assert file.select({FULL: TrackerConfig()}, *run) == {FULL: {}}
    changed = replace(TrackerConfig(), lost_after=7)
    assert file.select({FULL: changed}, "weights", 0, 64, 3) == {FULL: {}}


def test_a_foreign_or_broken_file_is_named(tmp_path):
    foreign, broken = tmp_path / "foreign.csv", tmp_path / "broken.csv"
    foreign.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="foreign.csv holds no ablation results"):
        ResultFile(foreign)
    ResultFile(broken).add(result(0, FULL, 0.6))
    broken.write_text(broken.read_text() + "weights,0,64\n")
    with pytest.raises(ValueError, match="broken.csv, line 3 is broken"):
        ResultFile(broken)


def test_the_interval_is_that_of_the_clips():
    values = np.random.default_rng(1).normal(5.0, 2.0, 100)
    estimate = Estimate.of(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.high - estimate.mean == pytest.approx(half, rel=0.1)
    assert estimate.mean - estimate.low == pytest.approx(half, rel=0.1)
    assert Estimate.of([3.0] * 5) == Estimate(3.0, 3.0, 3.0)


def test_the_gain_is_paired_and_in_points():
    """Clips differ much, the rows on the same clip always by 0.05."""
    base = {clip: result(clip, BASE, 0.1 * clip) for clip in range(8)}
    full = {clip: result(clip, FULL, 0.1 * clip + 0.05) for clip in range(9)}
    found = gain(full, base)
    assert (found.mean, found.low, found.high) == pytest.approx((5.0, 5.0, 5.0))
    rows = summarize({BASE: base, FULL: full, "SM": {}})
    assert list(rows) == [BASE, FULL]
    assert rows[FULL]["gain"]["jf"] == pytest.approx(5.0)
    assert rows[BASE]["ci_low"] < rows[BASE]["jf"] == 0.35 < rows[BASE]["ci_high"]


def test_absence_is_unknown_where_the_target_is_always_in_sight():
    rows = summarize({FULL: {0: result(0, FULL, 0.5, "lookalikes")}})
    assert rows[FULL]["absent"] is None
    assert rows[FULL]["scenarios"] == {"lookalikes": 0.5}


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("nano", device="cpu")


def short_clip() -> AblationClip:
    """Four frames of a clip, the last one black and without the target."""
    clip = make_clip(2, 0, 96)
    frame = clip.frames[3]
    black = SceneFrame(
        np.zeros_like(frame.image), np.zeros_like(frame.masks), np.zeros_like(frame.visibility)
    )
    return replace(clip, frames=[*clip.frames[:3], black])


def test_a_clip_is_scored_after_its_first_frame(loaded):
    scored = score_clip(loaded, "weights", BASE, TrackerConfig.sam2(), short_clip(), 0)
    assert (scored.clip, scored.scenario, scored.size) == (2, "exit_reentry", 96)
    assert scored.absent in (0.0, 1.0) and scored.jf_seen > 0.5
    assert scored.jf == pytest.approx((2 * scored.jf_seen + scored.absent) / 3, abs=1e-5)
    assert scored.jf == pytest.approx((scored.j + scored.f) / 2, abs=1e-5)


def test_the_fingerprint_follows_the_weights(loaded):
    before = fingerprint(loaded)
    assert before == fingerprint(loaded) and len(before) == 12
    parameter = next(loaded.model.base.parameters())
    original = parameter.clone()
    parameter += 1.0
    changed = fingerprint(loaded)
    parameter.copy_(original)
    assert changed != before


def run_benchmark(monkeypatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["ablation.py", *map(str, arguments)])
    runpy.run_path(str(BENCHMARK), run_name="__main__")


def fill(path: Path, loaded: LoadedModel, num_clips: int) -> None:
    """All rows and sweeps, as if tracked."""
    configs = table_rows()
    configs |= {name: config for s in sweep_rows().values() for name, config in s.values()}
    file, model = ResultFile(path), fingerprint(loaded)
    for clip in range(num_clips):
        for number, (row, config) in enumerate(configs.items()):
            file.add(
                replace(
                    result(clip, row, 0.3 + 0.02 * number + 0.1 * clip),
                    model=model,
                    settings=describe(config),
                )
            )


def test_the_benchmark_resumes_reports_and_plots(tmp_path, monkeypatch, capsys, loaded):
    figures = tmp_path / "ablation.json"
    fill(tmp_path / "ablation.csv", loaded, 2)
    lines = (tmp_path / "ablation.csv").read_text()
    run_benchmark(
        monkeypatch,
        *("--clips", 2, "--size", 64, "--sweeps", "--device", "cpu"),
        *("--json", figures, "--plots", tmp_path / "plots"),
    )
    report = json.loads(figures.read_text())
    assert (tmp_path / "ablation.csv").read_text() == lines
    assert list(report["rows"]) == list(table_rows())
    number = list(table_rows()).index("mosam")
    assert report["rows"]["mosam"]["jf"] == pytest.approx(0.3 + number * 0.02 + 0.05)
    assert report["gain"]["jf"] == pytest.approx(2 * number)
    assert report["full_over"]["sam2"] == report["gain"] and "mosam" not in report["full_over"]
    assert report["full_over"]["TS"]["jf"] == pytest.approx(
        100 * (report["rows"]["mosam"]["jf"] - report["rows"]["TS"]["jf"])
    )
    assert set(report["sweeps"]) == set(sweep_rows())
    assert report["sweeps"]["num_key_points"]["5"] == report["rows"]["mosam"]
    assert {p.name for p in (tmp_path / "plots").iterdir()} == {"rows.png", "sweeps.png"}
    assert f"+{2 * number}.0" in capsys.readouterr().out


def test_the_benchmark_names_an_unknown_row(monkeypatch):
    with pytest.raises(SystemExit, match="no row XM; there are sam2, SM"):
        run_benchmark(monkeypatch, "--rows", "sam2,XM")
