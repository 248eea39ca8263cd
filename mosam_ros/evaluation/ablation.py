"""What every part of MoSAM contributes: the rows of the paper's table 4, the sweeps of figure 4.

Clips are synthetic and held out: the target is hidden, leaves the image or moves among look-alikes.
It is prompted with its true mask in the first frame. J, F and J&F are means over all frames after
that one. A frame in which the target is hidden counts like any other: an empty mask scores 1 there,
any other mask 0.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mosam_ros.evaluation.metrics import boundary_f, mask_iou
from mosam_ros.mosam.checkpoints import LoadedModel
from mosam_ros.mosam.prompts import Prompt
from mosam_ros.mosam.tracker import MosamTracker, TrackerConfig, ViewConfig
from mosam_ros.synthetic import (
    FIRST_HELD_OUT_SEED,
    SCENARIOS,
    TARGET,
    SceneFrame,
    SyntheticScene,
)

BASE = "sam2"
FULL = "mosam"

CLIP_FRAMES = 48

ABLATION_SCENARIOS = ("full_occlusion", "lookalikes", "exit_reentry", "partial_occlusion")
"""Those of `SCENARIOS` that the clips show, in turn; the caller sets the image size."""

CANDIDATES = 200
"""Scenes that belong to one clip; the first that fits is taken."""

HIDING = ("full_occlusion", "exit_reentry")
"""Scenarios whose clips have frames without the target."""

WHOLE_FRAMES = ViewConfig(max_zoom=1.0)
"""As in SAM 2 and in the paper."""

PAPER_RANK_THRESHOLD = 0.6
"""Of figure 4d."""

BOOTSTRAP_SAMPLES = 10_000


@dataclass(frozen=True)
class AblationClip:
    """A clip to track the target in.

    Attributes:
        index: its number among the clips of a seed.
        scenario: one of `ABLATION_SCENARIOS`.
        frames: rendered, with the truth; the target is whole in the first one.
    """

    index: int
    scenario: str
    frames: list[SceneFrame]


@dataclass(frozen=True)
class ClipResult:
    """One row of the table on one clip; also one line of the CSV file.

    Attributes:
        model: which weights, as from `fingerprint`.
        seed, size, clip, scenario: which clip; `size` is its side in pixels.
        row: name of the settings.
        settings: which settings, as from `describe`.
        j, f, jf: means over the frames after the prompted one, 0..1.
        jf_seen: the same over frames in which the target is in sight.
        absent: share of frames without the target whose mask is empty; NaN without such frames.
    """

    model: str
    seed: int
    size: int
    clip: int
    scenario: str
    row: str
    settings: str
    j: float
    f: float
    jf: float
    jf_seen: float
    absent: float


def table_rows() -> dict[str, TrackerConfig]:
    """The rows of table 4: sparse motion SM, dense motion DM, temporal and spatial selection TS and
    SS, all on whole frames. `views` is plain SAM 2 that looks at small targets more closely, and
    `mosam` the tracker as it comes: the four parts, views, and doubtful masks are not shown
    (`doubt_frames`). Rows `as written` have the paper's rules where the tracker has settings that
    read them otherwise.
    """
    return {
        BASE: TrackerConfig.sam2(),
        "SM": _parts(sparse=True),
        "DM": _parts(dense=True),
        "SM+DM": _parts(sparse=True, dense=True),
        "TS": _parts(temporal=True),
        "SS": _parts(spatial=True),
        "SM+DM+TS": _parts(sparse=True, dense=True, temporal=True),
        "SM+DM+SS": _parts(sparse=True, dense=True, spatial=True),
        "SM+DM+TS+SS": _parts(sparse=True, dense=True, temporal=True, spatial=True),
        "views": replace(TrackerConfig.sam2(), view=ViewConfig()),
        "SM+DM+TS+SS+views": replace(TrackerConfig(), doubt_frames=0),
        FULL: TrackerConfig(),
        "SM+DM as written": _as_written(_parts(sparse=True, dense=True)),
        "TS as written": _as_written(_parts(temporal=True)),
        "mosam as written": _as_written(TrackerConfig()),
    }


def _as_written(config: TrackerConfig) -> TrackerConfig:
    """With the paper's rules of prompting and of temporal selection."""
    motion = replace(
        config.motion, prompt_iou=0.0, max_overlap=1.0, min_area_ratio=0.0, min_iou_ratio=0.0
    )
    memory = replace(
        config.memory,
        keep_absent=0,
        keep_unsure=False,
        min_score_ratio=0.0,
        rank_threshold=PAPER_RANK_THRESHOLD,
    )
    return replace(config, motion=motion, memory=memory, view=WHOLE_FRAMES, doubt_frames=0)


