"""Checkpoints of state-spaces/s4: its kernels as ours, without the host where they are the same mathematics.

The host's S4D and S4 keep λ = -f(A_real) - i g(A_imag) with positive f and g (``real_transform``, ``imag_transform``),
Δt by ``dt_transform`` of ``inv_dt``, and share copy h mod n_ssm; S4 trains C̃ = C (1 - Ā^L) with L = ``l_kernel``.
"""

from __future__ import annotations

import inspect
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.nodes import AnyNode
from torch import Tensor, nn

from hope_ssm import registry
from hope_ssm.hosts.state_spaces import host_registry
from hope_ssm.kernels.base import TRANSFORMS
from hope_ssm.kernels.s4 import S4Kernel
from hope_ssm.kernels.s4d import DISCRETIZATIONS, S4DKernel

# What the host's configuration, which its checkpoints hold, is made of; nothing here runs code when it is read.
_CONFIGURATION: list[Any] = [
    *(DictConfig, ListConfig, AnyNode, Metadata, ContainerMetadata),
    *(Any, defaultdict, dict, list, int, float, str, bool),
]
_POSITIVE = {
    "none": lambda x: x,
    "exp": torch.exp,
    "relu": lambda x: torch.relu(x) + 1e-4,
    "sigmoid": torch.sigmoid,
    "softplus": nn.functional.softplus,
}
_S4D = {"inv_dt", "A_real", "A_imag", "B", "C"}
_S4 = _S4D | {"P", "l_kernel"}
# Options of the host's kernels that give a system ours does not have, and what they must be.
_PLAIN = {"dt_tie": True, "dt_fast": False, "is_real": False, "bandlimit": None}


def read(path: str | os.PathLike) -> dict[str, Any] | None:
    """Return the checkpoint in a file if state-spaces/s4 wrote it, else None; no code of it is run."""
    if not Path(path).is_file() or not hasattr(torch.serialization, "safe_globals"):
        return None
    try:
        with torch.serialization.safe_globals(_CONFIGURATION):
            saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:
        return None  # whoever reads it as something else says what it is not
    known = saved.get("hyper_parameters") if isinstance(saved, dict) else None
    return saved if isinstance(known, DictConfig) and "model" in known and "state_dict" in saved else None


def is_layer(options: Mapping[str, Any]) -> bool:
    """Whether a mapping of the configuration names a kernel."""
    return bool(options.get("mode") or options.get("kernel"))


def layer_options(config: DictConfig) -> dict[str, Any]:
    """Return the options of the layer with the kernel, under ``mode`` or ``kernel``, from the host's configuration.

    Raises:
        ValueError: no such layer, or several that are not alike.
    """
    found = [
        layer for layer in _mappings(OmegaConf.to_container(config["model"])) if layer.get("mode", layer.get("kernel"))
    ]
    if not found or any(layer != found[0] for layer in found):
        raise ValueError(
            f"the model of a checkpoint of state-spaces/s4 must have one kind of layer with a kernel; got {len(found)}."
        )
    return found[0]


def _mappings(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _mappings(child)


def kernels(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the kernels of a checkpoint by the names of their layers, in evaluation mode.

    Kernels of this package are built as they are, S4D and S4 of the host as ours with the same systems. Any other needs
    the host itself.

    Raises:
        ValueError: there is no kernel.
        ImportError: a kernel needs the host, and there is none.
    """
    layers: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in checkpoint["state_dict"].items():
        layer, dot, name = key.rpartition(".kernel.")
        if dot:
            layers[layer][name] = value
    if not layers:
        raise ValueError("the model must have a layer with a kernel; that of the checkpoint has none.")
    options = layer_options(checkpoint["hyper_parameters"])
    return {layer: _kernel(parameters, options).eval() for layer, parameters in layers.items()}


def _kernel(parameters: dict[str, Tensor], options: Mapping[str, Any]) -> nn.Module:
    plain = all(options.get(key, value) == value for key, value in _PLAIN.items())
    if set(parameters) == _S4D and plain and options.get("disc", "zoh") in DISCRETIZATIONS:
        return _s4d(parameters, options, options.get("disc", "zoh"))
    if set(parameters) == _S4 and plain:
        return _s4(parameters, options)
    name = options.get("mode") or options["kernel"]
    if name in registry.names() and "inv_dt" not in parameters:
        kernel = _built(registry.get(name), parameters, options)
        if set(kernel.state_dict()) == set(parameters):
            kernel.load_state_dict(parameters)
            return kernel
    kernel = _built(host_registry(name), parameters, options)
    kernel.load_state_dict(parameters)
    return kernel


def _built(make: Any, parameters: Mapping[str, Tensor], options: Mapping[str, Any]) -> nn.Module:
    """A kernel with the options its constructor takes; channels and features from a parameter (C, H, …)."""
    sized = [parameters[name] for name in ("markov_parameters", "C", "samples", "kernel") if name in parameters]
    if not sized:
        raise ValueError(
            "a kernel must hold markov_parameters, C or samples to be rebuilt from a checkpoint; got "
            f"{', '.join(parameters)}."
        )
    taken = {key for cls in make.__mro__ if cls is not object for key in inspect.signature(cls).parameters}
    taken -= {"lr", "wd", "verbose", "channels", "d_model"}
    kept = {key: value for key, value in options.items() if key in taken}
    channels, features = sized[0].shape[:2]
    return make(channels=channels, d_model=features, verbose=False, **kept)


def _shared(parameters: Mapping[str, Tensor], options: Mapping[str, Any]) -> dict[str, Tensor]:
    """λ, B, C and Δt as S4D keeps them, in float64."""
    wide = {name: value.double() for name, value in parameters.items()}
    real = _POSITIVE[options.get("real_transform", "exp")](wide["A_real"])
    period = _POSITIVE[options.get("dt_transform", "exp")](wide["inv_dt"])
    return {
        "A_real": torch.log(real),
        "A_imag": -_POSITIVE[options.get("imag_transform", "none")](wide["A_imag"]),
        "B": wide["B"].squeeze(0),
        "C": wide["C"],
        "raw_sampling_period": TRANSFORMS["exp"][1](period.squeeze(-1)),
    }


def _sizes(parameters: Mapping[str, Tensor]) -> dict[str, Any]:
    channels, features, modes = parameters["C"].shape[:3]
    return {
        "d_model": features, "channels": channels, "d_state": 2 * modes, "n_ssm": len(parameters["A_real"]),
        "dt_transform": "exp", "verbose": False,
    }  # fmt: skip


def _s4d(parameters: Mapping[str, Tensor], options: Mapping[str, Any], disc: str) -> S4DKernel:
    kernel = S4DKernel(**_sizes(parameters), disc=disc).double()
    kernel.load_state_dict(_shared(parameters, options))
    return kernel


@torch.no_grad()
def _s4(parameters: Mapping[str, Tensor], options: Mapping[str, Any]) -> S4Kernel:
    P, length = parameters["P"].double(), int(parameters["l_kernel"])
    kernel = S4Kernel(**_sizes(parameters), rank=len(P)).double()
    kernel.load_state_dict({**_shared(parameters, options), "P": P})
    if length:
        (A,) = kernel.discretized()[0].squares(1)
        powered = torch.eye(A.shape[-1], dtype=A.dtype) - torch.linalg.matrix_power(A, length)
        rows = torch.linalg.solve(powered.mT.unsqueeze(0), kernel.outputs().unsqueeze(-1)).squeeze(-1)
        real, imaginary = (rows / 2).chunk(2, dim=-1)
        kernel.C.copy_(torch.stack([real, -imaginary], dim=-1))
    return kernel
