"""Where the metrics of a run go as it trains: CSV, TensorBoard, W&B."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import CSVLogger, Logger

from hope_ssm.checks import check_choice, log_once

_logger = logging.getLogger("hope_ssm.workbench")


def loggers(config: Mapping[str, Any], directory: Path) -> list[Logger]:
    """Return the CSV logger, TensorBoard's (``train.tensorboard``: null if installed, true, false) and W&B's.

    ``wandb`` is null or the options of Lightning's ``WandbLogger``; its runs are named after the directory by default.
    """
    made: list[Logger] = [CSVLogger(directory, name="csv")]
    wanted = config["train"].get("tensorboard")
    check_choice("train.tensorboard", wanted, (None, True, False))
    if importlib.util.find_spec("tensorboard") and wanted is not False:
        from pytorch_lightning.loggers import TensorBoardLogger

        made.append(TensorBoardLogger(directory, name="tensorboard", version="", default_hp_metric=False))
    elif wanted:
        raise ImportError("train.tensorboard=true needs TensorBoard: pip install tensorboard.")
    elif wanted is None:
        log_once(_logger, logging.INFO, "No TensorBoard logs: pip install tensorboard for them.")
    if config.get("wandb") is not None:
        if not importlib.util.find_spec("wandb"):
            raise ImportError("wandb=… needs Weights & Biases: pip install wandb, or set wandb=null.")
        from pytorch_lightning.loggers import WandbLogger

        made.append(WandbLogger(**{"save_dir": directory, "name": directory.name, **config["wandb"]}))
    return made


def finish(made: Sequence[Logger], failed: bool) -> None:
    """End a run of W&B, so that the next one of this process is a run of its own; Lightning closes the files."""
    wandb = sys.modules.get("wandb")
    if any(type(logger).__name__ == "WandbLogger" for logger in made) and getattr(wandb, "run", None) is not None:
        wandb.run.finish(exit_code=int(failed))  # type: ignore[union-attr]
