"""HOPE against S4D and S4 on digits followed by noise, read from the last steps of the noise alone.

All three have the same sizes, one learning rate for all parameters, and as many epochs as it takes until their curves
are flat.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback

from hope_ssm.reporting.tables import markdown_table, mean_and_deviation
from hope_ssm.reporting.timing import median_seconds
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.training import Run, train

COMMON = ["experiment=hope/short-tail", "trainer.accelerator=cpu"]
WINDOW, HOP = 64, 8  # steps of the short-time Fourier transform of a kernel, and between two of its windows
BANDS = {  # bins of it: bin j has the period WINDOW / j
    "periods of 32 steps and more": slice(0, 3),
    "periods from 8 to 32 steps": slice(3, 9),
    "periods below 8 steps": slice(9, None),
}
SETTLED = 0.9  # of the best validation accuracy: the epochs until then say how soon a kernel learns


@dataclass
class Setting:
    """One line of the table: a kernel, over several seeds."""

    kernel: str
    overrides: list[str]
    accuracies: list[float] = field(default_factory=list)
    curves: list[list[float]] = field(default_factory=list)
    steps_per_second: list[float] = field(default_factory=list)
    kernel_milliseconds: list[float] = field(default_factory=list)
    parameters: int = 0
    kernel_parameters: int = 0
    energy: list[dict[str, list[float]]] = field(default_factory=list)

    @property
    def epochs(self) -> list[float]:
        """Epochs of each seed until the validation accuracy is at ``SETTLED`` of its best."""
        return [1.0 + next(i for i, value in enumerate(c) if value >= SETTLED * max(c)) for c in self.curves]

    def cells(self) -> list[str]:
        """Return the row as text: mean ± standard deviation over seeds."""
        return [
            self.kernel,
            f"{self.kernel_parameters:,}",
            f"{self.parameters:,}",
            mean_and_deviation(self.accuracies, 1, scale=100),
            mean_and_deviation(self.epochs, 0),
            mean_and_deviation(self.steps_per_second, 1),
            mean_and_deviation(self.kernel_milliseconds, 2),
        ]


HEADINGS = [
    "kernel", "kernel parameters", "parameters", "test accuracy %", "epochs to 90 % of the best", "steps / s",
    "kernel ms (one layer, forward + backward)",
]  # fmt: skip


def settings() -> list[Setting]:
    """Return the rows, still empty."""
    return [Setting(name, [f"kernel={name}"]) for name in ("hope", "s4d", "s4")]


class _Tick(Callback):
    """Call a function with the number of steps done and of all, after every training step."""

    def __init__(self, tick: Callable[[int, int], Any]) -> None:
        self.tick = tick

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.tick(trainer.global_step, int(trainer.estimated_stepping_batches))


def run(
    table: list[Setting],
    seeds: list[int],
    directory: Path,
    extra: list[str],
    tick: Callable[[Setting, int], Callable[[int, int], Any]],
) -> None:
    """Train every row with every seed and fill in what was measured.

    Args:
        table: rows to fill.
        seeds: for initialization, batches and noise.
        directory: gets one folder per run; a folder of the same name is replaced.
        extra: further overrides, for all rows.
        tick: called with row and seed before each run; returns what to call after each step, with the number of steps
            done and of all.
    """
    for seed in seeds:
        for row in table:
            overrides = [*COMMON, *row.overrides, f"train.seed={seed}", "+trainer.enable_progress_bar=false", *extra]
            name = f"{row.kernel}-seed{seed}"
            if (directory / name).exists():
                shutil.rmtree(directory / name)  # of an earlier demo
            result = train(compose(overrides), directory / name, callbacks=[_Tick(tick(row, seed))])
            _record(row, result, length=64 + result.task.config["dataset"]["l_noise"])


def _record(row: Setting, result: Run, length: int) -> None:
    assert result.history is not None  # there is one unless the run was a rehearsal
    kernels = [block.layer.layer.kernel for block in result.task.model.layers]
    row.accuracies.append(result.metrics["test/accuracy"])
    row.curves.append([epoch["val/accuracy"] for epoch in result.history.epochs])
    row.steps_per_second.append(result.history.steps_per_second)
    row.kernel_milliseconds.append(kernel_milliseconds(kernels[0], length))
    row.parameters = sum(p.numel() for p in result.task.parameters() if p.requires_grad)
    row.kernel_parameters = sum(p.numel() for kernel in kernels for p in kernel.parameters())
    row.energy.append(energy_to_come(kernels, 2 * length))


@torch.no_grad()
def energy_to_come(kernels: Sequence[torch.nn.Module], length: int) -> dict[str, list[float]]:
    """Σ_{s ≥ t} |K_s(θ)|² / Σ_{s ≥ 0} |K_s(θ)|² over θ ∈ b: what of a band's energy a kernel answers at lag t or later.

    K_s is the Fourier transform of the kernel in a Hann window of ``WINDOW`` steps that is centred at lag s.

    Args:
        kernels: of all layers of a model.
        length: L.

    Returns:
        {name of the band: L / HOP + 1 numbers, for every HOP-th lag}, of all features of all layers together.
    """
    rows = torch.cat([kernel(L=length)[0].flatten(0, 1) for kernel in kernels]).double()
    window = torch.hann_window(WINDOW, dtype=rows.dtype, device=rows.device)
    spectra = torch.stft(rows, WINDOW, HOP, window=window, pad_mode="constant", return_complex=True)
    energy = spectra.abs().square().sum(0)  # (WINDOW / 2 + 1, lags)
    left = energy.flip(-1).cumsum(-1).flip(-1)
    return {
        name: (part / part[0].clamp(min=1e-300)).tolist()
        for name, part in ((name, left[bins].sum(0)) for name, bins in BANDS.items())
    }


def kernel_milliseconds(kernel: torch.nn.Module, length: int, repeats: int = 30) -> float:
    """Return the median wall time of one kernel, forward and backward, in milliseconds."""

    def call() -> None:
        kernel.zero_grad(set_to_none=True)
        kernel(L=length)[0].sum().backward()

    return 1000 * median_seconds(call, repeats)


def markdown(table: list[Setting]) -> str:
    """Return the table in Markdown."""
    return markdown_table([HEADINGS, *(row.cells() for row in table)]) + "\n"
