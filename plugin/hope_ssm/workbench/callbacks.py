"""Lightning callbacks and loggers of a run: history, checkpoints, averaged weights, CSV, TensorBoard, W&B."""

from __future__ import annotations

import csv
import importlib.util
import logging
import shutil
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import callbacks as lightning
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger, Logger

from hope_ssm.analysis.callback import HankelCallback
from hope_ssm.checks import check_choice, log_once
from hope_ssm.workbench.options import instantiate

_logger = logging.getLogger("hope_ssm.workbench")


class History(Callback):
    """Record the metrics of every epoch, with those before a resume, and the time of every training step.

    Attributes:
        epochs: one mapping {"epoch", "step", metric: value} per epoch; written to ``path`` as CSV.
        step_seconds: wall time of each step of this process, forward, backward and update, without data loading.
        exception: what ended the training early, or None.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.epochs: list[dict[str, float]] = []
        self.step_seconds: list[float] = []
        self.exception: BaseException | None = None
        self._started = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop the clock."""
        self.step_seconds.append(time.perf_counter() - self._started)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep the epoch's metrics."""
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.epochs.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **values})
        if self.path is not None and trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            names = list(dict.fromkeys(name for row in self.epochs for name in row))
            with self.path.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, names)
                table.writeheader()
                table.writerows(self.epochs)

    def on_exception(self, trainer: pl.Trainer, module: pl.LightningModule, exception: BaseException) -> None:
        """Keep the reason."""
        self.exception = exception

    def state_dict(self) -> dict[str, Any]:
        """Return the epochs, for the checkpoint."""
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the epochs before a resume; that a test restores states too changes nothing."""
        self.epochs = self.epochs or list(state_dict["epochs"])

    @property
    def steps_per_second(self) -> float:
        """1 / the median step time, 0 before the first step."""
        return 1 / statistics.median(self.step_seconds) if self.step_seconds else 0.0


class BestCheckpoint(ModelCheckpoint):
    """Keep best.ckpt by the monitored metric; a run that resumes in another directory copies the best one so far."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best score and, if it lies elsewhere, a copy of the best checkpoint."""
        before, now = str(state_dict["dirpath"]), str(self.dirpath)
        path = Path(state_dict["best_model_path"] or "-")
        if before != now and path.is_file():
            Path(now).mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, Path(now) / path.name)
            moved = str(Path(now) / path.name)
            state_dict = {
                **state_dict,
                "dirpath": now,
                "best_model_path": moved,
                "kth_best_model_path": moved,
                "best_k_models": dict.fromkeys([moved], *state_dict["best_k_models"].values()),
                "last_model_path": "",
            }
        super().load_state_dict(state_dict)


def averaging(decay: Any) -> list[Callback]:
    """Return the callback of ``train.ema``: w̄ ← decay·w̄ + (1 - decay)·w after every step; w̄ is evaluated and saved."""
    if not isinstance(decay, (int, float)) or isinstance(decay, bool) or not 0 <= decay < 1:
        raise ValueError(f"train.ema must be a number of at least 0 and below 1; got {decay!r}.")
    if decay == 0:
        return []
    if not hasattr(lightning, "EMAWeightAveraging"):
        raise ImportError(
            f"train.ema={decay} needs pytorch-lightning 2.6 or newer; got {pl.__version__}: "
            "pip install 'pytorch-lightning>=2.6'."
        )
    return [lightning.EMAWeightAveraging(decay=decay)]


CALLBACKS = {
    "early_stopping": lightning.EarlyStopping,
    "timer": lightning.Timer,
    "hankel": HankelCallback,
}


def named_callbacks(config: Mapping[str, Any] | None, train: Mapping[str, Any]) -> list[Callback]:
    """Return the callbacks of the group ``callbacks``: {name: options}, or {any name: {_target_: …}} for others."""
    made = []
    for name, options in (config or {}).items():
        if options is None:
            continue
        if "_target_" in options:
            from hydra.utils import instantiate as build

            made.append(build(options))
            continue
        given = {}
        if name == "early_stopping":
            given = {"monitor": train["monitor"], "mode": train["mode"]}
            given |= {"check_on_train_epoch_end": True} if train["monitor"].startswith("train/") else {}
        made.append(instantiate("callbacks", CALLBACKS, {"_name_": name, **options}, **given))
    return made


def progress_bar() -> list[Callback]:
    """Return rich's progress bar, or nothing where rich is absent; then Lightning shows its own."""
    return [lightning.RichProgressBar(leave=True)] if importlib.util.find_spec("rich") else []


def loggers(config: Mapping[str, Any], directory: Path) -> list[Logger]:
    """Return the CSV logger, TensorBoard's (``train.tensorboard``: null if installed, true, false) and W&B's.

    ``wandb`` is null or the options of Lightning's ``WandbLogger``.
    """
    made: list[Logger] = [CSVLogger(directory, name="csv")]
    wanted = config["train"].get("tensorboard")
    check_choice("train.tensorboard", wanted, (None, True, False))
    if importlib.util.find_spec("tensorboard") and wanted is not False:
        from pytorch_lightning.loggers import TensorBoardLogger

        made.append(TensorBoardLogger(directory, name="tensorboard", version="", default_hp_metric=False))
    elif wanted:
        raise ImportError("train.tensorboard=true needs TensorBoard: pip install tensorboard.")
    elif wanted is None:
        log_once(_logger, logging.INFO, "No TensorBoard logs: pip install tensorboard for them.")
    if config.get("wandb") is not None:
        if not importlib.util.find_spec("wandb"):
            raise ImportError("wandb=… needs Weights & Biases: pip install wandb, or set wandb=null.")
        from pytorch_lightning.loggers import WandbLogger

        made.append(WandbLogger(save_dir=directory, **config["wandb"]))
    return made