def _parts(
    sparse: bool = False, dense: bool = False, temporal: bool = False, spatial: bool = False
) -> TrackerConfig:
    """The tracker as it comes with only these parts switched on."""
    full = TrackerConfig()
    motion = replace(full.motion, sparse=sparse, dense=dense)
    memory = replace(full.memory, temporal=temporal, spatial=spatial)
    return replace(full, motion=motion, memory=memory, view=WHOLE_FRAMES, doubt_frames=0)


MOTION_SWEEPS: dict[str, tuple[float, ...]] = {
    "num_key_points": (1, 5, 9, 13),
    "flow_interval": (1, 2, 3, 4),
}
MEMORY_SWEEPS: dict[str, tuple[float, ...]] = {
    "iou_threshold": (0.5, 0.6, 0.7, 0.8, 0.9),
    "occlusion_threshold": (-1.0, 0.0, 1.0, 2.0),
    "rank_threshold": (0.4, 0.5, 0.6, 0.7, 0.8),
}
FIGURE_PANELS: dict[str, tuple[str, ...]] = {
    "a": ("num_key_points",),
    "b": ("flow_interval",),
    "c": ("iou_threshold", "occlusion_threshold"),
    "d": ("rank_threshold",),
}
"""The settings swept in each panel of figure 4."""


def sweep_rows() -> dict[str, dict[float, tuple[str, TrackerConfig]]]:
    """The sweeps of figure 4 around the full tracker: setting → value → row name and settings; the
    default value is the row `mosam`.
    """
    full = TrackerConfig()
    sweeps: dict[str, dict[float, tuple[str, TrackerConfig]]] = {}
    for setting, values in {**MOTION_SWEEPS, **MEMORY_SWEEPS}.items():
        sweeps[setting] = {}
        for value in values:
            if setting in MOTION_SWEEPS:
                config = replace(full, motion=replace(full.motion, **{setting: value}))
            else:
                config = replace(full, memory=replace(full.memory, **{setting: value}))
            name = FULL if config == full else f"{setting}={value:g}"
            sweeps[setting][value] = name, config
    return sweeps


def fingerprint(loaded: LoadedModel) -> str:
    """A short hash of a model's name, its zoom and its weights."""
    digest = hashlib.sha256(f"{loaded.name} {loaded.max_zoom}".encode())
    for name, tensor in sorted(loaded.model.base.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:12]


def describe(config: TrackerConfig) -> str:
    """A short hash of all settings."""
    return hashlib.sha256(repr(config).encode()).hexdigest()[:12]


def make_clip(index: int, seed: int, size: int, num_frames: int = CLIP_FRAMES) -> AblationClip:
    """Render clip `index` of a seed, `size` pixels square: the first of its candidate scenes whose
    truth is as the scenario promises.

    Raises:
        ValueError: none is, as in clips of too few frames.
    """
    scenario = ABLATION_SCENARIOS[index % len(ABLATION_SCENARIOS)]
    config = replace(SCENARIOS[scenario], height=size, width=size, num_frames=num_frames)
    candidate = FIRST_HELD_OUT_SEED + 500_000_000 + seed * 1_000_000 + index * CANDIDATES
    for scene_seed in range(candidate, candidate + CANDIDATES):
        scene = SyntheticScene(scene_seed, config)
        first = scene.frame(0)
        if first.visibility[TARGET] < 0.8 or first.masks[TARGET].mean() < 0.004:
            continue
        frames = [first, *(scene.frame(t) for t in range(1, num_frames))]
        if _fits(frames, scenario):
            return AblationClip(index, scenario, frames)
    raise ValueError(f"no scene of {num_frames} frames shows {scenario}: take more frames")


def _fits(frames: Sequence[SceneFrame], scenario: str) -> bool:
    """Whether the target is in sight half of the time and at the end, and hidden where it should
    be.
    """
    visibility = np.array([frame.visibility[TARGET] for frame in frames])
    hides = scenario not in HIDING or bool((visibility == 0).any())
    return hides and np.mean(visibility > 0.3) >= 0.5 and bool((visibility[-3:] > 0.3).all())


