"""The picture of the memory experiment."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hope_ssm.figures.memory_experiment import Setting
from hope_ssm.reporting.plots import band, kernel_color, pyplot, save


def draw(table: list[Setting], gap: int, path: Path) -> None:
    """Save accuracy curves beside the energy of the trained kernels that is still to come, both over the seeds.

    Args:
        table: filled rows.
        gap: steps between the end of the digit and the first step that is read.
        path: of the picture.
    """
    figure, (accuracy, energy) = pyplot().subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    energy.set(yscale="log", ylim=(1e-4, 1.3), xlabel="lag t, steps", ylabel="share of the energy at t or later")
    for row in table:
        style = {"color": kernel_color(row.kernel), "label": row.kernel}
        curves, left = 100 * np.array(row.curves), np.array(row.energy)
        band(accuracy, np.arange(1, curves.shape[1] + 1), curves, **style)
        band(energy, np.arange(1, left.shape[1] + 1), left, **style)
    accuracy.axhline(10, color="0.6", lw=0.8, ls=":")
    accuracy.set(xlabel="epoch", ylabel="validation accuracy, % (dotted: chance)", ylim=(0, 100))
    accuracy.set_title("Digits, then noise; read from the last steps of the noise")
    energy.axvline(gap, color="0.5", lw=0.8, ls="--")
    energy.set_title(f"What the trained kernels remember (dashed: {gap} steps of noise)")
    accuracy.legend(loc="lower right", frameon=False)
    save(figure, path)
