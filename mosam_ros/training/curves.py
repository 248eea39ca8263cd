"""The curves of a training run, drawn from its log."""

from __future__ import annotations

import json
from itertools import groupby
from pathlib import Path

import numpy as np

WINDOW = 25
"""Steps that a point of a curve is the mean of."""

PANELS = {"loss": "loss", "mean_iou": "IoU of the masks", "presence": "loss of the object score"}
"""Key in the log → title."""


def read_log(log: Path) -> dict[str, list[dict]]:
    """The rows of a log by stage, in the order of training.

    A run that was stopped has logged the steps after its last checkpoint twice: the later row
    counts.
    """
    rows = {}
    for line in log.read_text().splitlines():
        row = json.loads(line)
        rows[row["stage"], row["step"]] = row
    return {stage: list(part) for stage, part in groupby(rows.values(), lambda row: row["stage"])}


def plot_curves(log: Path, picture: Path) -> None:
    """Draw loss, IoU and object-score loss over the hours of a run, a color for each stage.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(PANELS), figsize=(5 * len(PANELS), 4))
    for stage, rows in read_log(log).items():
        hours = _means([row["seconds"] / 3600 for row in rows])
        for panel, key in zip(panels, PANELS, strict=True):
            panel.plot(hours, _means([row[key] for row in rows]), label=stage)
    for panel, title in zip(panels, PANELS.values(), strict=True):
        panel.set(title=title, xlabel="hours of training")
    panels[0].set_yscale("log")
    panels[0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(picture, dpi=100)
    plt.close(figure)


def _means(values: list[float]) -> list[float]:
    return [float(np.mean(values[i : i + WINDOW])) for i in range(0, len(values), WINDOW)]
