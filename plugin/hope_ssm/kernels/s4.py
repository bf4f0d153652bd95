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


def _coordinates(pairs: Tensor) -> Tensor:
    """(Re z, Im z), (..., n) float64, of n/2 modes z as real numbers (..., n/2, 2)."""
    return pairs.double().transpose(-1, -2).flatten(-2)


def _turned(factor: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    """f z for f = (Re f, Im f), each (..., n/2), and z in coordinates x (..., n)."""
    (f, g), (a, b) = factor, x.chunk(2, dim=-1)
    return torch.cat([f * a - g * b, g * a + f * b], dim=-1)


def _krylov(squares: list[Tensor], vectors: Tensor, count: int) -> Tensor:
    """(v, Av, …, A^{count-1}v) by doubling.

    Args: squares: A, A², A⁴, … (H, n, n), at least as many as doublings; vectors (H, n, K).
    Returns: (H, n, count, K).
    """
    size = vectors.shape[-1]
    for power in squares[: (count - 1).bit_length()]:
        vectors = torch.cat([vectors, power @ vectors], dim=-1)
    return vectors.unflatten(-1, (-1, size))[..., :count, :]


class _Resolvent:
    """(1 - ΔtA/2)⁻¹ = D⁻¹ - Δt N (1 + Δt WᵀN)⁻¹ WᵀD⁻¹,  N = D⁻¹W,  D = 1 - ΔtΛ/2  (Woodbury), in real coordinates.

    D turns and scales the coordinates of each mode, and A = Λ - 2WWᵀ with the coordinates W of P (conjugates give the 2).
    |D| ≥ 1 and the symmetric part of 1 + Δt WᵀN is at least 1, so neither inverse is ill-conditioned at any Δt.

    Args: poles: (Re Λ, Im Λ), each (H, n/2); W (H, rank, n), rows; dt (H,).
    """

    def __init__(self, poles: tuple[Tensor, Tensor], W: Tensor, dt: Tensor) -> None:
        dt = dt.unsqueeze(-1)
        real, imaginary = 1 - dt / 2 * poles[0], -dt / 2 * poles[1]
        square = real.square() + imaginary.square()
        self.inverse = real / square, -imaginary / square
        dt, (f, g) = dt.unsqueeze(-1), (part.unsqueeze(-2) for part in self.inverse)
        self.right = _turned((f, -g), W)  # WᵀD⁻¹
        core = torch.eye(W.shape[-2], dtype=W.dtype, device=W.device) + dt * self.right @ W.mT
        self.left = torch.linalg.solve(core.mT, dt * _turned((f, g), W))  # Δt (1 + Δt WᵀN)⁻ᵀ Nᵀ

    def __call__(self, x: Tensor) -> Tensor:
        """Apply it.  Args: x (..., H, n).  Returns: the same shape."""
        along = torch.einsum("hrn,...hn->...hr", self.right, x)
        return _turned(self.inverse, x) - torch.einsum("hrn,...hr->...hn", self.left, along)

    def matrix(self) -> Tensor:
        """(H, n, n)."""
        f, g = (torch.diag_embed(part) for part in self.inverse)
        return torch.cat([torch.cat([f, -g], -1), torch.cat([g, f], -1)], -2) - self.left.mT @ self.right


class S4Kernel(ModalKernel):
    """k_t = C Āᵗ B̄  with the bilinear rule  Ā = (1 - ΔtA/2)⁻¹(1 + ΔtA/2),  B̄ = (1 - ΔtA/2)⁻¹ ΔtB  and  A = Λ - P P*.

    With t = jb + i and b about √L, k_t is the product of the row C Ā^{jb} and the column Āⁱ B̄; both families are made
    by doubling from the squares of Ā. ‖Ā‖₂ ≤ 1, for A + A* ≤ 0, so nothing grows; the inverse is a diagonal one with
    Woodbury's correction. All of it is in float64 whatever the parameters are, for rounding Ā to float32 would turn the
    phase of Ā^L by L times its relative error; a complex mode is two real states here, so nothing is complex.

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

    def system(self, rate: float = 1.0) -> tuple[_Resolvent, Tensor, Tensor]:
        """((1 - ΔtA/2)⁻¹, B̄ (H, n), C (C, H, n)) in real coordinates, float64."""
        poles = self.per_feature(-torch.exp(self.A_real.double())), self.per_feature(self.A_imag.double())
        columns = torch.stack([self.per_feature(_coordinates(column)) for column in self.P], dim=-2)
        dt = self.transformed(self.raw_sampling_period.double()) * self.check_rate(rate)
        resolvent = _Resolvent(poles, columns, dt)
        real, imaginary = _coordinates(self.C).chunk(2, dim=-1)
        B = resolvent(dt.unsqueeze(-1) * self.per_feature(_coordinates(self.B)))
        return resolvent, B, 2 * torch.cat([real, -imaginary], dim=-1)  # 2 Re Σ C_j z_j

    @staticmethod
    def _squares(resolvent: _Resolvent, length: int) -> list[Tensor]:
        """Ā, Ā², Ā⁴, … up to the last power of two that L has."""
        matrix = resolvent.matrix()
        squares = [2 * matrix - torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)]
        while len(squares) < length.bit_length():
            squares.append(squares[-1] @ squares[-1])
        return squares

    def forward(
        self, L: int | None = None, rate: float = 1.0, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """k_t for t < L, and C Ā^{t+1} s_0 if there is a state s_0 (the host's convention: update, then output).

        Args: L: length, l_max if None; rate: relative sampling rate; state: (B, H, n/2) complex or None.
        Returns: kernel (C, H, L) and state response (B, C, H, L) or None.
        """
        length = self.kernel_length(L)
        state = None if state is None else _coordinates(torch.view_as_real(self.check_state(state)))
        resolvent, B, C = self.system(rate)
        squares, halvings = self._squares(resolvent, length), length.bit_length() // 2
        block = 1 << halvings
        rows = _krylov([power.mT for power in squares[halvings:]], C.permute(1, 2, 0), -(-length // block))
        columns = _krylov(squares, B.unsqueeze(-1), block).squeeze(-1)
        dtype = working_dtype(self.C)
        kernel = torch.einsum("hnjc,hni->chji", rows, columns).flatten(-2)[..., :length].to(dtype)
        if state is None:
            return kernel, None
        columns = _krylov(squares, (2 * resolvent(state) - state).permute(1, 2, 0), block)
        return kernel, torch.einsum("hnjc,hnib->bchji", rows, columns).flatten(-2)[..., :length].to(dtype)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """s ← Ā s + B̄ u,  y = C s, with Ā = 2 (1 - ΔtA/2)⁻¹ - 1.  Args, returns: u (B, H), state (B, H, n/2); y, state."""
        start = _coordinates(torch.view_as_real(self.check_inputs(u, state, "B, H")))
        resolvent, B, C = self.system()
        after = 2 * resolvent(start) - start + B * u.unsqueeze(-1)
        y = torch.einsum("chn,bhn->bch", C, after)
        return y.to(u.dtype), torch.complex(*after.chunk(2, dim=-1)).to(state.dtype)

    def forward_state(self, u: Tensor, state: Tensor) -> Tensor:
        """Ā^L s + Σ_t Ā^{L-1-t} B̄ u_t, by halves.  Args: u (B, H, L), state (B, H, n/2).  Returns: (B, H, n/2)."""
        after = _coordinates(torch.view_as_real(self.check_inputs(u, state, "B, H, L")))
        resolvent, B, _ = self.system()
        length = u.shape[-1]
        squares, halvings = self._squares(resolvent, length), length.bit_length() // 2
        columns = _krylov(squares, B.unsqueeze(-1), 1 << halvings).squeeze(-1)
        count = 1 << ((length - 1) >> halvings).bit_length()
        latest_first = torch.nn.functional.pad(u.flip(-1).double(), (0, (count << halvings) - length))
        driven = torch.einsum("hni,bhji->hnjb", columns, latest_first.unflatten(-1, (count, -1)))
        for power in squares[halvings:]:
            if driven.shape[-2] > 1:
                driven = driven[..., ::2, :] + (power @ driven[..., 1::2, :].flatten(-2)).view_as(driven[..., 1::2, :])
        for bit, power in enumerate(squares):
            if length >> bit & 1:
                after = torch.einsum("hmn,bhn->bhm", power, after)
        after = after + driven.squeeze(-2).permute(2, 0, 1)
        return torch.complex(*after.chunk(2, dim=-1)).to(state.dtype)

    def extra_repr(self) -> str:
        """Return the sizes, for print(model)."""
        return f"{super().extra_repr()}, rank={self.rank}"
