"""The picture of the memory experiment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hope_ssm.figures.memory_experiment import BANDS, HOP, Setting
from hope_ssm.reporting.plots import band, kernel_color, pyplot, save


def draw(table: list[Setting], gap: int, path: Path) -> None:
    """Save accuracy curves, and the energy of the trained kernels that is still to come in each frequency band.

    Args:
        table: filled rows.
        gap: steps between the end of the digit and the first step that is read.
        path: of the picture.
    """
    figure, axes = pyplot().subplots(2, 2, figsize=(11, 7), layout="constrained")
    accuracy, *energies = axes.flat
    for row in table:
        style = {"color": kernel_color(row.kernel), "label": row.kernel.upper()}
        curves = 100 * np.array(row.curves)
        band(accuracy, np.arange(1, curves.shape[1] + 1), curves, **style)
        for name, axis in zip(BANDS, energies, strict=True):
            left = np.array([seed[name] for seed in row.energy])
            band(axis, HOP * np.arange(left.shape[1]), left, **style)
    accuracy.axhline(10, color="0.6", lw=0.8, ls=":")
    accuracy.set(xlabel="epoch", ylabel="validation accuracy, % (dotted: chance)", ylim=(0, 100))
    accuracy.set_title("Digits, then noise; read from the last steps of the noise")
    accuracy.legend(loc="lower right", frameon=False)
    for name, axis in zip(BANDS, energies, strict=True):
        axis.axvline(gap, color="0.5", lw=0.8, ls="--")
        axis.set(yscale="log", ylim=(1e-4, 1.3), xlabel=f"lag t, steps (dashed: the {gap} of the noise)")
        axis.set(ylabel="share of the energy at t or later", title=f"Memory of the trained kernels at {name}")
    save(figure, path)
