"""Ways to compute a HOPE kernel, one file each, chosen by name.

A backend has two functions of (coefficients (..., n), sampling_period (...), length):

    samples  -> (..., F) complex, the polynomial Σ_k c_k P(e^{iθ})ᵏ at the frequencies of ``frequency_grid``,
    response -> (..., L) real, r_t = Σ_k c_k λ_k(t), the same filter through P's prefactor in time (see ``krylov``).

A file defines one of them or both. Samples that a file lacks are those of ``blocked``; a response that it lacks comes
from its samples (see ``from_samples``).
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
from hope_ssm.extras import install_line
from hope_ssm.ops.frequency import laguerre_prefactor
from hope_ssm.ops.toeplitz import allpass_power, transposed_product
from hope_ssm.ops.transforms import into_onnx, transformed

Function = Callable[[Tensor, Tensor, int], Tensor]


@dataclass(frozen=True)
class Backend:
    """One way to compute a kernel: samples of the polynomial, and the response in time.

    Attributes:
        samples: (..., n), (...), L → (..., F) complex.
        response: (..., n), (...), L → (..., L) real.
    """

    samples: Function
    response: Function


MODULES = {
    "blocked": "hope_ssm.ops.backends.blocked",
    "dense": "hope_ssm.ops.backends.dense",
    "keops": "hope_ssm.ops.backends.keops",
    "krylov": "hope_ssm.ops.backends.krylov",
    "triton": "hope_ssm.ops.backends.triton",
}
_PACKAGES = {"keops": "pykeops", "triton": "triton"}
NAMES = ("auto", *MODULES)
_loaded: dict[str, Backend] = {}

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
            f"backend={name!r} needs {package}, which is absent: {install_line(name)}. backend='auto' needs nothing."
        )
    if name == "triton" and device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(
            f"backend='triton' must compute on a GPU; got {device.type}. backend='auto' computes everywhere."
        )


def get(name: str, device: torch.device) -> Backend:
    """Return backend ``name`` for tensors on ``device``.

    keops and triton compute numbers and gradients alone; blocked stands in for them under torch.func's transforms and
    in forward-mode differentiation. torch.onnx.export has samples of dense and responses of krylov, whatever the name.

    Raises:
        ValueError: an unknown name, or a device that the backend does not compute on.
        ImportError: a package that it needs is absent.
    """
    if into_onnx():
        return Backend(_loaded[_load("dense", device, False)].samples, _loaded[_load("krylov", device, False)].response)
    return _loaded[_load(name, device, transformed())]


@torch.compiler.assume_constant_result  # it imports and logs, which torch.compile does not trace
def _load(name: str, device: torch.device, differentiated: bool) -> str:
    check_choice("backend", name, NAMES)
    if name == "auto":
        name = automatic(device)
    check_available(name, device)
    if differentiated and name in _PACKAGES:
        name = "blocked"
    if name not in _loaded:
        module = importlib.import_module(MODULES[name])
        samples = getattr(module, "samples", None) or importlib.import_module(MODULES["blocked"]).samples
        _loaded[name] = Backend(samples, getattr(module, "response", None) or from_samples(samples))
    return name


def from_samples(samples: Function) -> Function:
    """Return the response  r_t, t < L, by way of  R(z) = Σ_k c_k Pᵏ / (1 + a z⁻¹).

    L samples of R give r without wrap-around once the response ends at L: with q the series of A^L (see ``toeplitz``),
    c - T(q)ᵀ c has the same first L samples and nothing after them.
    """

    def response(coefficients: Tensor, sampling_period: Tensor, length: int) -> Tensor:
        c = coefficients.double()
        ending = c - transposed_product(allpass_power(sampling_period.double(), length, c.shape[-1]), c)
        values = samples(ending.to(sampling_period.dtype), sampling_period, length)
        return torch.fft.irfft(laguerre_prefactor(sampling_period, length) * values, n=length)

    return response
