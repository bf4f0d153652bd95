"""Claim 2: training S4D loses Hankel rank, training HOPE does not, and h needs no smaller learning rate.

Noise-padded digits (64 + 192 steps), 2 layers, d_model 32, n = 64, 12 epochs; A, B and Δt at a learning rate of 0.001,
all else at 0.01, unless the row says otherwise. Random poles: Re λ = -U, Im λ = n/2 · U', U and U' uniform on [0, 1].
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.callbacks import Callback

from hope_ssm.analysis.inspection import kernel_singular_values, kernels
from hope_ssm.hankel import numerical_rank
from hope_ssm.reporting.machine import quieten_lightning
from hope_ssm.reporting.plots import kernel_styles
from hope_ssm.reporting.tables import mean_and_deviation
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.training import train

CLAIM = "Training S4D loses Hankel rank, training HOPE does not"
SEEDS = 3
EPSILON = 1e-2
COMMON = (
    *("experiment=hope/noisy-digits", "dataset.l_noise=192"),
    *("trainer.accelerator=cpu", "+trainer.enable_progress_bar=false", "train.tensorboard=false"),
    "trainer.enable_model_summary=false",
)
ONE_RATE = ("model.layer.lr.dt=null", "model.layer.lr.A=null", "model.layer.lr.B=null")
ROWS = {
    "hope": ("kernel=hope",),
    "s4d lin": ("kernel=s4d", "model.layer.init=diag-lin"),
    "s4d inv": ("kernel=s4d", "model.layer.init=diag-inv"),
    "s4d legs": ("kernel=s4d", "model.layer.init=diag-legs"),
    "s4d random": ("kernel=s4d",),
    "s4d lin, one learning rate": ("kernel=s4d", "model.layer.init=diag-lin", *ONE_RATE),
}
TOLERANCE = 0.05  # of the rank: a change below is none
ROUNDING = 1e-9  # of a mean of ranks, which are halves of whole numbers


class _Ranks(Callback):
    """The median ε-rank of all systems before and after training; random poles first, if asked for."""

    def __init__(self, randomize: bool) -> None:
        self.randomize = randomize
        self.found: list[float] = []

    @torch.no_grad()
    def on_fit_start(self, trainer: Any, module: torch.nn.Module) -> None:
        for kernel in kernels(module).values() if self.randomize else ():
            kernel.A_real.copy_(torch.rand_like(kernel.A_real).clamp(min=1e-3).log())
            kernel.A_imag.copy_(torch.rand_like(kernel.A_imag) * kernel.A_imag.shape[-1])
        self._look(module)

    def on_fit_end(self, trainer: Any, module: torch.nn.Module) -> None:
        self._look(module)

    def _look(self, module: torch.nn.Module) -> None:
        ranks = []
        for kernel in kernels(module).values():
            every = torch.arange(kernel.d_model)
            sigma, _, _ = kernel_singular_values(kernel, torch.zeros(1, len(every), 2), every)
            ranks.append(numerical_rank(sigma, EPSILON).flatten())
        self.found.append(float(torch.cat(ranks).double().median()))


def measure(seeds: Iterable[int], extra: Iterable[str] = ()) -> dict[str, Any]:
    """Return ranks before and after and test accuracy, by row, one per seed."""
    quieten_lightning()
    found: dict[str, dict[str, list[float]]] = {name: {"before": [], "after": [], "accuracy": []} for name in ROWS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for place, (name, overrides) in enumerate(ROWS.items()):
                look = _Ranks(name == "s4d random")
                config = compose([*COMMON, *overrides, f"train.seed={seed}", *extra])
                done = train(config, Path(folder) / f"{place}-{seed}", callbacks=[look])
                for key, value in zip(found[name], (*look.found, done.metrics["test/accuracy"]), strict=True):
                    found[name][key].append(value)
    return {"epsilon": EPSILON, "rows": found}


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return headings and a row per kernel."""
    table = [["kernel", f"rank before, ε = {EPSILON:g}, of 64", "rank after", "test accuracy %"]]
    for name, row in result["rows"].items():
        accuracy = [100 * value for value in row["accuracy"]]
        table.append(
            [
                name,
                mean_and_deviation(row["before"], 1),
                mean_and_deviation(row["after"], 1),
                mean_and_deviation(accuracy, 1),
            ]
        )
    return table


def verdict(result: dict[str, Any]) -> tuple[bool, str]:
    """Confirmed if hope keeps 95 % of its rank and every row of S4D loses more than 5 %."""
    kept = {name: np.mean(row["after"]) / np.mean(row["before"]) for name, row in result["rows"].items()}
    below = {name for name, share in kept.items() if share < 1 - TOLERANCE - ROUNDING}
    lost, holds = below - {"hope"}, "hope" not in below
    listed = ", ".join(f"{name} {100 * share:.0f} %" for name, share in kept.items())
    return bool(holds and len(lost) == len(kept) - 1), (
        f"rank after training as a share of that before: {listed}; {len(lost)} of {len(kept) - 1} rows of S4D lose "
        f"more than {100 * TOLERANCE:.0f} %, hope {'does not' if holds else 'does'}."
    )


def draw(result: dict[str, Any], axes: Any) -> None:
    """Ranks before and after, and accuracies."""
    styles = kernel_styles(list(result["rows"]))
    for place, ((name, row), style) in enumerate(zip(result["rows"].items(), styles, strict=True)):
        pair = np.array([row["before"], row["after"]])
        axes[0].errorbar([0, 1], pair.mean(1), pair.std(1, ddof=1), marker="o", capsize=3, label=name, **style)
        accuracy = 100 * np.array(row["accuracy"])
        axes[1].errorbar(place, accuracy.mean(), accuracy.std(ddof=1), marker="o", capsize=4, **style)
    axes[0].set(xticks=[0, 1], xticklabels=["before", "after"], ylim=(0, 66), ylabel=f"σ_k > {EPSILON:g} σ_1, of 64")
    axes[0].legend(frameon=False, fontsize=8)
    axes[1].set(xticks=range(len(ROWS)), ylabel="test accuracy, %")
    axes[1].set_xticklabels(result["rows"], rotation=20, ha="right", fontsize=8)
