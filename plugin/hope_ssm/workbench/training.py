"""From a configuration to a trained model: the main job."""

from __future__ import annotations

import errno
import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback, LearningRateMonitor, ModelCheckpoint

from hope_ssm.layers.parameter_groups import parameter_groups
from hope_ssm.workbench import callbacks as parts
from hope_ssm.workbench.data.loaders import DataModule
from hope_ssm.workbench.peak_memory import PeakMemory
from hope_ssm.workbench.resuming import AUTO, checkpoint_to_resume, is_done, override
from hope_ssm.workbench.run_directory import BEST, LAST, METRICS, RESULTS, RunDirectory, write_json
from hope_ssm.workbench.task import SequenceTask
from hope_ssm.workbench.validation.configuration import GROUPS, checked
from hope_ssm.workbench.validation.rehearsal import rehearse

_logger = logging.getLogger("hope_ssm.workbench")


class TrainingInterrupted(KeyboardInterrupt):
    """The user stopped the training; the message says how to go on."""


def build(config: Mapping[str, Any]) -> tuple[SequenceTask, DataModule]:
    """Return the model, initialized from ``train.seed``, and its data; raise if the configuration is not whole."""
    config = checked(config)
    seed = config["train"]["seed"]
    pl.seed_everything(seed, workers=True, verbose=False)
    data = DataModule(config["dataset"], config["loader"], seed)
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


@dataclass(frozen=True)
class Run:
    """A finished training: the model, its last metrics by name, and its history (None if it was finished before)."""

    task: SequenceTask
    metrics: dict[str, float]
    history: parts.History | None


def train(
    config: Mapping[str, Any],
    directory: str | os.PathLike,
    callbacks: Sequence[Callback] | None = None,
    command: Sequence[str] = (),
) -> Run:
    """Train, validate and test under ``config``; ``directory`` is described in ``run_directory``.

    Args:
        config: mapping with every group of ``GROUPS``: plain, with NumPy numbers and paths, or OmegaConf's.
        directory: where results go; made if absent.
        callbacks: Lightning callbacks instead of the progress bar.
        command: the command line that does the same, for messages.

    Returns:
        the run; ``test/…`` are metrics of the best checkpoint by ``train.monitor``. With ``train.ckpt=auto`` a run that
        is finished is read back instead.

    Raises:
        TypeError, ValueError: the configuration is wrong.
        FileExistsError: the directory holds another run.
        TrainingInterrupted: the user pressed Ctrl-C.
        OSError: the disk is full.
    """
    config, run = checked(config), RunDirectory(Path(directory))
    rehearsal = bool(config["trainer"].get("fast_dev_run"))
    task, data = build(config)
    checkpoint = None if rehearsal else checkpoint_to_resume(config, run.path, _is_first_process())
    if config["train"].get("ckpt") == AUTO and is_done(config, run, checkpoint):
        from hope_ssm.workbench.evaluation import load

        best = "best" if (run.path / BEST).is_file() else "last"
        _logger.info("%s is finished; there is nothing to do with train.ckpt=auto.", run.path)
        return Run(load(run.path, best), run.results, None)
    rehearse(task, data, config)
    if _is_first_process() and not rehearsal:
        about = {"parameters": count(task), "kernel_parameters": count(task, ".kernel."), "resumed_from": checkpoint}
        run.begin(config, overrides=list(command[2:]), **about)
    if _is_first_process():
        listing = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        _logger.info("Configuration:\n%s", listing)
        _logger.info("Results in %s\nParameter groups:\n%s", run.path, describe(task))
    history = parts.History(run.path / METRICS)
    try:
        metrics = _fit(task, data, config, run, checkpoint, history, callbacks)
    except BaseException as error:
        stopped = history.exception if isinstance(error, SystemExit) else error
        resumable = (run.path / LAST).is_file()
        mend = _resume_command(command, run) if resumable else "there is no checkpoint yet, the first follows an epoch"
        if _is_first_process() and not rehearsal:
            run.end("interrupted" if isinstance(stopped, KeyboardInterrupt) else "failed")
        if isinstance(stopped, KeyboardInterrupt):
            raise TrainingInterrupted(f"interrupted; to resume: {mend}.") from None
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(
                f"the disk of {str(run.path)!r} must have room for checkpoints; got: {os.strerror(error.errno)}. "
                f"Free some space and continue with: {mend}."
            ) from error
        raise
    if _is_first_process() and not rehearsal:
        write_json(run.path / RESULTS, metrics)
        run.end("finished")
    return Run(task, metrics, history)


def _fit(
    task: SequenceTask,
    data: DataModule,
    config: Mapping[str, Any],
    run: RunDirectory,
    checkpoint: str | None,
    history: parts.History,
    callbacks: Sequence[Callback] | None,
) -> dict[str, float]:
    options, settings = config["trainer"], config["train"]
    where: dict[str, Any] = {"dirpath": run.path / LAST.split("/")[0], "enable_version_counter": False}
    at_the_end = True if settings["monitor"].startswith("train/") else None  # of an epoch, when it is known
    best = parts.BestCheckpoint(
        filename="best", monitor=settings["monitor"], mode=settings["mode"], save_on_train_epoch_end=at_the_end, **where
    )
    last = ModelCheckpoint(filename="last", every_n_epochs=1, save_on_train_epoch_end=True, **where)
    if callbacks is None:
        callbacks = parts.progress_bar() if options.get("enable_progress_bar", True) else []
    trainer = pl.Trainer(
        default_root_dir=run.path,
        logger=parts.loggers(config, run.path),
        callbacks=[
            history,
            LearningRateMonitor(),
            *parts.averaging(settings.get("ema") or 0.0),
            *parts.named_callbacks(config.get("callbacks"), settings),
            *callbacks,
            best,
            last,
        ],
        **options,
    )
    with PeakMemory(trainer.strategy.root_device) as memory:
        trainer.fit(task, datamodule=data, ckpt_path=checkpoint)
    metrics = {n: float(value) for n, value in trainer.callback_metrics.items() if not n.startswith("lr-")}
    metrics["train/steps_per_second"] = history.steps_per_second
    metrics["train/peak_memory_mib"] = memory.mebibytes
    if settings.get("test"):
        trainer.test(task, datamodule=data, ckpt_path=best.best_model_path or None, verbose=False)
        metrics |= {name: float(value) for name, value in trainer.callback_metrics.items()}
    return metrics


def count(module: torch.nn.Module, part: str = "") -> int:
    """Return the number of trainable real parameters whose name contains ``part``."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for name, p in module.named_parameters() if part in name)


def _is_first_process() -> bool:
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID", "NODE_RANK"))


def _resume_command(command: Sequence[str], run: RunDirectory) -> str:
    own = ("train.ckpt=", "hydra.run.dir=")
    kept = [shlex.quote(word) for word in command if not word.startswith(own)]
    if not kept:
        return override("train.ckpt", run.path / LAST)
    return " ".join([*kept, override("train.ckpt", run.path / LAST), override("hydra.run.dir", run.path)])
