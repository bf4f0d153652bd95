"""What only Lightning, torch or the data can refuse, tried out before a run writes anything."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch.utils.data import Subset

from hope_ssm.reporting.machine import silence
from hope_ssm.workbench.data.loaders import ChunkLoader, DataModule
from hope_ssm.workbench.losses import steps_of
from hope_ssm.workbench.optimization import configure
from hope_ssm.workbench.resuming import flat, processes
from hope_ssm.workbench.streaming import Recurrence

_logger = logging.getLogger("hope_ssm.workbench")


def rehearse(task: Any, data: DataModule, config: Mapping[str, Any]) -> None:
    """Make the trainer, the optimizer and the schedule once, count the batches, and predict two samples.

    Raises:
        ValueError: Lightning or torch refuses options, one is named; a split has too few batches for a limit; the
            samples do not suit the model, the decoder or the loss.
    """
    with silence("pytorch_lightning"):
        trainer = _attempt("trainer", config["trainer"], _trainer, "Lightning")
    for group in ("optimizer", "scheduler"):
        _attempt(group, config[group], partial(_optimizer, task, config, group), "torch")
    _check_limits(data, config["trainer"])
    _warn_of_the_schedule(data, config)
    device = trainer.strategy.root_device
    asked = config["trainer"].get("precision")
    if device.type == "cpu" and str(asked) in ("16", "16-mixed"):
        raise ValueError(
            f"trainer.precision must be one that a CPU has; got {asked!r}, for which Lightning would take bf16-mixed. "
            "Set trainer.precision=bf16-mixed or 32."
        )
    if device.type == "cpu" or isinstance(trainer.strategy, SingleDeviceStrategy):
        with _long_enough(config):
            _predict(task, data, device)


def _trainer(options: dict[str, Any]) -> pl.Trainer:
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(**{**options, **silent})


def _optimizer(task: Any, config: Mapping[str, Any], group: str, options: dict[str, Any]) -> Any:
    return configure(task, {**config, group: options})


@contextmanager
def in_memory(group: str, config: Mapping[str, Any]) -> Iterator[None]:
    """Turn the complaint that memory is short into a sentence with the sizes in ``config[group]``."""
    try:
        yield
    except (MemoryError, OverflowError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        sizes = {key: value for key, value in flat({group: config[group]}) if type(value) is int and value > 1}
        listed = ", ".join(f"{key}={value}" for key, value in sizes.items())
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{group} must fit into memory; got {listed}, where {reason} Lower one.") from None


def _attempt(group: str, options: Mapping[str, Any], make: Callable[[dict[str, Any]], Any], who: str) -> Any:
    """Return ``make(options)``; if it raises, name the option without which it would not."""
    try:
        return make(dict(options))
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
    for key in options:
        try:
            make({other: value for other, value in options.items() if other != key})
        except Exception:
            continue
        raise ValueError(
            f"{group}.{key} must suit this machine and the other options of {group}; got {options[key]!r}, and {who} "
            f"says: {reason}"
        )
    given = ", ".join(f"{key}={value!r}" for key, value in options.items())
    raise ValueError(f"the options of {group} must go together; got {given}, and {who} says: {reason}")


def _check_limits(data: DataModule, trainer: Mapping[str, Any]) -> None:
    for split in ("train", "val", "test"):
        count = len(getattr(data, f"{split}_dataloader")()) // processes(trainer)
        key = "overfit_batches" if trainer.get("overfit_batches") and split != "test" else f"limit_{split}_batches"
        limit = trainer.get(key)
        if isinstance(limit, float) and 0 < limit < 1 and int(limit * count) < 1:
            raise ValueError(
                f"trainer.{key} must be the share of at least one of the {count} batches of the {split} split; got "
                f"{limit}. Set trainer.{key}={1 / count if count else 1.0:.2g} or more."
            )
        if split == "train":
            limited = count if limit is None else min(count, limit) if isinstance(limit, int) else int(limit * count)
            every = trainer.get("val_check_interval")
            if type(every) is int and every > limited and trainer.get("check_val_every_n_epoch", 1) is not None:
                raise ValueError(
                    f"trainer.val_check_interval must not be above the {limited} training batches of an epoch; got "
                    f"{every}. Lower it, or set +trainer.check_val_every_n_epoch=null to count over epochs."
                )


def _warn_of_the_schedule(data: DataModule, config: Mapping[str, Any]) -> None:
    """Warn where a schedule counted in steps does not fit the number of steps of the training."""
    scheduler, trainer = config["scheduler"], config["trainer"]
    planned, epochs = scheduler.get("num_training_steps"), trainer.get("max_epochs")
    if planned is None:
        return
    if scheduler.get("num_warmup_steps", 0) >= planned:
        _logger.warning(
            "The schedule has scheduler.num_warmup_steps=%d of scheduler.num_training_steps=%d: the learning rate "
            "will not fall. Set scheduler.num_warmup_steps below it.", scheduler["num_warmup_steps"], planned,
        )  # fmt: skip
    if epochs is None or epochs < 1 or trainer.get("limit_train_batches") not in (None, 1.0):
        return
    train: Any = data.splits.train
    samples = config["loader"]["batch_size"] * processes(trainer)
    steps = epochs * (len(train) // samples) // trainer.get("accumulate_grad_batches", 1)
    last = trainer.get("max_steps", -1)
    steps = steps if last == -1 else min(steps, last)
    if not 0.5 <= planned / max(1, steps) <= 2:
        _logger.warning(
            "The schedule has scheduler.num_training_steps=%d, but the training has about %d: the learning rate will "
            "not end where the schedule does. Set scheduler.num_training_steps=%d and num_warmup_steps below it.",
            planned, steps, steps,
        )  # fmt: skip


@contextmanager
def _long_enough(config: Mapping[str, Any]) -> Iterator[None]:
    """Add to the complaint that a sequence is too short which keys have shortened it."""
    try:
        yield
    except ValueError as error:
        stride, chunk = (config["model"].get("pool") or {}).get("stride"), config["loader"].get("chunk_len")
        keys = {"model.pool.stride": None if stride == 1 else stride, "loader.chunk_len": chunk}
        listed = " and ".join(f"{key}={value}" for key, value in keys.items() if value is not None)
        if not listed or "sequence must have at least" not in str(error):
            raise
        raise ValueError(f"{error} It is shortened by {listed}.") from error


@torch.no_grad()
def _predict(task: Any, data: DataModule, device: torch.device) -> None:
    """Pass two samples through encoder, model, decoder, loss and metrics; nothing of it is kept."""
    train: Any = data.splits.train
    samples = Subset(train, range(min(2, len(train))))
    options: dict[str, Any] = {"batch_size": 2, "collate_fn": data.splits.collate}
    options["chunk_len"] = data.loader.get("chunk_len")
    generator = torch.Generator()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        batch = next(iter(ChunkLoader(samples, generator=generator, **options)))
        x, target, context = task.check.batch("train", batch)
        lengths, stream, training = context.get("lengths"), task.streams["train"], task.training
        try:
            x, target = x.to(device), target.to(device)
            task.to(device).eval()
            scale = context.get("step_scale")
            recurrence = Recurrence(task.encoder, task.model, scale is not None)
            state = stream.before(recurrence, x, 0, context.get("reset"))
            prediction, _ = task._predict(x, state, 1.0, lengths, scale)
            task.check.target("train", prediction, target)
            for measure in (task.loss, *task.metrics.values()):
                measure(prediction, target, steps_of(x, prediction, lengths))
        finally:
            task.to("cpu").train(training)
            task.check.seen.discard("train")
            stream.restart()
