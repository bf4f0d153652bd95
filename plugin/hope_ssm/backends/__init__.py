"""Ways to evaluate the polynomial in the all-pass node, one file each, chosen by name.

Each backend is a function ``evaluate(coefficients (..., n), sampling_period (...), length) -> (..., F) complex`` and
its adjoint in the coefficients, ``moments(values (..., F) complex, sampling_period (...), length, n) -> (..., n)``.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from hope_ssm.checks import check_choice, log_once

Evaluate = Callable[[Tensor, Tensor, int], Tensor]
Moments = Callable[[Tensor, Tensor, int, int], Tensor]

MODULES = {"blocked": "hope_ssm.backends.blocked", "dense": "hope_ssm.backends.dense"}
NAMES = ("auto", *MODULES)
_loaded: dict[str, Evaluate] = {}
_adjoints: dict[str, Moments] = {}

_logger = logging.getLogger("hope_ssm.backends")


def automatic(device: torch.device) -> str:
    """Return the backend that ``auto`` takes on ``device``: blocked, the fastest that runs everywhere."""
    log_once(_logger, logging.INFO, f"backend=auto chose 'blocked' on {device.type}.")
    return "blocked"


def full_precision(device: torch.device) -> AbstractContextManager:
    """Return a context in which autocast leaves matrix products on ``device`` in the precision of their factors."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def get(name: str, device: torch.device) -> Evaluate:
    """Return the ``evaluate`` of backend ``name`` for tensors on ``device``; unknown names raise ``ValueError``."""
    return _loaded[_load(name, device)]


def adjoint(name: str, device: torch.device) -> Moments:
    """Return the ``moments`` of backend ``name`` for tensors on ``device``; unknown names raise ``ValueError``."""
    return _adjoints[_load(name, device)]


@torch.compiler.assume_constant_result  # it imports and logs, which torch.compile does not trace
def _load(name: str, device: torch.device) -> str:
    check_choice("backend", name, NAMES)
    if name == "auto":
        name = automatic(device)
    if name not in _loaded:
        module = importlib.import_module(MODULES[name])
        _loaded[name], _adjoints[name] = module.evaluate, module.moments
    return name
