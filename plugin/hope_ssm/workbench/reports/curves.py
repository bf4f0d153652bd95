"""The picture of a report: metrics against the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hope_ssm.reporting.plots import band, pyplot, save
from hope_ssm.workbench.reports.rows import Row


def draw_curves(table: Sequence[Row], metric: str, path: Path) -> None:
    """Save a metric and the training loss against the epoch, mean and standard deviation over the runs of each row.

    Args:
        table: rows of a report.
        metric: in the metrics.csv of every run.
        path: of the picture.
    """
    histories = [[run.epochs for run in row.runs] for row in table]
    figure, panels = pyplot().subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    for panel, name in zip(panels, (metric, "train/loss"), strict=True):
        for row, runs in zip(table, histories, strict=True):
            curves = [{line["epoch"]: line[name] for line in epochs if name in line} for epochs in runs]
            shared = sorted(set.intersection(*(set(curve) for curve in curves)))
            values = np.array([[curve[epoch] for epoch in shared] for curve in curves])
            band(panel, np.array(shared) + 1, values, marker="." if len(shared) < 30 else None, label=row.label)
        panel.set(xlabel="epoch", ylabel=name)
    panels[0].legend(loc="best", frameon=False, fontsize=9)
    save(figure, path)
