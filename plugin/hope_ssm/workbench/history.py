"""The metrics of every epoch and the time of every step, kept over a resume."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from hope_ssm.reporting.tables import write_csv
from hope_ssm.workbench.peak_memory import PeakMemory


class History(Callback):
    """Record the metrics of every epoch, also of those before a resume, and the time of every training step.

    Attributes:
        epochs: one mapping {"epoch", "step", metric: value} an epoch; written to ``path`` as CSV. Metrics of a
            validation are in the epochs that were validated.
        step_seconds: wall time of each step of this process, forward, backward and update, without data loading.
        exception: what ended the training early, or None.
        memory: measures the peak of the memory, if it is set.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.epochs: list[dict[str, float]] = []
        self.step_seconds: list[float] = []
        self.exception: BaseException | None = None
        self.memory: PeakMemory | None = None
        self._medians: list[float] = []  # seconds per step, of the epochs so far
        self._peak = 0.0  # of processes before
        self._known: dict[str, float] = {}
        self._validated = False
        self._started = 0.0
        self._counted = 0  # steps that are in the medians
        self._trainer: pl.Trainer | None = None

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Look at the metrics of this training."""
        self._trainer = trainer

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop the clock."""
        self.step_seconds.append(time.perf_counter() - self._started)

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep the validation's metrics."""
        if not trainer.sanity_checking:
            self._validated = True
            self._know(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep the epoch's metrics."""
        self._know(trainer)
        self._add(trainer.current_epoch, trainer.global_step)
        if self.step_seconds[self._counted :]:
            self._medians.append(statistics.median(self.step_seconds[self._counted :]))
            self._counted = len(self.step_seconds)
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            self.write()

    def _know(self, trainer: pl.Trainer) -> None:
        self._known |= {name: float(value) for name, value in trainer.callback_metrics.items()}

    def _add(self, epoch: int, step: int) -> None:
        row = {n: value for n, value in self._known.items() if self._validated or not n.startswith("val/")}
        self.epochs.append({"epoch": epoch, "step": step, **row})
        self._validated = False

    def write(self) -> None:
        """Write the epochs to ``path``."""
        if self.path is not None:
            write_csv(self.path, self.epochs)

    def end_within_an_epoch(self, means: dict[str, float], epoch: int, step: int) -> None:
        """Add the epoch that the checkpoint of an ended training is in the middle of."""
        self._known |= means
        self._add(epoch, step)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Keep the reason."""
        self.exception = exception

    def state_dict(self) -> dict[str, Any]:
        """Return what was recorded, for the checkpoint."""
        if self._trainer is not None:
            self._know(self._trainer)
        return {
            "epochs": self.epochs,
            "known": self._known,
            "validated": self._validated,
            "step_seconds": self._medians,
            "peak_memory_mib": self.peak_memory,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was recorded before a resume."""
        self.epochs = list(state_dict["epochs"])
        self._known = dict(state_dict.get("known", {}))  # the oldest runs have the epochs alone
        self._validated = bool(state_dict.get("validated", True))
        self._medians = list(state_dict.get("step_seconds", []))
        self._peak = float(state_dict.get("peak_memory_mib", 0.0))

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of every metric, steps per second and peak memory, also of what came before a resume."""
        last = {n: value for row in self.epochs for n, value in row.items() if n not in ("epoch", "step")}
        found = {n: value for n, value in last.items() if not n.startswith("lr-")}
        return {
            **found, "train/steps_per_second": self.steps_per_second, "train/peak_memory_mib": self.peak_memory
        }  # fmt: skip

    @property
    def peak_memory(self) -> float:
        """MiB, of all processes that trained this run."""
        return max(self._peak, self.memory.read() if self.memory is not None else 0.0)

    @property
    def steps_per_second(self) -> float:
        """1 / the median over the epochs of the median step time, 0 before the first step."""
        rest = self.step_seconds[self._counted :]
        medians = [*self._medians, *([statistics.median(rest)] if rest else [])]
        return 1 / statistics.median(medians) if medians else 0.0
