"""Resuming a run: find its checkpoint, and check that it belongs to this configuration."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from hope_ssm.workbench.interruption import override
from hope_ssm.workbench.run_directory import LAST, PREVIOUS, RUN, RunDirectory

_logger = logging.getLogger("hope_ssm.workbench")
AUTO = "auto"
# What may differ from the configuration of the checkpoint: nothing that a step of training depends on. Of the number of
# processes it depends through the global batch alone, which is compared by itself.
_FREE = (
    "dataset.__lengths.*",  # only the horizon, a key of its own, is read from them
    "train.ckpt", "train.test", "train.tensorboard",
    "trainer.max_*", "trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy",
    "trainer.enable_*", "trainer.log_every_n_steps", "trainer.fast_dev_run", "trainer.limit_test_batches",
    "trainer.num_sanity_val_steps", "trainer.profiler", "trainer.default_root_dir", "trainer.detect_anomaly",
    "loader.num_workers", "loader.pin_memory", "loader.persistent_workers", "loader.prefetch_factor",
    "callbacks.early_stopping*", "callbacks.timer*", "wandb*",
)  # fmt: skip


def read_checkpoint(path: str | Path, option: str = "train.ckpt") -> dict[str, Any]:
    """Return the checkpoint of a run of hope train, read without running any code of it; else raise ``ValueError``."""
    mend = "Give the checkpoints/last.ckpt of a run" + (", or null to start anew." if option == "train.ckpt" else ".")
    if not Path(path).is_file():
        raise ValueError(f"{option} must be a checkpoint of hope train; {str(path)!r} is no file. {mend}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{option} must be a checkpoint of hope train; {str(path)!r} cannot be read "
            f"({type(error).__name__}). {mend}"
        ) from None
    if not isinstance(checkpoint, dict) or not {"state_dict", "optimizer_states", "loops"} <= set(checkpoint):
        raise ValueError(f"{option} must be a checkpoint of hope train; {str(path)!r} is another file. {mend}")
    if "config" not in checkpoint.get("hyper_parameters", {}):
        raise ValueError(f"{option} must be a checkpoint of hope train; {str(path)!r} holds no configuration. {mend}")
    return checkpoint


def processes(trainer: Mapping[str, Any]) -> int:
    """Return the number of processes that the options of the trainer name; 1 where Lightning decides."""
    devices = trainer.get("devices")
    count = len(devices) if isinstance(devices, (list, tuple)) else devices
    return max(1, count if isinstance(count, int) else 1) * (trainer.get("num_nodes") or 1)


def is_done(config: Mapping[str, Any], run: RunDirectory, checkpoint: str | None) -> bool:
    """Whether a run is finished and was not asked for more epochs or steps since, or another early stopping."""
    if run.state != "finished" or not run.results or checkpoint is None:
        return False
    before, now = run.config["trainer"], config["trainer"]
    same = all(before.get(key) == now.get(key) for key in ("max_epochs", "max_steps", "max_time"))
    return same and (run.config.get("callbacks") or {}) == (config.get("callbacks") or {})


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of every leaf of a nested mapping."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return {dotted key: (value before, value now)} where two configurations differ; an absent key counts as None."""
    first, second = dict(flat(before)), dict(flat(now))
    keys = dict.fromkeys([*first, *second])
    return {key: (first.get(key), second.get(key)) for key in keys if first.get(key) != second.get(key)}


def changed_training(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the differences of two configurations that change what a step of training does."""
    changed = {
        key: pair
        for key, pair in differences(before, {group: now.get(group) for group in before}).items()
        if not any(fnmatch.fnmatchcase(key, free) for free in _FREE)
    }
    count = processes(before["trainer"]), processes(now["trainer"])
    sizes = [now["loader"]["batch_size"] * n for n in count]
    if sizes[0] != sizes[1] and "loader.batch_size" not in changed:
        changed["loader.batch_size times processes"] = (sizes[0], sizes[1])
    return changed


def same_training(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether two configurations do the same in every step, and so are stretches of one and the same training."""
    try:
        return not changed_training(before, now)
    except (KeyError, TypeError, AttributeError):
        return False


def check_resumable(checkpoint: Mapping[str, Any], path: str | Path, config: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if ``config`` would not go on with what the checkpoint began, or not exactly."""
    changed = changed_training(checkpoint["hyper_parameters"]["config"], config)
    if changed:
        listed = "; ".join(f"{key}: {old} in the checkpoint, {new} here" for key, (old, new) in changed.items())
        raise ValueError(
            f"a resumed run must have the configuration of its checkpoint {str(path)!r}, to continue the same "
            f"training; different are {listed}. Set these as they were, or start anew with train.ckpt=null."
        )
    obstacle = checkpoint.get("hope_ssm", {}).get("obstacle")
    if obstacle is not None:
        raise ValueError(
            f"train.ckpt must be a checkpoint that can be gone on with exactly; {str(path)!r} cannot: {obstacle}. "
            f"Take {LAST} of the same run."
        )


def checkpoint_to_resume(config: Mapping[str, Any], directory: Path, first: bool = True) -> str | None:
    """Return the path of the checkpoint that ``train.ckpt`` means for a run in ``directory``, or None.

    ``auto`` is the directory's own last checkpoint if there is one. A last checkpoint that cannot be read is replaced
    by the one before it, if that is still there. The first process of a run refuses a directory with a run in it
    unless that run is resumed.

    Raises:
        ValueError: no such checkpoint, or one of another configuration.
        FileExistsError: see above.
    """
    wanted, own = config["train"].get("ckpt"), directory / LAST
    if wanted == AUTO:
        wanted = str(own) if own.is_file() or (directory / PREVIOUS).is_file() else None
    elif first and (directory / RUN).is_file() and not _same_directory(wanted, own):
        resume = override("train.ckpt", own) if own.is_file() else f"train.ckpt={AUTO}"
        raise FileExistsError(
            f"the run directory must be new; {str(directory)!r} holds a run ({RunDirectory(directory).state}). "
            f"Resume that one with {resume}, or name another by hydra.run.dir=…"
        )
    if wanted is None:
        return None
    wanted, checkpoint = _readable(str(wanted))
    check_resumable(checkpoint, wanted, config)
    return wanted


def _readable(path: str) -> tuple[str, dict[str, Any]]:
    try:
        return path, read_checkpoint(path)
    except ValueError as error:
        previous = Path(path).with_name(Path(PREVIOUS).name)
        if Path(path).name != Path(LAST).name or not previous.is_file():
            raise
        try:
            checkpoint = read_checkpoint(previous)
        except ValueError:
            raise error from None
        _logger.warning("%s cannot be read; going on from %s, the checkpoint before it.", path, previous)
        return str(previous), checkpoint


def _same_directory(path: str | None, own: Path) -> bool:
    return path is not None and Path(path).resolve().parent == own.resolve().parent
