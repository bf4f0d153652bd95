"""The whole configuration against the table, then what its groups ask of each other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl

from hope_ssm.checks import check_choice, nearest
from hope_ssm.workbench.callbacks import CALLBACKS
from hope_ssm.workbench.data.registry import DATASETS
from hope_ssm.workbench.models.backbone import LAYERS, MODELS
from hope_ssm.workbench.models.coders import DECODERS, ENCODERS
from hope_ssm.workbench.models.norms import NORMS
from hope_ssm.workbench.models.pooling import POOLS
from hope_ssm.workbench.models.residuals import RESIDUALS
from hope_ssm.workbench.validation import table
from hope_ssm.workbench.validation.kinds import check_table
from hope_ssm.workbench.validation.plain import plain
from hope_ssm.workbench.validation.signatures import check_layer, check_named, signature_table
from hope_ssm.workbench.validation.trainer import TRAINER

GROUPS = ("train", "trainer", "loader", "dataset", "task", "encoder", "decoder", "model", "optimizer", "scheduler")
OPTIONAL_GROUPS = ("callbacks", "wandb")
_DATA = ("d_input", "d_output", "l_output", "n_tokens", "d_model")
_SIZES = ("d_model", "d_input", "layer_number", "normalized_shape", "num_features")


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``config`` as plain values of the types the table has, yes and no as true and false.

    Raises:
        TypeError: an unknown key, or a value of another type.
        ValueError: an absent or refused key, a value out of range, keys that do not go together. The sentence has the
            key, what was expected and what came.
    """
    values = plain(config)
    if not isinstance(values, dict):
        raise TypeError(f"the configuration must be a mapping with the groups {', '.join(GROUPS)}; got {config!r}.")
    for key in values:
        if key not in GROUPS + OPTIONAL_GROUPS and values[key] is not None:
            valid = ", ".join(GROUPS + OPTIONAL_GROUPS)
            raise ValueError(f"the configuration has no group {key!r}; valid are {valid}.{nearest(key, GROUPS)}")
    missing = [group for group in GROUPS if values.get(group) is None]
    if missing:
        raise ValueError(f"the configuration must have the groups {', '.join(GROUPS)}; it lacks {', '.join(missing)}.")
    known = inspect.signature(pl.Trainer).parameters  # of the Lightning that is installed
    trainer = {key: kind for key, kind in TRAINER.items() if key in known}
    values |= {
        "train": _train(values["train"]),
        "trainer": check_table("trainer", trainer, values["trainer"]),
        "loader": check_table("loader", table.LOADER, values["loader"]),
        "task": check_table("task", table.TASK, values["task"]),
        "optimizer": _by_name("optimizer", table.OPTIMIZER, values["optimizer"]),
        "scheduler": _by_name("scheduler", table.SCHEDULER, values["scheduler"]),
        "model": _model(values["model"]),
        "encoder": check_named("encoder", ENCODERS, values["encoder"], _DATA),
        "decoder": check_named("decoder", DECODERS, values["decoder"], _DATA),
    }
    dataset = values["dataset"]
    if isinstance(dataset, Mapping) and dataset.get("_target_") is None and dataset.get("_name_") is not None:
        values["dataset"] = check_named("dataset", DATASETS, dataset)
    for group in OPTIONAL_GROUPS:
        if values.get(group) is not None and not isinstance(values[group], Mapping):
            raise TypeError(f"{group} must be a mapping of options or null; got {values[group]!r}.")
    for name, options in (values.get("callbacks") or {}).items():
        if options is not None and not (isinstance(options, Mapping) and "_target_" in options):
            values["callbacks"][name] = _callback(name, options)
    check_together(values)
    return values


def _by_name(group: str, tables: Mapping[str, Mapping[str, Any]], values: Any) -> dict[str, Any]:
    """Check a group whose table is the one of its ``_name_``; a name alone is one without options."""
    values = {"_name_": values} if isinstance(values, str) else values
    if not isinstance(values, Mapping):
        raise TypeError(f"{group} must be a name or a mapping with _name_; got {values!r}.")
    name = check_choice(f"{group}._name_", values.get("_name_"), tables)
    return check_table(group, tables[name], values, name)


