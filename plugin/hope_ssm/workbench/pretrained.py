"""The weights of another run as the start of a training: ``train.init_from``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm import registry
from hope_ssm.workbench.resuming import read_checkpoint
from hope_ssm.workbench.run_directory import BEST, LAST

OPTION, OTHER_NAME = "train.init_from", "train.pretrained_model_path"


def checkpoint_of(train: Mapping[str, Any]) -> str | None:
    """Return the checkpoint that a training begins with, the best one of a run; None if it names none.

    Raises:
        ValueError: both names of the option are given, or there is neither a file nor a run.
    """
    given = {name: value for name in (OPTION, OTHER_NAME) if (value := train.get(name.split(".")[1])) is not None}
    if len(given) > 1:
        raise ValueError(
            f"{OPTION} and {OTHER_NAME}, its name in the host, must not both be given; got "
            f"{' and '.join(map(repr, given.values()))}. Use {OPTION} alone."
        )
    for option, path in given.items():
        for candidate in (Path(path), Path(path) / BEST, Path(path) / LAST):
            if candidate.is_file():
                return str(candidate)
        raise ValueError(
            f"{option} must be the directory of a run of hope train, or a checkpoint of one; {str(path)!r} is neither."
        )
    return None


def initialize(task: nn.Module, config: Mapping[str, Any], path: str) -> str:
    """Give a model the weights of a checkpoint that fit, those of the same name and shape, and return which in words.

    Only weights are read, neither optimizer nor epoch, and no code of the checkpoint is run. Parameters of a kernel are
    taken by a kernel of the same kind alone: B of S4D has the name and the shape of B of S4, but is another thing.

    Args:
        task: a ``SequenceTask``.
        config: its configuration.
        path: of a checkpoint of hope train.

    Raises:
        ValueError: no such checkpoint, or no weight of its layers fits.
    """
    saved = read_checkpoint(path, OPTION)
    theirs, ours = saved["state_dict"], task.state_dict()
    same_kernel = _kernel(saved["hyper_parameters"]["config"]) == _kernel(config)
    taken: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    for name in dict.fromkeys([*ours, *theirs]):
        if name not in theirs:
            left[name] = "only here"
        elif name not in ours:
            left[name] = "only there"
        elif ".kernel." in name and not same_kernel:
            left[name] = "of another kernel"
        elif ours[name].shape != theirs[name].shape:
            left[name] = f"{tuple(ours[name].shape)} here, {tuple(theirs[name].shape)} there"
        else:
            taken[name] = theirs[name]
    if not any(name.startswith("model.") for name in taken):
        name, reason = next((name, reason) for name, reason in left.items() if name.startswith("model."))
        raise ValueError(
            f"{OPTION} must have weights that fit the layers of this model; none of {path!r} does, for example {name}: "
            f"{reason}. Set model and kernel as in that run."
        )
    task.load_state_dict(taken, strict=False)
    listed = "\n".join(f"  {name}: {reason}" for name, reason in left.items())
    of = f"Weights of {path}: {len(taken)} of {len(ours)} tensors taken ({', '.join(_parts(taken))})."
    return f"{of} Not taken:\n{listed}" if left else of


def _kernel(config: Mapping[str, Any]) -> type:
    """The class of the kernel in a configuration."""
    layer = config["model"]["layer"]
    return registry.get(layer.get("mode") or layer.get("kernel"))


def _parts(names: Mapping[str, torch.Tensor]) -> list[str]:
    """Encoder, layers and decoder, as far as tensors of them are named."""
    depth = {"model.layers": 3, "model.norm": 2}
    return list(dict.fromkeys(".".join(n.split(".")[: depth.get(".".join(n.split(".")[:2]), 1)]) for n in names))
