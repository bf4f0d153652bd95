"""Optimizers and schedulers by the host's names."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from hope_ssm.checks import check_choice
from hope_ssm.layers.parameter_groups import parameter_groups
from hope_ssm.workbench.options import instantiate


def _warmup(optimizer: torch.optim.Optimizer, num_warmup_steps: int, decay: Callable[[int], float]) -> Any:
    """Rise linearly over the warm-up, then follow ``decay(step)``, a factor of the full rate."""
    return lr_scheduler.LambdaLR(
        optimizer, lambda step: step / max(1, num_warmup_steps) if step < num_warmup_steps else decay(step)
    )


def constant(optimizer: torch.optim.Optimizer) -> Any:
    """Return a schedule that leaves the rate alone."""
    return _warmup(optimizer, 0, lambda _: 1.0)


def constant_warmup(optimizer: torch.optim.Optimizer, num_warmup_steps: int = 0) -> Any:
    """Return a linear rise over the warm-up, then the full rate."""
    return _warmup(optimizer, num_warmup_steps, lambda _: 1.0)


def _progress(step: int, num_training_steps: int, num_warmup_steps: int) -> float:
    return min(1.0, (step - num_warmup_steps) / max(1, num_training_steps - num_warmup_steps))


def linear_warmup(optimizer: torch.optim.Optimizer, num_training_steps: int, num_warmup_steps: int = 0) -> Any:
    """Return a linear rise over the warm-up, then a line down to 0 at the last step."""
    return _warmup(optimizer, num_warmup_steps, lambda step: 1 - _progress(step, num_training_steps, num_warmup_steps))


def cosine_warmup(optimizer: torch.optim.Optimizer, num_training_steps: int, num_warmup_steps: int = 0) -> Any:
    """Return a linear rise over the warm-up, then (1 + cos π·progress) / 2 down to 0 at the last step."""

    def decay(step: int) -> float:
        return (1 + math.cos(math.pi * _progress(step, num_training_steps, num_warmup_steps))) / 2

    return _warmup(optimizer, num_warmup_steps, decay)


OPTIMIZERS = {
    "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "rmsprop": torch.optim.RMSprop, "sgd": torch.optim.SGD
}  # fmt: skip
SCHEDULERS: dict[str, Callable[..., Any]] = {
    "constant": constant,
    "constant_warmup": constant_warmup,
    "cosine": lr_scheduler.CosineAnnealingLR,
    "cosine_warmup": cosine_warmup,
    "linear_warmup": linear_warmup,
    "multistep": lr_scheduler.MultiStepLR,
    "plateau": lr_scheduler.ReduceLROnPlateau,
    "step": lr_scheduler.StepLR,
}


def configure(module: nn.Module, config: Mapping[str, Any]) -> dict:
    """Return what Lightning's ``configure_optimizers`` returns, from optimizer, scheduler, train and trainer.

    The plateau schedule is asked after epochs with a validation alone: its patience is a number of these.
    """
    groups = [{k: v for k, v in group.items() if k != "names"} for group in parameter_groups(module)]
    built = instantiate("optimizer", OPTIMIZERS, config["optimizer"], params=groups)
    train = config["train"]
    schedule: dict[str, Any] = {
        "scheduler": instantiate("scheduler", SCHEDULERS, config["scheduler"], optimizer=built),
        "interval": check_choice("train.interval", train["interval"], ("epoch", "step")),
        "monitor": train["monitor"],
    }
    if isinstance(schedule["scheduler"], lr_scheduler.ReduceLROnPlateau) and train["monitor"].startswith("val/"):
        schedule["frequency"] = config.get("trainer", {}).get("check_val_every_n_epoch") or 1
    return {"optimizer": built, "lr_scheduler": schedule}