def track_clip(
    loaded: LoadedModel, config: TrackerConfig, clip: AblationClip
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Track a clip's target from its true first mask.

    Returns:
        scores (T - 1, 2), J and F of every frame after the first, and (T - 1,) whether the target
        is in sight there.
    """
    tracker = MosamTracker(loaded, config)
    tracker.add(Prompt.from_mask(clip.frames[0].masks[TARGET]))
    scores, seen = [], []
    for index, frame in enumerate(clip.frames):
        mask = tracker.track(frame.image).targets[0].mask
        if index:
            truth = frame.masks[TARGET]
            scores.append((mask_iou(mask, truth), boundary_f(mask, truth)))
            seen.append(bool(truth.any()))
    return np.array(scores), np.array(seen)


def score_clip(
    loaded: LoadedModel,
    model: str,
    row: str,
    config: TrackerConfig,
    clip: AblationClip,
    seed: int,
) -> ClipResult:
    """Track one clip with one row's settings; `model` is the fingerprint of `loaded`."""
    scores, seen = track_clip(loaded, config, clip)
    both = scores.mean(axis=1)
    hidden = both[~seen]
    return ClipResult(
        model=model,
        seed=seed,
        size=clip.frames[0].image.shape[0],
        clip=clip.index,
        scenario=clip.scenario,
        row=row,
        settings=describe(config),
        j=round(float(scores[:, 0].mean()), 6),
        f=round(float(scores[:, 1].mean()), 6),
        jf=round(float(both.mean()), 6),
        jf_seen=round(float(both[seen].mean()), 6),
        absent=round(float(hidden.mean()), 6) if len(hidden) else float("nan"),
    )


class ResultFile:
    """Results in a CSV file, appended one by one, so that a broken run goes on where it stopped.

    Results are known by weights, settings and clip. A change of the tracker's code is not seen:
    start a new file then.

    Args:
        path: of the file, made with the first result; None keeps results in memory only.

    Raises:
        ValueError: the file holds something else.
    """

    COLUMNS = [field.name for field in fields(ClipResult)]

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self.results: list[ClipResult] = []
        if path is not None and path.is_file() and path.stat().st_size:
            self.results = self._read(path)

    def _read(self, path: Path) -> list[ClipResult]:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != self.COLUMNS:
                raise ValueError(f"{path} holds no ablation results of this version: move it away")
            try:
                return [_result(line) for line in reader]
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num} is broken: delete it") from error

    def add(self, result: ClipResult) -> None:
        """Keep a result."""
        self.results.append(result)
        if self._path is None:
            return
        is_new = not self._path.is_file() or not self._path.stat().st_size
        with self._path.open("a", newline="") as file:
            writer = csv.DictWriter(file, self.COLUMNS)
            if is_new:
                writer.writeheader()
            writer.writerow(asdict(result))

    def select(
        self, rows: Mapping[str, TrackerConfig], model: str, seed: int, size: int, num_clips: int
    ) -> dict[str, dict[int, ClipResult]]:
        """Results of these rows on the first `num_clips` clips: row → clip → result."""
        settings = {row: describe(config) for row, config in rows.items()}
        chosen: dict[str, dict[int, ClipResult]] = {row: {} for row in rows}
        for r in self.results:
            same_run = (r.model, r.seed, r.size) == (model, seed, size) and r.clip < num_clips
            if same_run and settings.get(r.row) == r.settings:
                chosen[r.row][r.clip] = r
        return chosen


def _result(line: Mapping[str, str]) -> ClipResult:
    types = {"int": int, "float": float, "str": str}
    return ClipResult(**{f.name: types[str(f.type)](line[f.name]) for f in fields(ClipResult)})


@dataclass(frozen=True)
class Estimate:
    """A mean over clips and its bootstrap interval of 95 %.

    Attributes:
        mean, low, high: in the unit of the values.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Estimate:
        """Resample clips with replacement, always with the same random numbers."""
        data = np.array(list(values), dtype=np.float64)
        picks = np.random.default_rng(0).integers(0, len(data), (BOOTSTRAP_SAMPLES, len(data)))
        low, high = np.percentile(data[picks].mean(axis=1), [2.5, 97.5])
        return cls(float(data.mean()), float(low), float(high))

    def as_dict(self) -> dict[str, float]:
        """As it stands in the JSON report."""
        return {
            "jf": round(self.mean, 5),
            "ci_low": round(self.low, 5),
            "ci_high": round(self.high, 5),
        }


def summarize(results: Mapping[str, Mapping[int, ClipResult]]) -> dict[str, dict]:
    """By row: J&F (0..1) with its interval, J, F, their parts, means by scenario, and the `gain` in
    points (100 times J&F) over `sam2` on the same clips, where that row is there.
    """
    base = results.get(BASE, {})
    rows = {}
    for name, by_clip in results.items():
        if not by_clip:
            continue
        scored = list(by_clip.values())
        row: dict = Estimate.of(r.jf for r in scored).as_dict()
        for part in ("j", "f", "jf_seen", "absent"):
            values = [getattr(r, part) for r in scored]
            row[part] = None if np.isnan(values).all() else round(float(np.nanmean(values)), 5)
        row["clips"] = len(scored)
        row["scenarios"] = {
            scenario: round(float(np.mean([r.jf for r in scored if r.scenario == scenario])), 5)
            for scenario in dict.fromkeys(r.scenario for r in scored)
        }
        if base.keys() & by_clip.keys():
            row["gain"] = gain(by_clip, base).as_dict()
        rows[name] = row
    return rows


def gain(ours: Mapping[int, ClipResult], theirs: Mapping[int, ClipResult]) -> Estimate:
    """What one row has over another on the clips that both have, paired, in points of J&F."""
    shared = sorted(ours.keys() & theirs.keys())
    return Estimate.of(100 * (ours[clip].jf - theirs[clip].jf) for clip in shared)
