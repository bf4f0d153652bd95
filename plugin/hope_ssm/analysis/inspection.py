"""What the layers of a model remember: Hankel singular values, ranks, impulse responses, transfer functions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.checks import check_positive_integer
from hope_ssm.hankel import (
    StateSpace,
    diagonal_singular_values,
    hankel_singular_values,
    memory_length,
    numerical_rank,
    response_singular_values,
    state_space_singular_values,
)
from hope_ssm.kernels.hope import HopeKernel
from hope_ssm.kernels.s4d import S4DKernel
from hope_ssm.kernels.to_state_space import modes, stepped_system

EPSILONS = (1e-1, 1e-2, 1e-3, 1e-6)
SAMPLES = 256  # of an impulse response, for the singular values of a kernel without steps


def kernels(model: nn.Module) -> dict[str, Any]:
    """Return the convolution kernels of a model by the names of their layers, in the workbench and in state-spaces/s4.

    A kernel is what a layer calls ``kernel``, or has in a list of that name, and calls with ``L``.
    """
    found = {}
    for name, module in model.named_modules():
        layer = re.fullmatch(r"(?:(.*)\.)?kernel(\.\d+)?", name)
        if layer and "L" in inspect.signature(module.forward).parameters:
            found[(layer[1] or "") + (layer[2] or "")] = module
    return found


@torch.no_grad()
def kernel_singular_values(kernel: nn.Module, response: Tensor, features: Tensor) -> tuple[Tensor, Tensor, str]:
    """σ (C, F, n) of some features of any kernel, a bound of their error (C, F), and how they were found.

    For hope they come exactly from h, at every Δt; for S4D from its modes; for other recurrent kernels from the
    Gramians of their steps. For kernels without steps they come from the first samples of the response, and the sum of
    the moduli of the rest is the bound.

    Args:
        kernel: any kernel with C channels.
        response: (C, H, L), for the last of these.
        features: indices (F,).
    """
    response = response[:, features].double()
    exact = response.new_zeros(response.shape[:-1])
    if isinstance(kernel, HopeKernel) and not kernel.noncausal:
        return hankel_singular_values(kernel.markov_parameters[:, features].double()), exact, "Markov parameters"
    if type(kernel) is S4DKernel:
        poles, B, C = modes(kernel, features)
        return diagonal_singular_values(poles, B, C), exact, "modes"
    try:
        full = stepped_system(kernel)[features]
    except (NotImplementedError, AttributeError):  # no recurrent mode
        return *response_singular_values(response, SAMPLES), f"the first {SAMPLES} samples of the response"
    values = [
        state_space_singular_values(StateSpace(full.A, full.B, full.C[:, c : c + 1], full.D[:, c : c + 1]))
        for c in range(len(response))
    ]
    return torch.stack(values), exact, "Gramians of the steps"


@dataclass(frozen=True)
class LayerView:
    """One layer: C channels, H features, L samples.

    singular_values (C, H, n) with ``error`` (C, H) at most; responses (C, H, L); gains |G| (C, H, L + 1) at the angles
    πj/L, of those L samples; memory (C, H) steps; sampling_periods (H,) and the window n/Δt (H,) of hope, or None.
    """

    kernel: str
    method: str
    singular_values: Tensor
    error: Tensor
    responses: Tensor
    gains: Tensor
    memory: Tensor
    sampling_periods: Tensor | None
    windows: Tensor | None

    def summary(self) -> dict[str, Any]:
        """Return the numbers for a JSON file."""
        ranks = {f"{epsilon:g}": numerical_rank(self.singular_values, epsilon).tolist() for epsilon in EPSILONS}
        optional = {"sampling_period": self.sampling_periods, "window": self.windows}
        return {
            "kernel": self.kernel, "method": self.method, "singular_values": self.singular_values.tolist(),
            "singular_value_error": self.error.tolist(), "rank": ranks, "memory_length": self.memory.tolist(),
            "samples": self.responses.shape[-1],
            **{key: value.tolist() for key, value in optional.items() if value is not None},
        }  # fmt: skip


@torch.no_grad()
def view(kernel: nn.Module, length: int = 1024) -> LayerView:
    """Return the view of any kernel, from ``length`` samples of its impulse response and its states if it has them."""
    response = kernel(L=check_positive_integer("length", length))[0].detach().double().cpu()
    if not torch.isfinite(response).all():
        raise ValueError(
            f"the kernel must have a finite impulse response; that of {type(kernel).__name__} has infinite or NaN "
            "samples. Inspect a checkpoint from before the training diverged."
        )
    values, error, method = kernel_singular_values(kernel, response, torch.arange(response.shape[1]))
    period = getattr(kernel, "sampling_period", None)
    dt = None if period is None else period.detach().double().cpu()
    windows = kernel.n / dt if isinstance(kernel, HopeKernel) and dt is not None else None
    gains = torch.fft.rfft(response, n=2 * length).abs()
    name = getattr(kernel, "name", type(kernel).__name__)
    return LayerView(name, method, values, error, response, gains, memory_length(response), dt, windows)


def inspect_kernels(found: Mapping[str, nn.Module], length: int = 1024) -> dict[str, LayerView]:
    """Return the view of every kernel by its name; raise ``ValueError`` if there is none."""
    if not found:
        raise ValueError("the model must have a layer with a kernel; it has none.")
    return {name: view(kernel, length) for name, kernel in found.items()}