def _train(values: Any) -> dict[str, Any]:
    values = check_table("train", table.TRAIN, values)
    if values.get("state") is not None:
        values["state"] = check_table("train.state", table.STATE, values["state"])
    return values


def _callback(name: str, options: Any) -> dict[str, Any]:
    check_choice("callbacks", name, CALLBACKS)
    known = signature_table(CALLBACKS[name], given=("monitor", "mode")) | table.CALLBACKS.get(name, {})
    return check_table(f"callbacks.{name}", known, options)


def _model(values: Any) -> dict[str, Any]:
    values = check_table("model", table.MODEL, values, "model")
    check_choice("model._name_", values["_name_"], MODELS)
    for key, registered in (("norm", NORMS), ("residual", RESIDUALS), ("pool", POOLS)):
        if key in values:
            values[key] = check_named(f"model.{key}", registered, values[key], _SIZES)
    check_choice("model.layer._name_", values["layer"].get("_name_"), LAYERS)
    return {**values, "layer": check_layer("model.layer", values["layer"])}


def check_together(config: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where values that are right one by one do not go together."""
    train, trainer, loader = config["train"], config["trainer"], config["loader"]
    optimizer, scheduler, monitor = config["optimizer"], config["scheduler"], config["train"]["monitor"]

    def refuse(key: str, wanted: str, got: str, mend: str) -> None:
        raise ValueError(f"{key} must {wanted}; got {got}. {mend}")

    if not config.get("callbacks"):  # which may log metrics of their own
        metrics = [f"{split}/{name}" for split in ("val", "train") for name in ("loss", *config["task"]["metrics"])]
        check_choice("train.monitor", monitor, metrics)
    validated = trainer.get("overfit_batches") or trainer.get("limit_val_batches", 1.0) != 0
    if monitor.startswith("val/") and not validated:
        refuse("train.monitor", "be a metric of the training without validation", f"{monitor} with "
               "trainer.limit_val_batches=0", "Set train.monitor=train/loss train.mode=min.")  # fmt: skip
    for less, more in (("min_epochs", "max_epochs"), ("min_steps", "max_steps")):
        low, high = trainer.get(less), trainer.get(more)
        if low is not None and high is not None and -1 < high < low:
            refuse(f"trainer.{less}", f"not be above trainer.{more}", f"{low} and {high}", f"Lower trainer.{less}.")
    if not loader.get("num_workers"):
        for key in ("prefetch_factor", "persistent_workers"):
            if loader.get(key):
                refuse(f"loader.{key}", "be left out without workers", f"{loader[key]}", "Set loader.num_workers=1.")
    for key in ("eta_min", "min_lr"):
        if scheduler.get(key, 0) > optimizer["lr"]:
            refuse(f"scheduler.{key}", "not be above optimizer.lr", f"{scheduler[key]} and {optimizer['lr']}",
                   "The rate would rise.")  # fmt: skip
    if scheduler["_name_"] == "plateau":
        _check_plateau(train, trainer, scheduler, refuse)


def _check_plateau(
    train: Mapping[str, Any], trainer: Mapping[str, Any], scheduler: Mapping[str, Any], refuse: Callable[..., None]
) -> None:
    if train["interval"] != "epoch":
        refuse("train.interval", "be epoch with scheduler=plateau, which waits for an epoch's metric", "step",
               "Set train.interval=epoch.")  # fmt: skip
    if scheduler.get("mode", "min") != train["mode"]:
        refuse("scheduler.mode", "be that of train.mode, whose metric it watches",
               f"{scheduler.get('mode', 'min')} and {train['mode']}", "Leave it at ${train.mode}.")  # fmt: skip
    if train["monitor"].startswith("val/") and trainer.get("check_val_every_n_epoch", 1) is None:
        refuse("trainer.check_val_every_n_epoch", "be a whole number with scheduler=plateau, which waits for the "
               "metric of a validation", "null", "Set train.monitor=train/loss, or another scheduler.")  # fmt: skip
