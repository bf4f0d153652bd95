"""S4D-Real: a diagonal state space of real modes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hope_ssm.checks import check_positive_integer, check_positive_number
from hope_ssm.kernels.base import S4_OPTIONS
from hope_ssm.kernels.optimizer_options import OptimizerOption
from hope_ssm.kernels.state_space import StateSpaceKernel


@dataclass  # made in compiled graphs, where older compilers know no frozen ones
class RealDiagonal:
    """diag(f) for real f (H, n)."""

    entries: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """f x.

        Args:
            x: (..., H, n).

        Returns:
            the same shape.
        """
        return self.entries * x

    def at(self, steps: slice) -> RealDiagonal:
        """Those of some steps of f (B, L, H, n)."""
        return RealDiagonal(self.entries[:, steps])

    def after(self, earlier: RealDiagonal) -> RealDiagonal:
        """f g."""
        return RealDiagonal(self.entries * earlier.entries)

    def __matmul__(self, x: Tensor) -> Tensor:
        """The same of the columns of x (H, n, K)."""
        return self.entries.unsqueeze(-1) * x

    @property
    def mT(self) -> RealDiagonal:  # noqa: N802, as of torch's tensors
        """The transpose: itself."""
        return self

    def squares(self, count: int) -> list[RealDiagonal]:
        """f, f², f⁴, …"""
        return [RealDiagonal(self.entries ** (1 << i)) for i in range(count)]


class S4DRealKernel(StateSpaceKernel):
    """k_t = g Σ_j C_j B̄_j e^{Δta_jt}  with  a_j < 0 real, n of them, and  B̄ = (e^{Δta} - 1)/a · B  (zero-order hold).

    At the start a_j = -(j + 1), the eigenvalues of HiPPO-LegS, B = 1, and C is normal with variance 1/g.
    a = -exp(A_log) and B are shared by n_ssm; C and Δt are one per feature. ``lr`` and ``wd`` know the keys dt, A, B (a
    bare number rules these) and C.

    Args:
        d_model: H features.
        d_state: n real states, even or odd.
        output_gain: g: 2 as in state-spaces/s4, whose kernels are all twice a real part, and in ``kernel=s4d-real``. 1
            is what configurations of earlier versions mean, which do not name it.
        **shared: ``channels``, ``l_max``, ``dt_min``, ``dt_max``, ``dt_transform``, ``n_ssm``, ``deterministic``,
            ``lr``, ``wd``, ``verbose``: see ``SequenceKernel``.

    Source: S4D-Real of Gu, Gupta, Goel, Ré, NeurIPS 2022 (arXiv 2206.11893).
    """

    name = "s4d-real"
    stepwise = True
    optimizer_options = {  # noqa: RUF012
        "raw_sampling_period": OptimizerOption(("dt", "sampling_period")),
        "A_log": OptimizerOption(("A",)),
        "B": OptimizerOption(("B",)),
        "C": OptimizerOption(("C",), bare="never"),
    }
    idle_options = S4_OPTIONS | {"init"}
    A_log: Tensor
    B: Tensor

    def __init__(self, *, d_state: int = 64, output_gain: float = 1.0, **shared: Any) -> None:
        super().__init__(**shared)
        self.n = n = check_positive_integer("d_state", d_state)
        self.output_gain = check_positive_number("output_gain", output_gain)
        C = torch.randn(self.channels, self.d_model, n) / math.sqrt(self.output_gain)
        self.register_sampling_period("raw_sampling_period", self.d_model)
        self.register("A_log", torch.log(torch.arange(1, n + 1)).repeat(self.n_ssm, 1))
        self.register("B", torch.ones(self.n_ssm, n))
        self.register("C", torch.ones_like(C) if self.deterministic else C)

    def discretized(self, rate: float = 1.0) -> tuple[RealDiagonal, Tensor]:
        """(Ā, B̄ (H, n)) at a relative sampling rate, float64."""
        a, dt = self.per_feature(-torch.exp(self.A_log.double())), self.periods(rate)
        return RealDiagonal(torch.exp(dt * a)), torch.expm1(dt * a) / a * self.per_feature(self.B.double())

    def outputs(self) -> Tensor:
        """g C (C, H, n), float64."""
        return self.output_gain * self.C.double()
