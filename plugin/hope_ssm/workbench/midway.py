"""What a checkpoint needs beside Lightning's own to be gone on with exactly, also from the middle of an epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping
from torch import Tensor

from hope_ssm.workbench.data.seeding import gathered

KEY = "hope_ssm"  # of our part of a checkpoint


def whole(trainer: pl.Trainer) -> bool:
    """Whether all batches of the present epoch are done."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    return progress.is_last_batch or progress.current.ready >= trainer.num_training_batches


def validation_follows(trainer: pl.Trainer) -> bool:
    """Whether the configuration, not the end of the training, asks for a validation after the present batch."""
    loop, every = trainer.fit_loop.epoch_loop, trainer.check_val_every_n_epoch
    if not trainer.enable_validation or (every is not None and (trainer.current_epoch + 1) % every):
        return False
    if not isinstance(trainer.val_check_batch, int):
        return False
    index = loop.total_batch_idx if every is None else loop.batch_idx
    return (index + 1) % trainer.val_check_batch == 0


def accumulating(trainer: pl.Trainer) -> bool:
    """Whether gradients of batches are waiting for the step of the optimizer."""
    ready = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return not whole(trainer) and ready % trainer.accumulate_grad_batches != 0


def obstacle(trainer: pl.Trainer) -> str | None:
    """Return why a checkpoint of this moment could not be gone on with exactly, or None.

    Whole epochs can; so can a batch that stepped, before a validation if none follows it, after it if one does.
    """
    progress: Any = trainer.fit_loop.epoch_progress.current
    if whole(trainer):
        return None
    if progress.processed == progress.ready:
        return "it was made at the end of a training that stopped within an epoch"
    if accumulating(trainer):
        return "it was made before the gradients of all its batches were used"
    if trainer.validating != validation_follows(trainer):
        return "it was made beside a validation that an undisturbed training would not have had there"
    return None


class Midway(Callback):
    """Write and take over what Lightning leaves out of a checkpoint.

    Of a half-done epoch the sums behind its means, and the state that its batches carry; the step of a plateau
    schedule, which follows the checkpoint of an epoch; that early stopping has ended the training; and why the
    checkpoint cannot be gone on with, if it cannot.

    Args:
        stopping: the configuration ``callbacks``: early stopping holds as long as it is the same.
    """

    def __init__(self, stopping: Mapping[str, Any] | None = None) -> None:
        self.stopping = repr(stopping)
        self.sums: dict[str, tuple[Tensor, Tensor | None]] = {}
        self._plateau: Tensor | None = None
        self._early = False

    def on_save_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Add our part."""
        own: dict[str, Any] = {"obstacle": obstacle(trainer), "batches": 0}
        if whole(trainer):
            monitors = [
                c.monitor for c in trainer.lr_scheduler_configs if c.reduce_on_plateau and c.interval == "epoch"
            ]
            own["plateau"] = next(
                (trainer.callback_metrics[m] for m in monitors if m in trainer.callback_metrics), None
            )
        else:
            own["batches"] = trainer.fit_loop.epoch_loop.batch_progress.current.ready
            results = trainer.fit_loop.epoch_loop._results
            sums = {
                key: (metric.value.cpu(), metric.cumulated_batch_size.cpu() if metric.meta.is_mean_reduction else None)
                for key, metric in results.items()
                if metric.is_tensor and metric.meta.on_epoch
            }
            own["sums"] = gathered({**self.sums, **sums})
            own["stream"] = gathered(module.streams["train"].carried)
        own["stopping"] = self.stopping if trainer.should_stop and early_stopped(trainer) else None
        checkpoint[KEY] = own

    def on_load_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Take our part over."""
        own = checkpoint.get(KEY, {})
        sums = own.get("sums") or [{}]
        self.sums = dict(sums[trainer.global_rank]) if len(sums) == trainer.world_size else {}
        if len(streams := own.get("stream", ())) == trainer.world_size:
            module.streams["train"].carried = trainer.strategy.batch_to_device(streams[trainer.global_rank])
        self._plateau, self._early = own.get("plateau"), own.get("stopping") == self.stopping

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Do what followed the checkpoint: the plateau schedule's step, the end by early stopping."""
        if self._plateau is not None:
            for config in trainer.lr_scheduler_configs:
                scheduler: Any = config.scheduler
                due = trainer.current_epoch % config.frequency == 0
                if config.reduce_on_plateau and config.interval == "epoch" and due:
                    scheduler.step(self._plateau)
        if self._early:
            trainer.should_stop = True
        self._plateau, self._early = None, False

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Add the sums from before the stop to those that begin here."""
        if not self.sums:
            return
        results = trainer.fit_loop.epoch_loop._results
        for key in [key for key in self.sums if key in results]:
            value, size = self.sums.pop(key)
            metric = results[key]
            metric.value = metric.value + value.to(metric.value)
            if size is not None:
                metric.cumulated_batch_size = metric.cumulated_batch_size + size.to(metric.cumulated_batch_size)

    def means(self) -> dict[str, float]:
        """Return the means of the half-done epoch that a checkpoint ended in, by name; {} if there is none."""
        return {
            key.split(".", 1)[-1]: float(value if size is None else value / size)
            for key, (value, size) in self.sums.items()
        }


def early_stopped(trainer: pl.Trainer) -> bool:
    """Whether a callback of early stopping has ended the training."""

    def ended(callback: EarlyStopping) -> bool:
        reason = getattr(callback, "stopping_reason", None)  # Lightning ≥ 2.6
        return bool(callback.stopped_epoch or callback.wait_count >= callback.patience or getattr(reason, "value", 0))

    callbacks: list[Callback] = vars(trainer)["callbacks"]
    return any(ended(c) for c in callbacks if isinstance(c, EarlyStopping))
