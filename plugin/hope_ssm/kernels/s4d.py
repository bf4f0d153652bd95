"""S4D: a diagonal complex state space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hope_ssm.checks import check_choice
from hope_ssm.kernels.base import S4_OPTIONS
from hope_ssm.kernels.hippo import clipped, legs, normal_modes, nplr
from hope_ssm.kernels.modal import Diagonal, ModalKernel, zero_order_hold
from hope_ssm.kernels.optimizer_options import OptimizerOption


def _legs(n: int) -> np.ndarray:
    """Eigenvalues of the normal part of the n × n HiPPO-LegS matrix (S4D-LegS)."""
    A, _, P = legs(n)
    return normal_modes(A, P)[0]


def _inv(n: int) -> np.ndarray:
    """-1/2 + i n/π (n / (2k + 1) - 1), k = 0 … n/2 - 1 (S4D-Inv)."""
    k = np.arange(n // 2)
    return -0.5 + 1j * n / math.pi * (n / (2 * k + 1) - 1)


def _lin(n: int) -> np.ndarray:
    """-1/2 + iπk, k = 0 … n/2 - 1 (S4D-Lin)."""
    return -0.5 + 1j * math.pi * np.arange(n // 2)


def _fourier(n: int) -> np.ndarray:
    """-1/2 + 2πik, k = 0 … n/2 - 1: the Fourier basis of [0, 1] with decay; that of [0, 2] is diag-lin."""
    return -0.5 + 2j * math.pi * np.arange(n // 2)


def _rand(n: int) -> np.ndarray:
    """-1/2 + i e^g, g normal: random frequencies, as state-spaces/s4 has them by this name."""
    return -0.5 + 1j * torch.randn(n // 2, dtype=torch.float64).exp().numpy()


def _uniform(n: int) -> np.ndarray:
    """-r + iω, log r uniform on ± log n and ω uniform from 0 to πn/2, where the frequencies of S4D-Lin are."""
    decay, frequency = torch.rand(2, n // 2, dtype=torch.float64).numpy()
    return -np.exp((2 * decay - 1) * math.log(n)) + 0.5j * math.pi * n * frequency


INITS = {
    "diag-lin": _lin, "diag-inv": _inv, "diag-legs": _legs, "diag-fourier": _fourier, "diag-rand": _rand,
    "diag-uniform": _uniform,
}  # fmt: skip
SHORT_INITS = {
    "lin": "diag-lin", "inv": "diag-inv", "legs": "diag-legs", "legsd": "diag-legs", "fourier": "diag-fourier",
    "foud": "diag-fourier",
}  # fmt: skip
DISCRETIZATIONS = ("zoh", "bilinear")
INPUTS = ("ones", "hippo")


def initial_poles(init: str | None, n: int, deterministic: bool = False) -> Tensor:
    """Λ (n/2,) of an initialization by its name, diag-lin if None.

    Raises:
        ValueError: no such name, the nearest is named; a random one with ``deterministic``.
    """
    init = "diag-lin" if init is None else SHORT_INITS.get(str(init), init)
    make = INITS[check_choice("init", init, INITS)]
    if deterministic and make in (_rand, _uniform):
        raise ValueError(f"init must not be random with deterministic=true; got {init!r}. Take diag-lin or diag-legs.")
    return torch.as_tensor(make(n))


class S4DKernel(ModalKernel):
    """k_t = 2 Re Σ_j C_j B̄_j Ā_jᵗ  with  Ā = exp(ΔtA), B̄ = (Ā - 1)/A · B  (zero-order hold), or the bilinear rule.

    n real states are n/2 complex modes with their conjugates. A = -exp(A_real) + i A_imag and B are shared by n_ssm;
    Δt is one per feature. ``lr`` and ``wd`` know the keys dt, A, B (a bare number rules these) and C.

    Args:
        d_model: H features.
        d_state: n, even.
        init: ``"diag-lin"``, ``"diag-inv"``, ``"diag-legs"`` or ``"diag-fourier"``, or at random, the same for all
            features: ``"diag-rand"``, ``"diag-uniform"``.
        imag_scale: α, the factor of the imaginary parts of the initial poles (S4D-FT); 1 leaves them.
        input_init: the initial B: ``"ones"``; ``"hippo"``, that of HiPPO-LegS, cut off at ±2 as in S4; None for hippo
            with diag-legs, as in state-spaces/s4, and ones otherwise.
        disc: ``"zoh"`` or ``"bilinear"``.
        **shared: ``channels``, ``l_max``, ``dt_min``, ``dt_max``, ``dt_transform``, ``n_ssm``, ``deterministic``,
            ``lr``, ``wd``, ``verbose``: see ``SequenceKernel``.

    Source: Gu, Gupta, Goel, Ré, "On the Parameterization and Initialization of Diagonal State Space Models",
    NeurIPS 2022 (arXiv 2206.11893).
    """

    name = "s4d"
    stepwise = True
    optimizer_options = {  # noqa: RUF012
        "raw_sampling_period": OptimizerOption(("dt", "sampling_period")),
        "A_real": OptimizerOption(("A",)),
        "A_imag": OptimizerOption(("A",)),
        "B": OptimizerOption(("B",)),
        "C": OptimizerOption(("C",), bare="never"),
    }
    idle_options = S4_OPTIONS - {"disc", "imag_scale"}

    def __init__(
        self,
        *,
        d_state: int = 64,
        init: str | None = "diag-lin",
        imag_scale: float = 1.0,
        input_init: str | None = None,
        disc: str = "zoh",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.n = n = self.check_order(d_state)
        poles = initial_poles(init, n, self.deterministic)
        self.disc = check_choice("disc", disc, DISCRETIZATIONS)
        if input_init is None:
            input_init = "hippo" if SHORT_INITS.get(str(init), init) == "diag-legs" else "ones"
        hippo = check_choice("input_init", input_init, INPUTS) == "hippo"
        ones = torch.ones(n // 2, dtype=torch.complex128)
        B = torch.as_tensor(clipped(nplr("legs", n, 1)[2], 2.0)) if hippo else ones
        self.register_modes(poles, imag_scale)
        self.register("B", torch.view_as_real(B).repeat(self.n_ssm, 1, 1))

    def discretized(self, rate: float = 1.0) -> tuple[Diagonal, Tensor]:
        """(Ā, B̄ (H, n) in coordinates) at a relative sampling rate, float64."""
        poles, B, dt = self.poles(), self.inputs(), self.periods(rate)
        if self.disc == "zoh":
            return zero_order_hold(poles, B, dt)
        inverse = Diagonal(1 - dt / 2 * poles.real, -dt / 2 * poles.imaginary).inverse()
        return Diagonal(2 * inverse.real - 1, 2 * inverse.imaginary), inverse.apply(dt * B)

    def extra_repr(self) -> str:
        """Return the sizes and choices, for print(model)."""
        return f"{super().extra_repr()}, disc={self.disc!r}"
