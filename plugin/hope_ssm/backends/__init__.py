"""Ways to evaluate the polynomial in the all-pass node, one file each, chosen by name.

Each backend is a function ``evaluate(coefficients (..., n), sampling_period (...), length) -> (..., F) complex``.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable

import torch
from torch import Tensor

from hope_ssm.checks import check_choice, log_once

Evaluate = Callable[[Tensor, Tensor, int], Tensor]

MODULES = {"blocked": "hope_ssm.backends.blocked", "dense": "hope_ssm.backends.dense"}
NAMES = ("auto", *MODULES)

_logger = logging.getLogger("hope_ssm.backends")


def automatic(device: torch.device) -> str:
    """Return the backend that ``auto`` takes on ``device``: blocked, the fastest that runs everywhere."""
    log_once(_logger, logging.INFO, f"backend=auto chose 'blocked' on {device.type}.")
    return "blocked"


def get(name: str, device: torch.device) -> Evaluate:
    """Return the ``evaluate`` of backend ``name`` for tensors on ``device``; unknown names raise ``ValueError``."""
    check_choice("backend", name, NAMES)
    if name == "auto":
        name = automatic(device)
    return importlib.import_module(MODULES[name]).evaluate
