"""A checkpoint of state-spaces/s4 cut down to fewer states: another one, with the kernel ``reduced``."""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import InterpolationResolutionError
from torch import nn

from hope_ssm.arithmetic import arithmetic_resolver
from hope_ssm.hosts.checkpoints import is_layer, layer_options
from hope_ssm.hosts.state_spaces import register
from hope_ssm.kernels.reduced import Reduction, reduce_kernel, reduced_options


def _with_reduced(node: Any, kernel: type, d_state: int) -> Any:
    """A nested configuration in which every layer with a kernel has the reduced one."""
    if isinstance(node, dict):
        node = {key: _with_reduced(child, kernel, d_state) for key, child in node.items()}
        return reduced_options(node, kernel, d_state) if is_layer(node) else node
    return [_with_reduced(child, kernel, d_state) for child in node] if isinstance(node, list) else node


def reduce_checkpoint(
    checkpoint: Mapping[str, Any],
    kernels: Mapping[str, nn.Module],
    out: str | os.PathLike,
    tolerance: float | None = None,
    states: int | None = None,
) -> tuple[dict[str, Any], dict[str, nn.Module], dict[str, Reduction]]:
    """Write a checkpoint for the host with every kernel reduced; return it, the kernels, and how good they are.

    Args:
        checkpoint: of the host.
        kernels: those of the checkpoint, see ``checkpoints.kernels``.
        out: the new file, for ``train.pretrained_model_path`` under the same overrides with those of ``overrides``.
        tolerance: see ``hope_ssm.kernels.reduced.reduce_kernel``; the same for all layers.
        states: see ``hope_ssm.kernels.reduced.reduce_kernel``; the same for all layers.

    Raises:
        FileExistsError: ``out`` is there.
        NotImplementedError: a kernel without a recurrent mode.
    """
    if os.path.exists(out):
        raise FileExistsError(f"out must be a new file; {str(out)!r} is there. Name another.")
    made = {name: reduce_kernel(kernel, tolerance, states) for name, kernel in kernels.items()}
    n = max(kernel.n for kernel, _ in made.values())
    weights = {key: value for key, value in checkpoint["state_dict"].items() if ".kernel." not in key}
    for name, (kernel, _) in made.items():
        weights |= {f"{name}.kernel.{key}": value.float() for key, value in kernel.padded(n).items()}
    config = copy.deepcopy(checkpoint["hyper_parameters"])
    kind = type(next(iter(kernels.values())))
    with open_dict(config):
        config["model"] = OmegaConf.create(_with_reduced(OmegaConf.to_container(config["model"]), kind, n))
    training = ("optimizer_states", "lr_schedulers", "loops", "callbacks")
    kept = {key: value for key, value in checkpoint.items() if key not in training}
    reduced = {**kept, "state_dict": weights, "hyper_parameters": config}
    torch.save(reduced, out)
    return reduced, {n: k for n, (k, _) in made.items()}, {n: r for n, (_, r) in made.items()}


def overrides(checkpoint: Mapping[str, Any], reduced: Mapping[str, Any]) -> list[str]:
    """Return what the command line that trained ``checkpoint`` must add to build the model of ``reduced``."""
    before, after = (layer_options(each["hyper_parameters"]) for each in (checkpoint, reduced))
    kept = {*after, "init", "measure", "kernel", "horizon"}
    dropped = [key for key, value in before.items() if key not in kept and value is not None]  # null has no deletion
    options = {"mode": "reduced", "d_state": after["d_state"], "n_ssm": "null", "init": "null"}
    return [f"model.layer.{key}={value}" for key, value in options.items()] + [f"~model.layer.{k}" for k in dropped]


def check_trusted(config: DictConfig) -> None:
    """Raise ``ValueError`` if the configuration of a checkpoint names a method that the host would call."""
    for hook in ("post_init_hook", "pretrained_model_state_hook"):
        name = OmegaConf.select(config, f"train.{hook}._name_")
        if name is not None:
            raise ValueError(
                f"train.{hook} of a checkpoint of state-spaces/s4 must be empty; it names {name!r}, which was not "
                "called. If you trust it, say --trust."
            )


def _refuse(text: str) -> Any:
    raise ValueError(
        f"${{eval:…}} in a checkpoint of state-spaces/s4 must be arithmetic of numbers (+ - * / // %); got {text!r}, "
        "which was not run. If you trust it, say --trust."
    )


def evaluate(checkpoint: Mapping[str, Any], trust: bool = False) -> dict[str, float] | None:
    """Return the metrics of a checkpoint on the data sets of the host's validation, or None where the host is not.

    Args:
        checkpoint: of the host.
        trust: run what the configuration of the checkpoint says beyond arithmetic, in ``${eval:…}`` and the host's
            hooks; without, nothing of it is run.

    Raises:
        ValueError: there is such code, and it is not trusted.
    """
    try:
        register()
        host = importlib.import_module("train")
    except ImportError:
        return None
    if not trust:
        check_trusted(checkpoint["hyper_parameters"])
    config: DictConfig = copy.deepcopy(checkpoint["hyper_parameters"])
    with open_dict(config):
        config["train"]["ema"] = 0.0
        config["callbacks"], config["wandb"] = {}, None
    try:
        with arithmetic_resolver(eval if trust else _refuse):
            return _validate(host.SequenceLightningModule(config), checkpoint["state_dict"], config)
    except InterpolationResolutionError as error:
        raise ValueError(str(error).splitlines()[0].partition("interpolation: ")[2] or str(error)) from None


def _validate(module: pl.LightningModule, weights: Mapping[str, Any], config: DictConfig) -> dict[str, float]:
    module.load_state_dict(weights)
    limits = {key: config["trainer"][key] for key in ("limit_val_batches",) if key in config["trainer"]}
    trainer = pl.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, devices=1,
        **limits,
    )  # fmt: skip
    return {name: value for found in trainer.validate(module, verbose=False) for name, value in found.items()}
