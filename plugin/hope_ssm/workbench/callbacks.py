"""Lightning callbacks by name, averaged weights, the progress bar."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import callbacks as lightning
from pytorch_lightning.callbacks import Callback

from hope_ssm.analysis.callback import HankelCallback
from hope_ssm.workbench.options import instantiate


def averaging(decay: Any) -> list[Callback]:
    """Return the callback of ``train.ema``: w̄ ← decay·w̄ + (1 - decay)·w after every step; w̄ is evaluated and saved."""
    if not isinstance(decay, (int, float)) or isinstance(decay, bool) or not 0 <= decay < 1:
        raise ValueError(f"train.ema must be a number of at least 0 and below 1; got {decay!r}.")
    if decay == 0:
        return []
    if not hasattr(lightning, "EMAWeightAveraging"):
        raise ImportError(
            f"train.ema={decay} needs pytorch-lightning 2.6 or newer; got {pl.__version__}: "
            "pip install 'pytorch-lightning>=2.6'."
        )
    return [lightning.EMAWeightAveraging(decay=decay)]


CALLBACKS = {
    "early_stopping": lightning.EarlyStopping,
    "timer": lightning.Timer,
    "hankel": HankelCallback,
}


def named_callbacks(config: Mapping[str, Any] | None, train: Mapping[str, Any]) -> list[Callback]:
    """Return the callbacks of the group ``callbacks``: {name: options}, or {any name: {_target_: …}} for others."""
    made = []
    for name, options in (config or {}).items():
        if options is None:
            continue
        if "_target_" in options:
            from hydra.utils import instantiate as build

            made.append(build(options))
            continue
        given = {}
        if name == "early_stopping":
            given = {"monitor": train["monitor"], "mode": train["mode"]}
            given |= {"check_on_train_epoch_end": True} if train["monitor"].startswith("train/") else {}
        made.append(instantiate("callbacks", CALLBACKS, {"_name_": name, **options}, **given))
    return made


def progress_bar() -> list[Callback]:
    """Return rich's progress bar, or nothing where rich is absent; then Lightning shows its own."""
    return [lightning.RichProgressBar(leave=True)] if importlib.util.find_spec("rich") else []
