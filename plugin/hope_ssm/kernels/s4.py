"""S4: a diagonal plus low-rank state space, with the Cauchy kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hope_ssm.checks import check_choice, check_positive_integer
from hope_ssm.contraction import contract
from hope_ssm.kernels.contract import S4_OPTIONS, Ruling
from hope_ssm.kernels.modal import ModalKernel, legs_modes, legs_scale
from hope_ssm.transfer import working_dtype


def legs(n: int, rank: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HiPPO-LegS as Λ - P P*, with input B, in the eigenbasis of its normal part; the modes with Im Λ > 0.

    P's first column is p_i = √(i+½), with which A + ppᵀ is normal (see ``modal``); B_i = √(2i+1).

    Args: n even; rank ≥ 1, columns of P beyond the first are small numbers, random but always the same.
    Returns: Λ (n/2,), P (rank, n/2), B (n/2,), complex.
    """
    root = legs_scale(n)
    poles, modes = legs_modes(n)
    P = np.zeros((rank, n // 2), dtype=complex)
    P[0] = modes @ (root / math.sqrt(2))
    P[1:] = np.random.default_rng(0).normal(scale=1e-2, size=(rank - 1, n // 2, 2)) @ (1, 1j)
    return poles, P, modes @ root


INITS = {"legs": legs}


def _with_conjugates(x: Tensor) -> Tensor:
    """All n modes from those with positive imaginary part, along the last axis."""
    return torch.cat([x, x.conj()], dim=-1)


def _bilinear(poles: Tensor, P: Tensor, B: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """(Ā (H, n, n), B̄ (H, n)) of A = Λ - P P* by the bilinear rule at Δt (H,)."""
    half = dt[:, None, None] / 2 * (torch.diag_embed(poles) - P @ P.mH)
    identity = torch.eye(poles.shape[-1], dtype=half.dtype, device=half.device)
    inputs = dt[:, None, None] * B.unsqueeze(-1)
    solved = torch.linalg.solve(identity - half, torch.cat([identity + half, inputs], dim=-1))
    return solved[..., :-1], solved[..., -1]


class S4Kernel(ModalKernel):
    """k_t = C Āᵗ B̄  with the bilinear rule  Ā = (1 - ΔtA/2)⁻¹(1 + ΔtA/2),  B̄ = (1 - ΔtA/2)⁻¹ ΔtB  and  A = Λ - P P*.

    The generating function  Σ_{t<L} k_t zᵗ = C (1 - Ā^L) (1 - zĀ)⁻¹ B̄ is taken at the L roots of unity, where the
    inverse is a sum of Cauchy terms and, for the low rank, Woodbury's identity; so L samples are exact.
    Λ = -exp(A_real) + i A_imag, P and B are shared by n_ssm; Δt is one a feature. ``lr`` and ``wd`` know the keys dt,
    A (Λ and P), B (a bare number rules these) and C.

    Args:
        d_model: H features.
        d_state: n, even: n/2 modes and their conjugates.
        init: ``"legs"``.
        rank: columns of P.
        channels, l_max, dt_min, dt_max, dt_transform, n_ssm, deterministic, lr, wd, verbose: see ``SequenceKernel``.

    Source: Gu, Goel, Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", ICLR 2022
    (arXiv 2111.00396); A = Λ - P P* from Goel, Gu, Donahue, Ré, ICML 2022 (arXiv 2202.09729).
    """

    name = "s4"
    rulings = {  # noqa: RUF012
        "raw_sampling_period": Ruling(("dt", "sampling_period")),
        "A_real": Ruling(("A",)),
        "A_imag": Ruling(("A",)),
        "P": Ruling(("A",)),
        "B": Ruling(("B",)),
        "C": Ruling(("C",), bare="never"),
    }
    idle_options = S4_OPTIONS - {"rank"}

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
        init: str | None = "legs",
        rank: int = 1,
        verbose: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(
            d_model=d_model, channels=channels, l_max=l_max, lr=lr, wd=wd, n_ssm=n_ssm, dt_min=dt_min, dt_max=dt_max,
            dt_transform=dt_transform, deterministic=deterministic, verbose=verbose, options=options,
        )  # fmt: skip
        self.n, self.rank = self.check_order(d_state), check_positive_integer("rank", rank)
        make = INITS[check_choice("init", "legs" if init is None else init, INITS)]
        poles, P, B = (torch.as_tensor(part) for part in make(self.n, self.rank))

        self.register_modes(poles)
        self.register("P", torch.view_as_real(P).unsqueeze(1).repeat(1, self.n_ssm, 1, 1))
        self.register("B", torch.view_as_real(B).repeat(self.n_ssm, 1, 1))

    def continuous(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(Λ (H, n), P (H, n, rank), B (H, n), C (C, H, n)), all modes, complex."""
        dtype = working_dtype(self.C)
        A_real, A_imag, P, B, C = (p.to(dtype) for p in (self.A_real, self.A_imag, self.P, self.B, self.C))
        poles = self.per_feature(torch.complex(-torch.exp(A_real), A_imag))
        P, B, C = (torch.view_as_complex(part.contiguous()) for part in (P, B, C))
        P = torch.stack([self.per_feature(column) for column in P], dim=-2)
        return (
            _with_conjugates(poles),
            _with_conjugates(P).transpose(-1, -2),
            _with_conjugates(self.per_feature(B)),
            _with_conjugates(C),
        )

    def discretized(self) -> tuple[Tensor, Tensor, Tensor]:
        """(Ā (H, n, n), B̄ (H, n), C (C, H, n)), dense, complex."""
        poles, P, B, C = self.continuous()
        return *_bilinear(poles, P, B, self.sampling_period.to(poles.real.dtype)), C

    def forward(
        self, L: int | None = None, rate: float = 1.0, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """k_t for t < L, and C Ā^{t+1} s_0 if there is a state s_0 (the host's convention: update, then output).

        Args: L: length, l_max if None; rate: relative sampling rate; state: (B, H, n/2) complex or None.
        Returns: kernel (C, H, L) and state response (B, C, H, L) or None.
        """
        length = self.kernel_length(L)
        poles, P, B, C = self.continuous()
        dt = self.sampling_period.to(poles.real.dtype) * self.check_rate(rate)
        A, _ = _bilinear(poles, P, B, dt)
        ending = C - torch.einsum("chm,hmn->chn", C, torch.linalg.matrix_power(A, length))
        kernel = self._sample(ending, (dt.unsqueeze(-1) * B).unsqueeze(0), dt, length, poles, P)
        if state is None:
            return kernel[:, 0], None
        state = torch.einsum("hmn,bhn->bhm", A, _with_conjugates(self.check_state(state)))
        implicit = state - dt.unsqueeze(-1) / 2 * (poles * state - contract("hnr,hmr,bhm->bhn", P, P.conj(), state))
        return kernel[:, 0], self._sample(ending, implicit, dt, length, poles, P).transpose(0, 1)

    def _sample(self, left: Tensor, right: Tensor, dt: Tensor, length: int, poles: Tensor, P: Tensor) -> Tensor:
        """Re iFFT of l (1 - zĀ)⁻¹ (1 - ΔtA/2)⁻¹ r = l ((1 - z) - Δt/2 (1 + z) A)⁻¹ r at z = e^{-2πij/L}.

        Args: left (C, H, n); right (B, H, n); dt (H,); poles (H, n); P (H, n, rank).  Returns: (C, B, H, L) real.
        """
        angle = torch.arange(length // 2 + 1, device=dt.device, dtype=dt.dtype) * (2 * math.pi / length)
        z = torch.polar(torch.ones_like(angle), -angle)
        gain = dt.unsqueeze(-1) / 2 * (1 + z)  # (H, F)
        inverse = 1 / ((1 - z) - gain.unsqueeze(1) * poles.unsqueeze(-1))  # (H, n, F)
        direct = contract("chn,bhn,hnf->cbhf", left, right, inverse)
        to_rank = contract("chn,hnr,hnf->chrf", left, P, inverse)
        from_rank = contract("hnr,bhn,hnf->bhrf", P.conj(), right, inverse)
        core = contract("hnr,hns,hnf->hfrs", P.conj(), P, inverse)
        identity = torch.eye(self.rank, dtype=core.dtype, device=core.device)
        core = torch.linalg.inv(identity + gain[..., None, None] * core)
        correction = contract("hf,chrf,hfrs,bhsf->cbhf", gain, to_rank, core, from_rank)
        return torch.fft.irfft(direct - correction, n=length)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """s ← Ā s + B̄ u,  y = C s.  Args: u (B, H), state (B, H, n/2).  Returns: y (B, C, H), state."""
        A, B, C = self.discretized()
        state = _with_conjugates(self.check_inputs(u, state, "B, H"))
        state = torch.einsum("hmn,bhn->bhm", A, state) + B * u.unsqueeze(-1)
        return torch.einsum("chn,bhn->bch", C, state).real.to(u.dtype), state[..., : self.n // 2]

    def forward_state(self, u: Tensor, state: Tensor) -> Tensor:
        """Ā^L s + Σ_t Ā^{L-1-t} B̄ u_t, by halves.  Args: u (B, H, L), state (B, H, n/2).  Returns: (B, H, n/2)."""
        state = _with_conjugates(self.check_inputs(u, state, "B, H, L"))
        A, B, _ = self.discretized()
        length = u.shape[-1]
        driven = torch.einsum("hn,bhl->bhnl", B, u.to(B.dtype))
        power = A
        driven = torch.nn.functional.pad(driven, ((1 << (length - 1).bit_length()) - length, 0))
        while driven.shape[-1] > 1:
            driven = torch.einsum("hmn,bhnl->bhml", power, driven[..., ::2]) + driven[..., 1::2]
            power = power @ power
        free = torch.einsum("hmn,bhn->bhm", torch.linalg.matrix_power(A, length), state)
        return (free + driven[..., 0])[..., : self.n // 2]

    def extra_repr(self) -> str:
        """Return the sizes, for print(model)."""
        return f"{super().extra_repr()}, rank={self.rank}"
