"""The two checkpoints of a run: the best by the monitored metric, and the last that can be gone on with exactly."""

from __future__ import annotations

import logging
import operator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint, Timer

from hope_ssm.workbench.interruption import Signals, Terminated
from hope_ssm.workbench.midway import obstacle, validation_follows, whole
from hope_ssm.workbench.resuming import read_checkpoint, same_training

_logger = logging.getLogger("hope_ssm.workbench")


class BestCheckpoint(ModelCheckpoint):
    """Keep best.ckpt in the run's own directory, by a metric that is new: once per epoch, or after each validation.

    What it remembers is the score, not a path. A resumed run has its best beside the checkpoint that it goes on from,
    if that file is of the same training and has that score or a better one; otherwise the best begins anew.

    Args:
        directory: of the checkpoints.
        monitor: the metric.
        mode: ``min`` or ``max``, whichever of it is best.
        config: of the run.
        resumed: the checkpoint that the run goes on from, or None.
    """

    def __init__(
        self, directory: Path, monitor: str, mode: str, config: Mapping[str, Any], resumed: str | None = None
    ) -> None:
        super().__init__(directory, "best", monitor=monitor, mode=mode, enable_version_counter=False)
        self.path = Path(str(self.dirpath)) / "best.ckpt"
        self.config, self.resumed = config, resumed
        self._validated = False  # in this epoch
        self._found: Path | None = None

    def _should_save_on_train_epoch_end(self, trainer: pl.Trainer) -> bool:
        return whole(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at a validation within an epoch; one at its end waits for the metrics of the whole.

        One that only the end of a training asked for does not count: an undisturbed run would not have it.
        """
        self._validated |= not trainer.sanity_checking
        if str(self.monitor).startswith("val/") and validation_follows(trainer):
            super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look at the metrics of an epoch, unless they are of an older validation."""
        fresh = self._validated or not str(self.monitor).startswith("val/")
        if fresh and self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)
        self._validated = False

    def state_dict(self) -> dict[str, Any]:
        """Return the best score, and whether this epoch was validated."""
        return {"score": self.best_model_score, "validated": self._validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best score with the file that has it."""
        self._validated = bool(state_dict.get("validated"))
        score = state_dict.get("score")
        if score is None or self.resumed is None:
            return
        found = self._of_the_same_training(Path(self.resumed).with_name("best.ckpt"), float(score))
        if found is None:
            _logger.warning(
                "There is no best checkpoint beside %s of the same training with %s %g: the best begins anew.",
                self.resumed, self.monitor, float(score),
            )  # fmt: skip
            return
        self.best_model_score = self.kth_value = self.current_score = score
        self.best_model_path = self.kth_best_model_path = str(self.path)
        self.best_k_models = {str(self.path): score}
        self._found = found

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Copy the best checkpoint of a run that goes on elsewhere."""
        found, self._found = self._found, None
        if found is not None and found.resolve() != self.path.resolve() and trainer.is_global_zero:
            content = read_checkpoint(found)
            trainer.strategy.checkpoint_io.save_checkpoint(content, self.path)

    def _of_the_same_training(self, path: Path, score: float) -> Path | None:
        try:
            content = read_checkpoint(path)
            its = float(content["callbacks"][self.state_key]["score"])
        except (ValueError, KeyError, TypeError):
            return None
        at_least = operator.le if self.mode == "min" else operator.ge
        same = same_training(content["hyper_parameters"]["config"], self.config)
        return path if same and at_least(its, score) else None


class LastCheckpoint(Checkpoint):
    """Keep last.ckpt: after every whole epoch, where the training ends, and where a signal asks for it.

    Within an epoch it waits for a batch after which everything can be gone on with exactly.

    Args:
        path: of last.ckpt.
        signals: what was asked for.
    """

    def __init__(self, path: Path, signals: Signals) -> None:
        self.path, self.signals = path, signals

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hear signals."""
        self.signals.hold(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Save within an epoch, if that is wanted and no validation follows."""
        if not whole(trainer):
            self._save_if_wanted(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save within an epoch, if that is wanted, after a validation that every training has."""
        if not trainer.sanity_checking and not whole(trainer) and validation_follows(trainer):
            self._save_if_wanted(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save a whole epoch."""
        if whole(trainer):
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hear no more signals."""
        self.signals.release()

    def _save_if_wanted(self, trainer: pl.Trainer) -> None:
        ends = trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        if (ends or self.signals.checkpoint) and obstacle(trainer) is None:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        if getattr(trainer, "fast_dev_run", False):
            return
        trainer.save_checkpoint(self.path)
        self.signals.checkpoint = False
        if self.signals.terminate:
            raise Terminated


class JobTimer(Timer):
    """``trainer.max_time``: of this job, not of those before a resume; it ends after the step of an optimizer."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin anew."""

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """Stop the training when the time is up."""
        if trainer.fit_loop.epoch_loop._should_accumulate():
            return
        super().on_train_batch_end(trainer, *args, **kwargs)
