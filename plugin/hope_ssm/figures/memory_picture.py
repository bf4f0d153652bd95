"""The picture of the memory experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hope_ssm.figures.memory_experiment import Setting
from hope_ssm.reporting.plots import KERNEL_COLORS, band, pyplot, save


def draw(table: list[Setting], l_signal: int, length: int, path: Path) -> None:
    """Save accuracy curves (mean and standard deviation over seeds) beside learned impulse responses.

    Args:
        table: filled rows.
        l_signal: steps before the noise.
        length: steps in all.
        path: of the picture.
    """
    figure = pyplot().figure(figsize=(13, 5), layout="constrained")
    grid = figure.add_gridspec(len(table), 2, width_ratios=[1, 1.2])
    axes = figure.add_subplot(grid[:, 0])
    for row in table:
        style = "-" if "fixed" in row.setting else "--"
        curves = 100 * np.array(row.curves)
        color, label = KERNEL_COLORS[row.kernel], f"{row.kernel}, Δt {row.setting}"
        band(axes, np.arange(1, curves.shape[1] + 1), curves, ls=style, color=color, label=label)
    axes.set(xlabel="epoch", ylabel="validation accuracy, %", ylim=(0, 100), title="Digits followed by noise")
    axes.axhline(10, color="0.6", lw=0.8, ls=":")
    axes.legend(loc="best", frameon=False, fontsize=9)

    panels: list[Any] = []
    for place, row in enumerate(table):
        panel = figure.add_subplot(grid[place, 1], sharex=panels[0] if panels else None)
        panels.append(panel)
        response = np.array(row.impulse_response[1:])
        panel.plot(
            np.arange(1, len(response) + 1), response / np.abs(response).max(), color=KERNEL_COLORS[row.kernel], lw=0.8
        )
        panel.axvspan(0, l_signal, color="0.85", lw=0)
        panel.axvline(length, color="0.5", lw=0.8)
        if row.window is not None:
            panel.axvline(row.window, color="k", ls="--", lw=1)
            panel.text(row.window, 0.95, " n/Δt", va="top", fontsize=8, clip_on=True)
        panel.set(ylim=(-1.1, 1.1), yticks=[], xlim=(0, len(response)))
        panel.set_ylabel("\n".join([row.kernel, *row.setting.split()]), fontsize=8)
        panel.tick_params(labelbottom=place == len(table) - 1)
    panels[0].set_title(
        "Learned impulse responses (first layer, feature of median Δt, t ≥ 1, over their maximum)", fontsize=10
    )
    panels[-1].set_xlabel("steps (grey: as long as the digit; grey line: the whole sequence)")
    save(figure, path)
