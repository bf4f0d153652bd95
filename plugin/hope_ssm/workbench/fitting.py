"""One stretch of training, from a checkpoint or from the start, and the test of its best."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, LearningRateMonitor

from hope_ssm.workbench.callbacks import averaging, progress_bar
from hope_ssm.workbench.checkpoint_io import WholeCheckpointIO
from hope_ssm.workbench.checkpoints import BestCheckpoint, JobTimer, LastCheckpoint
from hope_ssm.workbench.compilation import compile_model
from hope_ssm.workbench.data.loaders import DataModule
from hope_ssm.workbench.history import History
from hope_ssm.workbench.interruption import Signals
from hope_ssm.workbench.loggers import finish, loggers
from hope_ssm.workbench.midway import Midway, early_stopped, whole
from hope_ssm.workbench.peak_memory import PeakMemory
from hope_ssm.workbench.resuming import read_checkpoint
from hope_ssm.workbench.run_directory import LAST, RunDirectory
from hope_ssm.workbench.task import SequenceTask


def fit(
    task: SequenceTask,
    data: DataModule,
    config: Mapping[str, Any],
    run: RunDirectory,
    checkpoint: str | None,
    named: Sequence[Callback],
    callbacks: Sequence[Callback] | None,
    signals: Signals,
    history: History | None = None,
) -> tuple[dict[str, float], History, str]:
    """Train and test; return the metrics by name, the history, and ``"finished"`` or ``"stopped"``.

    Args:
        task: to be trained.
        data: what it learns from.
        config: plain mapping, every group of ``GROUPS``.
        run: where everything is written.
        checkpoint: to go on from, or None.
        named: the callbacks of the configuration.
        callbacks: Lightning callbacks instead of the progress bar.
        signals: what the process is asked for.
        history: to be filled; None makes one that is not written.
    """
    settings, history = config["train"], history or History()
    compile_model(task.model, settings.get("compile"))
    options = {key: value for key, value in config["trainer"].items() if (key, value) != ("max_steps", None)}
    seconds, midway = options.pop("max_time", None), Midway(config.get("callbacks"))
    if seconds is not None and options.get("max_epochs") is None and options.get("max_steps", -1) == -1:
        options["max_epochs"] = -1
    best = BestCheckpoint((run.path / LAST).parent, settings["monitor"], settings["mode"], config, checkpoint)
    if callbacks is None:
        callbacks = progress_bar() if options.get("enable_progress_bar", True) else []
    plugins = options.pop("plugins", None) or []
    trainer = pl.Trainer(
        default_root_dir=run.path,
        logger=loggers(config, run.path),
        plugins=[*(plugins if isinstance(plugins, (list, tuple)) else [plugins]), WholeCheckpointIO()],
        callbacks=[
            history,
            midway,
            LearningRateMonitor(),
            *averaging(settings.get("ema") or 0.0),
            *named,
            *([] if seconds is None else [JobTimer(seconds)]),
            *callbacks,
            best,
            LastCheckpoint(run.path / LAST, signals),
        ],
        **options,
    )
    # Lightning takes a run with max_steps for one without epochs and resumes it wrongly; ours have epochs.
    vars(trainer.fit_loop)["_iteration_based_training"] = partial(bool)
    try:
        with PeakMemory(trainer.strategy.root_device) as history.memory:
            trainer.fit(task, datamodule=data, ckpt_path=checkpoint)
        if "MultiProcessing" in type(trainer.strategy.launcher).__name__ and (run.path / LAST).is_file():
            _take_over(trainer, history, best, read_checkpoint(run.path / LAST))
        elif not history.step_seconds and midway.sums:  # resumed at its end, in the middle of an epoch
            history.end_within_an_epoch(midway.means(), trainer.current_epoch, trainer.global_step)
            if trainer.is_global_zero:
                history.write()
        metrics, state = history.metrics, "finished" if _complete(trainer) else "stopped"
        if settings.get("test"):
            if best.best_model_path:
                task.load_state_dict(read_checkpoint(best.best_model_path)["state_dict"])
            trainer.test(task, datamodule=data, verbose=False)
            metrics |= {
                n: float(v) for n, v in trainer.callback_metrics.items() if n not in metrics and not n.startswith("lr-")
            }
    except BaseException:
        finish(trainer.loggers, failed=True)
        raise
    finish(trainer.loggers, failed=False)
    return metrics, history, state


def _take_over(trainer: pl.Trainer, history: History, best: BestCheckpoint, checkpoint: Mapping[str, Any]) -> None:
    """Read back what processes of ddp_spawn have trained, which this one has not seen."""
    trainer.fit_loop.load_state_dict(checkpoint["loops"]["fit_loop"])
    history.load_state_dict(checkpoint["callbacks"][history.state_key])
    best.best_model_path = str(best.path) if best.path.is_file() else ""


def _complete(trainer: pl.Trainer) -> bool:
    """Whether the training is at its last epoch or step, or early stopping ended it; by time alone it is."""
    loop = trainer.fit_loop
    progress: Any = loop.epoch_progress.current
    if trainer.should_stop and early_stopped(trainer):
        return True
    steps, epochs = trainer.max_steps, loop.max_epochs
    if epochs in (None, -1) and steps == -1:
        return True
    if steps != -1 and trainer.global_step >= steps:
        return True
    if epochs in (None, -1):
        return False
    nothing = not epochs or not trainer.num_training_batches
    return nothing or (progress.processed >= epochs and whole(trainer))


def is_first_process() -> bool:
    """Whether this process writes the files of the run."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "SLURM_PROCID", "NODE_RANK"))
