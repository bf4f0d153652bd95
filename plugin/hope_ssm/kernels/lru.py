"""LRU: a diagonal linear recurrence in discrete time, initialized on a ring."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hope_ssm.checks import check_positive_number
from hope_ssm.kernels.base import S4_OPTIONS
from hope_ssm.kernels.modal import Diagonal, ModalKernel
from hope_ssm.kernels.optimizer_options import OptimizerOption

MARGIN = 1e-6  # of the uniform numbers from 0 and 1, whose logarithms are taken


class LRUKernel(ModalKernel):
    """k_t = 2 Re Σ_j C_j λ_jᵗ γ_j B_j  with  λ = exp(-exp(ν) + i exp(θ)),  γ = √(1 - |λ|²) at the start.

    n real states are n/2 complex modes with their conjugates. There is no Δt: the recurrence is learned as it is, so
    ``rate`` must be 1. ν, θ, log γ and B are shared by n_ssm. At the start |λ|² is uniform on [r_min², r_max²] and the
    phase on [0, max_phase]; then white noise gives every mode the variance |B|², and every output the variance 1.

    The layer of the paper maps all d_model features to one state and back, by dense B and C. Here every feature has
    its own n states, and y is twice the real part, as for the other kernels. ``lr`` and ``wd`` know
    the keys A (ν, θ, γ), B (a bare number rules these) and C.

    Args:
        d_model: H features.
        d_state: n, even.
        r_min: inner radius of the ring, 0 ≤ r_min < r_max.
        r_max: outer radius of the ring, at most 1.
        max_phase: the largest initial phase in radians per sample, above 0, at most 2π.
        **shared: ``channels``, ``l_max``, ``n_ssm``, ``deterministic``, ``lr``, ``wd``, ``verbose``: see
            ``SequenceKernel``.

    Source: Orvieto, Smith, Gu, Fernando, Gulcehre, Pascanu, De, "Resurrecting Recurrent Neural Networks for Long
    Sequences", ICML 2023 (arXiv 2303.06349).
    """

    name = "lru"
    optimizer_options = {  # noqa: RUF012
        "nu_log": OptimizerOption(("A",)),
        "theta_log": OptimizerOption(("A",)),
        "gamma_log": OptimizerOption(("A",)),
        "B": OptimizerOption(("B",)),
        "C": OptimizerOption(("C",), bare="never"),
    }
    idle_optimizer_options = ("dt", "sampling_period")
    idle_options = S4_OPTIONS | {"init", "dt_min", "dt_max", "dt_transform"}
    sampling_period = None
    nu_log: Tensor
    theta_log: Tensor
    gamma_log: Tensor

    def __init__(
        self,
        *,
        d_state: int = 64,
        r_min: float = 0.9,
        r_max: float = 0.999,
        max_phase: float = 2 * math.pi,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.n = self.check_order(d_state)
        if r_min != 0:
            check_positive_number("r_min", r_min)
        if not r_min < check_positive_number("r_max", r_max) <= 1:
            raise ValueError(f"r_min and r_max must be 0 <= r_min < r_max <= 1; got r_min={r_min} and r_max={r_max}.")
        if check_positive_number("max_phase", max_phase) > 2 * math.pi + MARGIN:
            raise ValueError(f"max_phase must be at most 2π; got {max_phase}.")
        radius, phase = self._positions(), self._positions()
        decay = -torch.log(r_min**2 + radius * (r_max**2 - r_min**2)) / 2
        self.register("nu_log", torch.log(decay))
        self.register("theta_log", torch.log(max_phase * phase))
        self.register("gamma_log", torch.log(-torch.expm1(-2 * decay)) / 2)
        B, C = torch.randn(self.n_ssm, self.n // 2, 2) / math.sqrt(2), self.initial_outputs()
        if self.deterministic:
            B = torch.tensor([1.0, 0.0]).expand_as(B)
        self.register("B", B.clone())
        self.register("C", C / math.sqrt(self.n))

    def _positions(self) -> Tensor:
        """Numbers (n_ssm, n/2) uniform on (0, 1); evenly spaced when deterministic."""
        shape = (self.n_ssm, self.n // 2)
        if self.deterministic:
            return ((torch.arange(shape[1], dtype=torch.float64) + 0.5) / shape[1]).expand(shape)
        return torch.rand(shape, dtype=torch.float64).clamp(MARGIN, 1 - MARGIN)

    def discretized(self, rate: float = 1.0) -> tuple[Diagonal, Tensor]:
        """(Λ, γB (H, n) in coordinates), float64; the rate must be 1."""
        self.check_no_rate(rate)
        radius, phase = torch.exp(-torch.exp(self.nu_log.double())), torch.exp(self.theta_log.double())
        gamma = torch.exp(self.gamma_log.double()).repeat(1, 2)
        transition = Diagonal(self.per_feature(radius * torch.cos(phase)), self.per_feature(radius * torch.sin(phase)))
        return transition, self.per_feature(gamma) * self.inputs()
