"""Ways to compute a HOPE kernel, one file each, chosen by name.

Each has a function ``evaluate(coefficients (..., n), sampling_period (...), length) -> (..., F) complex``, the
polynomial in the all-pass node; ``krylov`` also has its own ``response(the same) -> (..., L)``, without frequencies.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hope_ssm.checks import check_choice, log_once


@dataclass(frozen=True)
class Evaluate:
    """A backend. Called, it gives samples of the polynomial; ``response`` is its own way through time, or None."""

    evaluate: Callable[[Tensor, Tensor, int], Tensor]
    response: Callable[[Tensor, Tensor, int], Tensor] | None

    def __call__(self, coefficients: Tensor, sampling_period: Tensor, length: int) -> Tensor:
        """(..., n), (...), L → (..., F) complex."""
        return self.evaluate(coefficients, sampling_period, length)


MODULES = {
    "blocked": "hope_ssm.ops.backends.blocked",
    "dense": "hope_ssm.ops.backends.dense",
    "keops": "hope_ssm.ops.backends.keops",
    "krylov": "hope_ssm.ops.backends.krylov",
    "triton": "hope_ssm.ops.backends.triton",
}
_PACKAGES = {"keops": "pykeops", "triton": "triton"}
NAMES = ("auto", *MODULES)
_loaded: dict[str, Evaluate] = {}

_logger = logging.getLogger("hope_ssm.ops.backends")


def automatic(device: torch.device) -> str:
    """Return the backend that ``auto`` takes on ``device``: krylov, the fastest at every size and dtype measured."""
    log_once(_logger, logging.INFO, f"backend=auto chose 'krylov' on {device.type}.")
    return "krylov"


def check_available(name: str, device: torch.device) -> None:
    """Raise ``ImportError`` if a package that backend ``name`` needs is absent, ``ValueError`` on a wrong device."""
    package = _PACKAGES.get(name)
    if package and importlib.util.find_spec(package) is None:
        raise ImportError(
            f"backend={name!r} needs {package}, which is absent: pip install 'hope-ssm[{name}]'. "
            "backend='auto' needs nothing."
        )
    if name == "triton" and device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(
            f"backend='triton' must compute on a GPU; got {device.type}. backend='auto' computes everywhere."
        )


def get(name: str, device: torch.device) -> Evaluate:
    """Return backend ``name`` for tensors on ``device``.

    Raises:
        ValueError: an unknown name, or a device that the backend does not compute on.
        ImportError: a package that it needs is absent.
    """
    return _loaded[_load(name, device)]


@torch.compiler.assume_constant_result  # it imports and logs, which torch.compile does not trace
def _load(name: str, device: torch.device) -> str:
    check_choice("backend", name, NAMES)
    if name == "auto":
        name = automatic(device)
    check_available(name, device)
    if name not in _loaded:
        module = importlib.import_module(MODULES[name])
        _loaded[name] = Evaluate(module.evaluate, getattr(module, "response", None))
    return name
