"""A trained model read back: ready to predict, or evaluated again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from hope_ssm.checks import check_choice
from hope_ssm.workbench.data.loaders import DataModule
from hope_ssm.workbench.data.registry import check_trusted
from hope_ssm.workbench.resuming import read_checkpoint
from hope_ssm.workbench.run_directory import BEST, LAST
from hope_ssm.workbench.survey import find_run
from hope_ssm.workbench.task import SequenceTask
from hope_ssm.workbench.validation.configuration import checked

SPLITS = ("val", "test")


def checkpoint_path(run: str | os.PathLike, checkpoint: str = "best") -> Path:
    """Return the path of a run's ``best`` or ``last`` checkpoint; ``run`` may be a checkpoint itself."""
    if Path(run).is_file():
        return Path(run)
    named = {"best": BEST, "last": LAST}
    path = find_run(run).path / named[check_choice("checkpoint", checkpoint, named)]
    if checkpoint == "best" and not path.is_file():
        raise ValueError(
            f"a run must have been validated to have a best checkpoint; {str(run)!r} has none. "
            "Take the last: --checkpoint last, or load(run, 'last')."
        )
    return path


def load(run: str | os.PathLike, checkpoint: str = "best", config: dict[str, Any] | None = None) -> SequenceTask:
    """Return the trained model of a run, in evaluation mode on the CPU.

    ``model(x)`` maps a batch (B, L, d_input) to predictions; the backbone is ``model.model``. No code of the checkpoint
    is run.

    Args:
        run: a run directory, or a checkpoint of hope train.
        checkpoint: ``"best"`` or ``"last"``.
        config: build the model from this configuration instead of the checkpoint's own.

    Raises:
        ValueError: no run, or no checkpoint.
    """
    saved = read_checkpoint(checkpoint_path(run, checkpoint), "RUN")
    known = saved["hyper_parameters"]
    task = SequenceTask(**{**known, "config": config or known["config"]})
    try:
        task.load_state_dict(saved["state_dict"])
    except RuntimeError as error:
        raise ValueError(
            "the configuration must make a model with the sizes of the checkpoint's; got others: "
            f"{str(error).splitlines()[-1].strip()} Override keys of dataset, decoder, loader and trainer only."
        ) from None
    return task.eval()


def _names_target(override: str) -> bool:
    return override.lstrip("+").startswith("dataset._target_=")


def evaluate(
    run: str | os.PathLike,
    checkpoint: str = "best",
    split: str = "test",
    overrides: Sequence[str] = (),
    trust: bool = False,
) -> dict[str, float]:
    """Return the metrics of a trained model on a split, under the run's configuration with ``overrides``.

    Args:
        run: see ``load``.
        checkpoint: see ``load``.
        split: ``"val"`` or ``"test"``.
        overrides: ``key=value`` for keys of the configuration, ``dataset.l_noise=512 decoder.l_tail=512`` for example.
        trust: call the function of its own that a run names as ``dataset._target_``; without, only one that
            ``overrides`` give again.

    Raises:
        ValueError: a function of the run's own, not trusted; no such key; see also ``load``.
    """
    from hope_ssm.workbench.configuration import changed

    check_choice("split", split, SPLITS)
    path = checkpoint_path(run, checkpoint)
    config = checked(changed(read_checkpoint(path, "RUN")["hyper_parameters"]["config"], overrides))
    given = [str(config["dataset"].get("_target_"))] if any(map(_names_target, overrides)) else []
    check_trusted(config["dataset"], given, trust)
    task = load(path, config=config)
    data = DataModule(config["dataset"], config["loader"], config["train"]["seed"])
    options = {key: config["trainer"][key] for key in ("accelerator", "precision") if key in config["trainer"]}
    options |= {
        key: config["trainer"][key] for key in ("limit_test_batches", "limit_val_batches") if key in config["trainer"]
    }
    trainer = pl.Trainer(
        logger=False, enable_checkpointing=False, enable_model_summary=False, enable_progress_bar=False,
        devices=1, **options,
    )  # fmt: skip
    run_split = trainer.test if split == "test" else trainer.validate
    (metrics,) = run_split(task, datamodule=data, verbose=False)
    return {name: float(value) for name, value in metrics.items()}
