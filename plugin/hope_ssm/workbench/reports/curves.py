"""The picture of a report: metrics against the epoch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hope_ssm.reporting.plots import band, kernel_styles, pyplot, save
from hope_ssm.workbench.reports.names import heading, scale
from hope_ssm.workbench.reports.rows import Row


def draw_curves(table: Sequence[Row], metric: str, path: Path) -> None:
    """Save a metric and the training loss against the epoch, mean and standard deviation over the runs of each row.

    Every kernel has its colour.

    Args:
        table: rows of a report.
        metric: in the metrics.csv of every run.
        path: of the picture.
    """
    histories = [[run.epochs for run in row.runs] for row in table]
    figure, panels = pyplot().subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    styles = kernel_styles([row.kernel for row in table])
    for panel, name in zip(panels, (metric, "train/loss"), strict=True):
        for row, runs, style in zip(table, histories, styles, strict=True):
            curves = [{line["epoch"]: line[name] for line in epochs if name in line} for epochs in runs]
            shared = sorted(set.intersection(*(set(curve) for curve in curves)))
            values = scale(name)[0] * np.array([[curve[epoch] for epoch in shared] for curve in curves])
            marker = "." if len(shared) < 30 else None
            band(panel, np.array(shared) + 1, values, marker=marker, label=row.label, **style)
        panel.set(xlabel="epoch", ylabel=heading(name))
    panels[0].legend(loc="best", frameon=False, fontsize=9)
    save(figure, path)
