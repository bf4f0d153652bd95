"""From a configuration to a trained model: the main job."""

from __future__ import annotations

import inspect
import json
import logging
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from hope_ssm.checks import check_positive_number, nearest
from hope_ssm.workbench.loaders import DataModule
from hope_ssm.workbench.optimization import parameter_groups
from hope_ssm.workbench.task import SequenceTask

GROUPS = ("train", "trainer", "loader", "dataset", "task", "encoder", "decoder", "model", "optimizer", "scheduler")

_logger = logging.getLogger("hope_ssm.workbench")


def build(config: Mapping[str, Any]) -> tuple[SequenceTask, DataModule]:
    """Return the model, initialized from ``train.seed``, and its data; raise if the configuration is not whole."""
    for key in config:
        if key not in GROUPS and config[key] is not None:
            raise ValueError(
                f"the configuration has no group {key!r}; valid are {', '.join(GROUPS)}.{nearest(key, GROUPS)}"
            )
    missing = [group for group in GROUPS if config.get(group) is None]
    if missing:
        raise ValueError(f"the configuration must have the groups {', '.join(GROUPS)}; {', '.join(missing)} missing.")
    check_positive_number("optimizer.lr", config["optimizer"].get("lr"))
    seed = config["train"]["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"train.seed must be a whole number of at least 0; got {seed!r}.")
    valid = list(inspect.signature(pl.Trainer).parameters)
    for key in config["trainer"]:
        if key not in valid:
            raise TypeError(
                f"trainer has no option {key!r}; it takes those of Lightning's Trainer.{nearest(key, valid)}"
            )
    pl.seed_everything(seed, workers=True, verbose=False)
    data = DataModule(config["dataset"], config["loader"])
    plain = {group: config[group] for group in GROUPS}
    splits = data.splits
    return SequenceTask(plain, splits.d_input, splits.d_output, splits.l_output, splits.n_tokens), data


def describe(task: SequenceTask) -> str:
    """Return the parameter groups with their sizes, learning rates and weight decays, as text."""
    optimizer = task.config["optimizer"]
    lines = []
    for group in parameter_groups(task):
        size = sum(parameter.numel() for parameter in group["params"])
        lr = group.get("lr", optimizer["lr"])
        decay = group.get("weight_decay", optimizer.get("weight_decay", 0.0))
        kinds = sorted({name.rsplit(".", 1)[-1] for name in group["names"]})
        lines.append(f"{size:>9} parameters  lr {lr:<8g} weight decay {decay:<6g} {', '.join(kinds)}")
    return "\n".join(lines)


def _progress_bar(trainer: Mapping[str, Any]) -> list[Callback]:
    if not trainer.get("enable_progress_bar", True):
        return []
    try:
        from pytorch_lightning.callbacks import RichProgressBar

        return [RichProgressBar(leave=True)]
    except (ImportError, ModuleNotFoundError):
        return []  # Lightning's own bar


def check_checkpoint(path: str | None) -> str | None:
    """Return ``path`` if it is None or a readable checkpoint; otherwise raise ``ValueError``."""
    if path is None:
        return None
    mend = "Give the checkpoints/last.ckpt of a run, or train.ckpt=null to start anew."
    if not Path(path).is_file():
        raise ValueError(f"train.ckpt must be a checkpoint of hope train; {str(path)!r} is no file. {mend}")
    try:
        keys = set(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise ValueError(
            f"train.ckpt must be a checkpoint of hope train; {str(path)!r} cannot be read "
            f"({type(error).__name__}). {mend}"
        ) from None
    if not {"state_dict", "optimizer_states", "loops"} <= keys:
        raise ValueError(f"train.ckpt must be a checkpoint of hope train; {str(path)!r} is another file. {mend}")
    return path


class History(Callback):
    """Record the metrics of every epoch and the time of every training step.

    Attributes:
        epochs: one mapping {metric: value} an epoch.
        step_seconds: wall time of each step, forward, backward and update, without data loading.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []
        self.step_seconds: list[float] = []
        self._started = 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop the clock."""
        self.step_seconds.append(time.perf_counter() - self._started)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep the epoch's metrics."""
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})

    @property
    def steps_per_second(self) -> float:
        """1 / the median step time, 0 before the first step."""
        return 1 / statistics.median(self.step_seconds) if self.step_seconds else 0.0


@dataclass(frozen=True)
class Run:
    """A finished training: the model, its last metrics by name, and its history."""

    task: SequenceTask
    metrics: dict[str, float]
    history: History


def train(config: Mapping[str, Any], directory: str | os.PathLike, callbacks: list[Callback] | None = None) -> Run:
    """Train, validate and test under ``config``; leave checkpoints, metrics and results.json in ``directory``.

    Args:
        config: plain mapping, every group of ``GROUPS``.
        directory: where results go; made if absent.
        callbacks: Lightning callbacks instead of the progress bar.

    Returns: the run; ``test/accuracy`` is that of the best checkpoint by ``train.monitor``.
    """
    task, data = build(config)
    directory = Path(directory)
    checkpoint = check_checkpoint(config["train"].get("ckpt"))
    _logger.info("Results in %s\nParameter groups:\n%s", directory, describe(task))
    history = History()
    best = ModelCheckpoint(
        dirpath=directory / "checkpoints",
        filename="best",
        monitor=config["train"]["monitor"],
        mode=config["train"]["mode"],
        save_last=True,
        enable_version_counter=False,
    )
    trainer = pl.Trainer(
        default_root_dir=directory,
        logger=CSVLogger(directory, name="metrics", version=""),
        callbacks=[best, history, *(_progress_bar(config["trainer"]) if callbacks is None else callbacks)],
        **config["trainer"],
    )
    trainer.fit(task, datamodule=data, ckpt_path=checkpoint)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    metrics["train/steps_per_second"] = history.steps_per_second
    if config["train"].get("test"):
        trainer.test(task, datamodule=data, ckpt_path=best.best_model_path or None, verbose=False)
        metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}
    if trainer.is_global_zero:
        (directory / "results.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return Run(task, metrics, history)
