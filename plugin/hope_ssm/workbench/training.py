"""From a configuration to a trained model: the main job."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback

from hope_ssm.layers.parameter_groups import parameter_groups
from hope_ssm.layers.settings_of_s4 import say_what_is_of_s4
from hope_ssm.storage import remove_partial
from hope_ssm.workbench.callbacks import named_callbacks
from hope_ssm.workbench.data.loaders import DataModule
from hope_ssm.workbench.fitting import fit, is_first_process
from hope_ssm.workbench.freed_memory import keep_freed_memory
from hope_ssm.workbench.history import History
from hope_ssm.workbench.interruption import STATUS, Signals, TrainingInterrupted, resume_line
from hope_ssm.workbench.pretrained import checkpoint_of, initialize
from hope_ssm.workbench.resuming import AUTO, checkpoint_to_resume, is_done
from hope_ssm.workbench.run_directory import BEST, LAST, METRICS, PREVIOUS, RESULTS, RunDirectory, write_json
from hope_ssm.workbench.task import SequenceTask
from hope_ssm.workbench.torch_switches import torch_switches_kept
from hope_ssm.workbench.validation.configuration import GROUPS, checked
from hope_ssm.workbench.validation.rehearsal import in_memory, rehearse

_logger = logging.getLogger("hope_ssm.workbench")


def build(config: Mapping[str, Any]) -> tuple[SequenceTask, DataModule]:
    """Return the model, initialized from ``train.seed``, and its data; raise if the configuration is not whole."""
    config = checked(config)
    seed = config["train"]["seed"]
    layer = config["model"]["layer"]
    say_what_is_of_s4(layer.get("mode") or layer.get("kernel") or "", layer)
    pl.seed_everything(seed, workers=True, verbose=False)
    with in_memory("dataset", config):
        data = DataModule(config["dataset"], config["loader"], seed)
    plain = {group: config[group] for group in GROUPS}
    splits = data.splits
    with in_memory("model", config):
        task = SequenceTask(plain, splits.d_input, splits.d_output, splits.l_output, splits.n_tokens)
    if task.model.awaits_length:
        task.model.set_length(splits.longest())
    return task, data


def describe(task: SequenceTask) -> str:
    """Return the parameter groups with their sizes, learning rates and weight decays, as text."""
    optimizer = task.config["optimizer"]
    lines = []
    for group in parameter_groups(task):
        size = sum(parameter.numel() for parameter in group["params"] if parameter.requires_grad)
        lr = group.get("lr", optimizer["lr"])
        decay = group.get("weight_decay", optimizer.get("weight_decay", 0.0))
        kinds = sorted({name.rsplit(".", 1)[-1] for name in group["names"]})
        if size:
            lines.append(f"{size:>9} parameters  lr {lr:<8g} weight decay {decay:<6g} {', '.join(kinds)}")
    if frozen := sum(parameter.numel() for parameter in task.parameters() if not parameter.requires_grad):
        lines.append(f"{frozen:>9} parameters  frozen")
    return "\n".join(lines)


@dataclass(frozen=True)
class Run:
    """A finished training: the model, its last metrics by name, and its history (None if it was finished before)."""

    task: SequenceTask
    metrics: dict[str, float]
    history: History | None


@torch_switches_kept()
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
        FileExistsError: the directory holds another run, or another process trains there.
        TrainingInterrupted: the user pressed Ctrl-C, or SIGTERM came.
        OSError: the disk is full.
    """
    config, run = checked(config), RunDirectory(Path(directory).absolute())
    keep_freed_memory()
    task, data = build(config)
    named = named_callbacks(config.get("callbacks"), config["train"])  # a user's own may refuse their options
    if config["trainer"].get("fast_dev_run"):
        _initialize(task, config)
        rehearse(task, data, config)
        return Run(task, *fit(task, data, config, run, None, named, callbacks, Signals())[:2])
    first = is_first_process()
    checkpoint = checkpoint_to_resume(config, run.path, first)  # refuses before anything is written
    if config["train"].get("ckpt") == AUTO and is_done(config, run, checkpoint):
        from hope_ssm.workbench.evaluation import load

        best = "best" if (run.path / BEST).is_file() else "last"
        _logger.info("%s is finished; there is nothing to do with train.ckpt=auto.", run.path)
        return Run(load(run.path, best), run.results, None)
    if checkpoint is None:
        _initialize(task, config)
    rehearse(task, data, config)
    with run.alone() if first else nullcontext(), Signals() as signals:
        if first:
            checkpoint = checkpoint_to_resume(config, run.path)  # as it is now that nobody else writes
            _begin(run, config, task, checkpoint, command)
        history = History(run.path / METRICS)
        try:
            metrics, history, state = fit(task, data, config, run, checkpoint, named, callbacks, signals, history)
            if first:
                write_json(run.path / RESULTS, metrics)
                run.end(state)
                (run.path / PREVIOUS).unlink(missing_ok=True)
        except BaseException as error:
            _explain(error, history.exception, run, command, signals, first)
            raise
    return Run(task, metrics, history)


def _initialize(task: SequenceTask, config: Mapping[str, Any]) -> None:
    """Begin with the weights of another run, if the configuration names one, and say once which were taken."""
    source = checkpoint_of(config["train"])
    if source is not None:
        said = initialize(task, config, source)
        if is_first_process():
            _logger.info(said)


def _begin(
    run: RunDirectory, config: Mapping[str, Any], task: SequenceTask, checkpoint: str | None, command: Sequence[str]
) -> None:
    for folder in (run.path, (run.path / LAST).parent):
        remove_partial(folder)
    about = {"parameters": count(task), "kernel_parameters": count(task, ".kernel."), "resumed_from": checkpoint}
    run.begin(config, overrides=[word for word in command[2:] if not word.startswith("-")], **about)
    listing = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
    _logger.info("Configuration:\n%s", listing)
    _logger.info("Results in %s\nParameter groups:\n%s", run.path, describe(task))


def _explain(
    error: BaseException, stopped: BaseException | None, run: RunDirectory, command: Sequence[str], signals: Signals,
    first: bool,
) -> None:  # fmt: skip
    """Note how a run ended early; raise what says how to go on, if the user or a full disk stopped it."""
    stopped = stopped if isinstance(error, SystemExit) else error
    interrupted = isinstance(stopped, KeyboardInterrupt) or signals.terminate
    if first:
        with contextlib.suppress(OSError):  # of a full disk: then the run reads as killed
            run.end("interrupted" if interrupted else "failed")
    resumable = (run.path / LAST).is_file()
    mend = _resume_command(command, run) if resumable else "there is no checkpoint yet, the first follows an epoch"
    if interrupted:
        status = STATUS + (signal.SIGTERM if signals.terminate else signal.SIGINT)
        raise TrainingInterrupted(f"interrupted; to resume: {mend}", status) from None
    if isinstance(error, OSError) and error.errno is not None:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if full or str(run.path) in str(error.filename):
            need = (
                "the disk of {} must have room for checkpoints" if full else "the run directory {} must stay writable"
            )
            raise OSError(
                f"{need.format(repr(str(run.path)))}; got: {os.strerror(error.errno)}. "
                f"{'Free some' if full else 'Mend that'} and go on: {mend}"
            ) from error


def count(module: torch.nn.Module, part: str = "") -> int:
    """Return the number of trainable real parameters whose name contains ``part``."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for name, p in module.named_parameters() if part in name)


def _resume_command(command: Sequence[str], run: RunDirectory) -> str:
    return resume_line(command, run.path, run.path / LAST)
