"""HOPE against S4D on digits followed by noise: at one fixed sampling period, and each at its own trained ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback

from hope_ssm.reporting.tables import markdown_table, mean_and_deviation
from hope_ssm.reporting.timing import median_seconds
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.training import Run, train

COMMON = ["experiment=hope/noisy-digits", "trainer.accelerator=cpu"]
FIXED = ["model.layer.dt_min=0.1", "model.layer.dt_max=0.1", "model.layer.lr.dt=0"]


@dataclass
class Setting:
    """One line of the table: a kernel under one setting of the sampling period, over several seeds."""

    kernel: str
    setting: str
    overrides: list[str]
    accuracies: list[float] = field(default_factory=list)
    curves: list[list[float]] = field(default_factory=list)
    steps_per_second: list[float] = field(default_factory=list)
    kernel_milliseconds: list[float] = field(default_factory=list)
    parameters: int = 0
    kernel_parameters: int = 0
    impulse_response: list[float] = field(default_factory=list)
    window: float | None = None

    def cells(self) -> list[str]:
        """Return the row as text: mean ± standard deviation over seeds."""
        return [
            self.kernel,
            self.setting,
            f"{self.kernel_parameters:,}",
            f"{self.parameters:,}",
            mean_and_deviation(self.accuracies, 1, scale=100),
            mean_and_deviation(self.steps_per_second, 1),
            mean_and_deviation(self.kernel_milliseconds, 2),
        ]


KERNEL_TIME = "kernel ms (one layer, forward + backward)"
HEADINGS = ["kernel", "Δt", "kernel parameters", "parameters", "test accuracy %", "steps / s", KERNEL_TIME]


def settings() -> list[Setting]:
    """Return the four rows, still empty."""
    return [
        Setting("hope", "0.1 fixed", ["kernel=hope", *FIXED]),
        Setting("s4d", "0.1 fixed", ["kernel=s4d", *FIXED]),
        Setting("hope", "0.016–0.5 trained", ["kernel=hope"]),
        Setting("s4d", "0.001–0.1 trained", ["kernel=s4d"]),
    ]


class _Tick(Callback):
    """Call a function after every training step."""

    def __init__(self, tick: Callable[[], Any]) -> None:
        self.tick = tick

    def on_train_batch_end(self, *_: Any) -> None:
        self.tick()


def run(
    table: list[Setting],
    seeds: list[int],
    directory: Path,
    extra: list[str],
    tick: Callable[[Setting, int], Callable[[], Any]],
) -> None:
    """Train every row with every seed and fill in what was measured.

    Args:
        table: rows to fill.
        seeds: for initialization, batches and noise.
        directory: gets one folder per run; a folder of the same name is replaced.
        extra: further overrides, for all rows.
        tick: called with row and seed before each run; returns what to call after each step.
    """
    for seed in seeds:
        for row in table:
            overrides = [*COMMON, *row.overrides, f"train.seed={seed}", "+trainer.enable_progress_bar=false", *extra]
            name = f"{row.kernel}-{row.setting.replace(' ', '-')}-seed{seed}"
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
    if not row.impulse_response:
        with torch.no_grad():
            response, _ = kernels[0](L=4 * length)
            feature = int(kernels[0].sampling_period.argsort()[len(kernels[0].sampling_period) // 2])
            row.impulse_response = response[0, feature].tolist()
            if row.kernel == "hope":
                row.window = kernels[0].n / float(kernels[0].sampling_period[feature])


def kernel_milliseconds(kernel: torch.nn.Module, length: int, repeats: int = 30) -> float:
    """Return the median wall time of one kernel, forward and backward, in milliseconds."""

    def call() -> None:
        kernel.zero_grad(set_to_none=True)
        kernel(L=length)[0].sum().backward()

    return 1000 * median_seconds(call, repeats)


def markdown(table: list[Setting]) -> str:
    """Return the table in Markdown."""
    return markdown_table([HEADINGS, *(row.cells() for row in table)]) + "\n"
