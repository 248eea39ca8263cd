"""J&F of every part of MoSAM beside plain SAM 2 on the same weights: table 4 and figure 4.

python benchmarks/ablation.py --clips 60 --seed 0 --sweeps --json ablation.json --plots plots

Results of single clips go to a CSV file as they come; the same command goes on where it stopped.
Start with a new CSV file after a change of the tracker's code.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from mosam_ros.evaluation.ablation import (
    BASE,
    FIGURE_PANELS,
    FULL,
    ClipResult,
    ResultFile,
    fingerprint,
    gain,
    make_clip,
    score_clip,
    summarize,
    sweep_rows,
    table_rows,
)
from mosam_ros.mosam.checkpoints import LoadedModel, load_model
from mosam_ros.mosam.tracker import TrackerConfig

Rows = dict[str, TrackerConfig]


def chosen_rows(names: list[str] | None, sweeps: bool) -> Rows:
    """The rows asked for, by name or all of the table, and those of the sweeps."""
    table = table_rows()
    swept = {name: config for s in sweep_rows().values() for name, config in s.values()}
    known = table | {name: config for name, config in swept.items() if name not in table}
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        raise SystemExit(f"no row {', '.join(unknown)}; there are {', '.join(known)}")
    rows = {name: known[name] for name in names} if names else table
    return {name: known[name] for name in [*rows, *(swept if sweeps else [])]}


def run(loaded: LoadedModel, rows: Rows, options: argparse.Namespace) -> dict:
    """Fill the gaps in the CSV file; row → clip → result."""
    file = ResultFile(options.csv)
    model = fingerprint(loaded)
    identity = (model, options.seed, options.size, options.clips)
    done = file.select(rows, *identity)
    total = options.clips * len(rows)
    missing = total - sum(map(len, done.values()))
    with tqdm(total=total, initial=total - missing, desc="clips x rows") as progress:
        for index in range(options.clips):
            pending = [name for name in rows if index not in done[name]]
            if not pending:
                continue
            clip = make_clip(index, options.seed, options.size)
            for name in pending:
                progress.set_postfix_str(f"{clip.scenario}, {name}")
                file.add(score_clip(loaded, model, name, rows[name], clip, options.seed))
                progress.update()
    return file.select(rows, *identity)


def report(results: Mapping[str, Mapping[int, ClipResult]], options: argparse.Namespace) -> dict:
    """All figures."""
    rows = summarize(results)
    figures: dict = {
        "model": options.model,
        "clips": options.clips,
        "seed": options.seed,
        "size": options.size,
        "rows": {n: row for n, row in rows.items() if n in table_rows() or not options.sweeps},
        "sweeps": {
            setting: {f"{value:g}": rows[name] for value, (name, _) in values.items()}
            for setting, values in sweep_rows().items()
            if all(name in rows for name, _ in values.values())
        },
    }
    if BASE in rows and FULL in rows:
        figures["gain"] = gain(results[FULL], results[BASE]).as_dict()
    if FULL in rows:
        figures["full_over"] = {
            name: gain(results[FULL], results[name]).as_dict()
            for name in figures["rows"]
            if name != FULL
        }
    return figures


def print_table(figures: Mapping) -> None:
    """Rows with intervals, then the sweeps."""
    print(
        f"\n{'':16} {'J&F':>6} {'95 %':>13} {'J':>6} {'F':>6} {'seen':>6} "
        f"{f'over {BASE}':>9} {'95 %':>14} {f'{FULL} over it':>13} {'95 %':>14}"
    )
    for name, row in figures["rows"].items():
        interval = f"{100 * row['ci_low']:.1f}-{100 * row['ci_high']:.1f}"
        line = f"{name:16} {100 * row['jf']:6.1f} {interval:>13} " + " ".join(
            f"{100 * row[part]:6.1f}" for part in ("j", "f", "jf_seen")
        )
        line += _points(row.get("gain") if name != BASE else None, 9)
        line += _points(figures.get("full_over", {}).get(name), 13)
        print(line)
    for setting, values in figures["sweeps"].items():
        cells = "  ".join(f"{value}: {100 * row['jf']:.1f}" for value, row in values.items())
        print(f"{setting:20} {cells}")


def _points(estimate: Mapping[str, float] | None, width: int) -> str:
    """A gain with its interval, in columns."""
    if estimate is None:
        return " " * (width + 16)
    interval = f"{estimate['ci_low']:+.1f} … {estimate['ci_high']:+.1f}"
    return f" {estimate['jf']:+{width}.1f} {interval:>14}"


def plot(figures: Mapping, folder: Path) -> None:
    """rows.png as table 4, and sweeps.png as figure 4 where the sweeps were run."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(10, 4), layout="constrained")
    names, rows = list(figures["rows"]), list(figures["rows"].values())
    axes.bar(names, [100 * r["jf"] for r in rows], yerr=_bars(rows), capsize=4, color="tab:blue")
    axes.set_ylabel("J&F, 95 % interval over clips")
    axes.set_ylim(max(0, 100 * min(r["ci_low"] for r in rows) - 5), None)
    figure.savefig(folder / "rows.png", dpi=120)
    plt.close(figure)
    if not figures["sweeps"]:
        return
    figure, panels = plt.subplots(1, len(FIGURE_PANELS), figsize=(14, 3.5), layout="constrained")
    for axes, (panel, settings) in zip(panels, FIGURE_PANELS.items(), strict=True):
        for setting in settings:
            values = figures["sweeps"].get(setting, {})
            points = [100 * row["jf"] for row in values.values()]
            axes.plot([float(v) for v in values], points, "o-", label=setting)
        axes.set_title(f"({panel})")
        axes.set_ylabel("J&F")
        axes.legend()
    figure.savefig(folder / "sweeps.png", dpi=120)
    plt.close(figure)


def _bars(rows: list[dict]) -> list[list[float]]:
    """Lengths of the error bars below and above the means."""
    below = [100 * (r["jf"] - r["ci_low"]) for r in rows]
    return [below, [100 * (r["ci_high"] - r["jf"]) for r in rows]]


def read_options() -> argparse.Namespace:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the clips, 0 … 400")
    parser.add_argument("--model", default="nano")
    parser.add_argument("--weights", type=Path, help="the bundled ones if not given")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--size", type=int, help="side of the clips in pixels; the model's own")
    parser.add_argument("--rows", help="names with commas between; all of table 4 if not given")
    parser.add_argument("--sweeps", action="store_true", help="also the sweeps of figure 4")
    parser.add_argument("--csv", type=Path, help="results by clip; beside --json if not given")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="also draw plots there")
    options = parser.parse_args()
    if options.clips < 1 or not 0 <= options.seed <= 400:
        parser.error("--clips is 1 or more, --seed 0 … 400")
    if options.csv is None and options.json is not None:
        options.csv = options.json.with_suffix(".csv")
    return options


def main() -> None:
    options = read_options()
    rows = chosen_rows(options.rows.split(",") if options.rows else None, options.sweeps)
    loaded = load_model(options.model, options.weights, options.device)
    options.size = options.size or loaded.model.image_size
    figures = report(run(loaded, rows, options), options)
    print_table(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if options.plots:
        plot(figures, options.plots)


if __name__ == "__main__":
    main()
