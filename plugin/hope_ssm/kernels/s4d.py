"""S4D: a diagonal complex state space, with the Vandermonde kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hope_ssm.backends import full_precision
from hope_ssm.checks import check_choice
from hope_ssm.contraction import contract
from hope_ssm.kernels.contract import S4_OPTIONS, Ruling
from hope_ssm.kernels.modal import ModalKernel, legs_modes
from hope_ssm.transfer import working_dtype


def _legs(n: int) -> np.ndarray:
    """Eigenvalues of the normal part of the n × n HiPPO-LegS matrix (S4D-LegS)."""
    return legs_modes(n)[0]


def _inv(n: int) -> np.ndarray:
    """-1/2 + i n/π (n / (2k + 1) - 1), k = 0 … n/2 - 1 (S4D-Inv)."""
    k = np.arange(n // 2)
    return -0.5 + 1j * n / math.pi * (n / (2 * k + 1) - 1)


def _lin(n: int) -> np.ndarray:
    """-1/2 + iπk, k = 0 … n/2 - 1 (S4D-Lin)."""
    return -0.5 + 1j * math.pi * np.arange(n // 2)


INITS = {"diag-lin": _lin, "diag-inv": _inv, "diag-legs": _legs}
SHORT_INITS = {"lin": "diag-lin", "inv": "diag-inv", "legs": "diag-legs", "legsd": "diag-legs"}
DISCRETIZATIONS = ("zoh", "bilinear")


def _powers(log_A: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """(Āⁱ for i < b, Ā^{jb} for j < ⌈L/b⌉) with b = ⌈√L⌉: their products are all powers below L.

    Args: log_A (H, N).  Returns: (H, N, b), (H, N, ⌈L/b⌉) complex.
    """
    block = math.isqrt(length - 1) + 1
    time = torch.arange(block, device=log_A.device, dtype=log_A.real.dtype)
    exponent = log_A.unsqueeze(-1) * time
    return torch.exp(exponent), torch.exp(block * exponent[..., : -(-length // block)])


def _real_vandermonde(weights: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
    """Re Σ_n w_n Ā_n^t for all t = jb + i, as one real matrix product [⌈L/b⌉, 2N] × [2N, b] a system.

    Args: weights (..., H, N) complex; what ``_powers`` gives.  Returns: (..., H, ⌈L/b⌉·b) real.
    """
    left = (weights.unsqueeze(-1) * coarse).transpose(-1, -2)
    left = torch.cat([left.real, -left.imag], dim=-1)
    with full_precision(left.device):
        return (left @ torch.cat([fine.real, fine.imag], dim=-2)).flatten(-2)


class S4DKernel(ModalKernel):
    """k_t = 2 Re Σ_j C_j B̄_j Ā_jᵗ  with  Ā = exp(ΔtA), B̄ = (Ā - 1)/A · B  (zero-order hold), or the bilinear rule.

    n real states are n/2 complex modes with their conjugates. A = -exp(A_real) + i A_imag and B are shared by n_ssm;
    Δt is one a feature. ``lr`` and ``wd`` know the keys dt, A, B (a bare number rules these) and C.

    Args:
        d_model: H features.
        d_state: n, even.
        init: ``"diag-lin"``, ``"diag-inv"`` or ``"diag-legs"``.
        disc: ``"zoh"`` or ``"bilinear"``.
        channels, l_max, dt_min, dt_max, dt_transform, n_ssm, deterministic, lr, wd, verbose: see ``SequenceKernel``.

    Source: Gu, Gupta, Goel, Ré, "On the Parameterization and Initialization of Diagonal State Space Models",
    NeurIPS 2022 (arXiv 2206.11893).
    """

    name = "s4d"
    rulings = {  # noqa: RUF012
        "raw_sampling_period": Ruling(("dt", "sampling_period")),
        "A_real": Ruling(("A",)),
        "A_imag": Ruling(("A",)),
        "B": Ruling(("B",)),
        "C": Ruling(("C",), bare="never"),
    }
    idle_options = S4_OPTIONS - {"disc"}

    def __init__(
        self,
        *,
        d_model: int,
        d_state: int = 64,
        channels: int = 1,
        l_max: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_transform: str = "softplus",
        n_ssm: int | None = None,
        deterministic: bool = False,
        lr: float | Mapping[str, float] | None = None,
        wd: float | Mapping[str, float] | None = 0.0,
        init: str | None = "diag-lin",
        disc: str = "zoh",
        verbose: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(
            d_model=d_model, channels=channels, l_max=l_max, lr=lr, wd=wd, n_ssm=n_ssm, dt_min=dt_min, dt_max=dt_max,
            dt_transform=dt_transform, deterministic=deterministic, verbose=verbose, options=options,
        )  # fmt: skip
        self.n = n = self.check_order(d_state)
        init = "diag-lin" if init is None else SHORT_INITS.get(str(init), init)
        poles = torch.as_tensor(INITS[check_choice("init", init, INITS)](n))
        self.disc = check_choice("disc", disc, DISCRETIZATIONS)
        B = torch.zeros(self.n_ssm, n // 2, 2)
        B[..., 0] = 1.0
        self.register_modes(poles)
        self.register("B", B)

    def discretized(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """(log Ā (H, n/2), B̄ (H, n/2), C (C, H, n/2)) at a relative sampling rate, complex."""
        dtype = working_dtype(self.C)
        A_real, A_imag, B, C = (p.to(dtype) for p in (self.A_real, self.A_imag, self.B, self.C))
        dt = (self.sampling_period * self.check_rate(rate)).unsqueeze(-1)
        A = self.per_feature(torch.complex(-torch.exp(A_real), A_imag))
        B = self.per_feature(torch.view_as_complex(B.contiguous()))
        C = torch.view_as_complex(C.contiguous())
        if self.disc == "zoh":
            log_A = dt * A
            return log_A, B * torch.expm1(log_A) / A, C
        half = dt * A / 2
        return 2 * torch.atanh(half), B * dt / (1 - half), C  # log (1 + x)/(1 - x) = 2 artanh x

    def forward(
        self, L: int | None = None, rate: float = 1.0, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """k_t for t < L, and 2 Re C Ā^{t+1} s_0 if there is a state s_0 (the host's convention: update, then output).

        Args: L: length, l_max if None; rate: relative sampling rate; state: (B, H, n/2) complex or None.
        Returns: kernel (C, H, L) and state response (B, C, H, L) or None.
        """
        length = self.kernel_length(L)
        log_A, B, C = self.discretized(rate)
        fine, coarse = _powers(log_A, length)
        kernel = _real_vandermonde(2 * C * B, fine, coarse)[..., :length]
        if state is None:
            return kernel, None
        weights = 2 * C * (self.check_state(state) * torch.exp(log_A)).unsqueeze(1)
        return kernel, _real_vandermonde(weights, fine, coarse)[..., :length]

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """s ← Ā s + B̄ u,  y = 2 Re C s.  Args: u (B, H), state (B, H, n/2).  Returns: y (B, C, H), state."""
        log_A, B, C = self.discretized()
        state = torch.exp(log_A) * self.check_inputs(u, state, "B, H") + B * u.unsqueeze(-1)
        return 2 * torch.einsum("chn,bhn->bch", C, state).real.to(u.dtype), state

    def forward_state(self, u: Tensor, state: Tensor) -> Tensor:
        """Ā^L s + Σ_t Ā^{L-1-t} B̄ u_t.  Args: u (B, H, L), state (B, H, n/2).  Returns: (B, H, n/2)."""
        state, length = self.check_inputs(u, state, "B, H, L"), u.shape[-1]
        log_A, B, _ = self.discretized()
        fine, coarse = _powers(log_A, length)
        latest_first = torch.nn.functional.pad(u.flip(-1), (0, fine.shape[-1] * coarse.shape[-1] - length))
        blocks = latest_first.unflatten(-1, (coarse.shape[-1], -1)).to(fine.dtype)
        driven = contract("hn,hnj,hni,bhji->bhn", B, coarse, fine, blocks)
        return torch.exp(length * log_A) * state + driven

    def extra_repr(self) -> str:
        """Return the sizes and choices, for print(model)."""
        return f"{super().extra_repr()}, disc={self.disc!r}"
