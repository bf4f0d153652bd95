"""DSS: a diagonal state space without B, in its two versions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hope_ssm.checks import check_choice, check_flag
from hope_ssm.kernels.base import S4_OPTIONS
from hope_ssm.kernels.modal import Diagonal, ModalKernel, exponential
from hope_ssm.kernels.optimizer_options import OptimizerOption
from hope_ssm.kernels.s4d import initial_poles

VARIANTS = ("exp", "softmax")


class DSSKernel(ModalKernel):
    """k_t = 2 Re Σ_j w_j B̄_j e^{Δtλ_jt}  with

        B̄ = (e^{Δtλ} - 1) / λ                          DSS-EXP, the zero-order hold of B = 1,
        B̄ = (e^{Δtλ} - 1) / (λ (e^{LΔtλ} - 1))         DSS-SOFTMAX, w_j / λ_j times the softmax of Δtλ_jt over t < L.

    n real states are n/2 complex modes with their conjugates; w is the parameter C. L is ``l_max``, whatever length is
    asked for. So the softmax is a state space too, and a short kernel is the start of a long one. In the paper L is
    the length of the batch, and step and convolution agree for that length alone. Re λ = -exp(A_real) is below 0 in
    both versions; the softmax of the paper also admits growing modes, which no recurrence could carry.
    ``lr`` and ``wd`` know the keys dt, A (a bare number rules these) and C.

    Args:
        d_model: H features.
        d_state: n, even.
        variant: ``"exp"``, or ``"softmax"``, which needs l_max.
        separate_periods: whether λ has a Δt of its own for the real and for the imaginary part, equal at the start:
            Δtλ means Δt Re λ + i Δt' Im λ then. True as in the authors' code and in ``kernel=dss``. False is what
            configurations of earlier versions mean, which do not name it.
        init: as of S4D; the paper's is diag-legs.
        imag_scale: α, the factor of the imaginary parts of the initial poles (S4D-FT); 1 leaves them.
        **shared: ``channels``, ``l_max``, ``dt_min``, ``dt_max``, ``dt_transform``, ``n_ssm``, ``deterministic``,
            ``lr``, ``wd``, ``verbose``: see ``SequenceKernel``.

    Source: Gupta, Gu, Berant, "Diagonal State Spaces are as Effective as Structured State Spaces", NeurIPS 2022
    (arXiv 2203.14343).
    """

    name = "dss"
    optimizer_options = {  # noqa: RUF012
        "raw_sampling_period": OptimizerOption(("dt", "sampling_period")),
        "raw_imaginary_period": OptimizerOption(("dt", "sampling_period")),
        "A_real": OptimizerOption(("A",)),
        "A_imag": OptimizerOption(("A",)),
        "C": OptimizerOption(("C",), bare="never"),
    }
    idle_optimizer_options = ("B",)
    idle_options = S4_OPTIONS - {"imag_scale"}
    raw_imaginary_period: Tensor

    def __init__(
        self,
        *,
        d_state: int = 64,
        init: str | None = "diag-legs",
        imag_scale: float = 1.0,
        variant: str = "exp",
        separate_periods: bool = False,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.n, self.variant = self.check_order(d_state), check_choice("variant", variant, VARIANTS)
        if variant == "softmax" and self.l_max is None:
            raise ValueError(
                "variant='softmax' needs l_max, over which it normalizes; got none. "
                "Set model.layer.l_max to the length of the sequences, or take variant='exp'."
            )
        poles = initial_poles("diag-legs" if init is None else init, self.n, self.deterministic)
        self.register_modes(poles, imag_scale)
        self.separate_periods = check_flag("separate_periods", separate_periods)
        if self.separate_periods:
            self.register("raw_imaginary_period", self.raw_sampling_period.detach().clone())

    def discretized(self, rate: float = 1.0) -> tuple[Diagonal, Tensor]:
        """(Ā, B̄ (H, n) in coordinates), float64."""
        poles, dt = self.poles(), self.periods(rate)
        turned = poles
        if self.separate_periods:
            other = (self.transformed(self.raw_imaginary_period.double()) * rate).unsqueeze(-1)
            turned = Diagonal(poles.real, poles.imaginary * (other / dt))
        one = torch.cat([torch.ones_like(poles.real), torch.zeros_like(poles.real)], dim=-1)
        transition, less_one = exponential(turned, dt)
        B = less_one.apply(poles.inverse().apply(one))
        if self.variant == "exp":
            return transition, B
        assert self.l_max is not None  # the constructor has seen to it
        _, less_one = exponential(turned, self.l_max * dt)
        return transition, less_one.inverse().apply(B)

    def extra_repr(self) -> str:
        """Return the sizes and the choice, for print(model)."""
        return f"{super().extra_repr()}, variant={self.variant!r}"
