"""What the kernels with a complex state matrix share: n/2 modes, each with its conjugate, and HiPPO-LegS.

Modes z are computed with as n real coordinates x = (Re z, Im z) in float64, whatever the parameters are: rounding Ā to
float32 would turn the phase of Ā^L by L times its relative error. Axes: B batch, C channels, H features, L samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.linalg
import torch
from torch import Tensor
from torch.nn.functional import pad

from hope_ssm.backends import full_precision
from hope_ssm.checks import check_positive_integer
from hope_ssm.kernels.contract import SequenceKernel
from hope_ssm.kernels.evaluation import enough_memory
from hope_ssm.transfer import working_dtype


def legs_scale(n: int) -> np.ndarray:
    """√(2i + 1), i = 0 … n - 1: the input vector B of HiPPO-LegS."""
    return np.sqrt(2 * np.arange(n) + 1)


def legs_modes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues Λ and eigenvectors V of the normal part A + ppᵀ of HiPPO-LegS, those with Im Λ > 0.

    A_ij = -√(2i+1)√(2j+1) below the diagonal, -(i+1) on it, p_i = √(i+½); so A + ppᵀ is -½ plus a skew matrix.

    Args: n: order, even.
    Returns: Λ (n/2,), ascending in frequency, and V* (n/2, n), complex.
    """
    root = legs_scale(n)
    product = root[:, None] * root[None, :] / 2
    frequency, vectors = scipy.linalg.eigh(-1j * (np.triu(product, 1) - np.tril(product, -1)))
    return -0.5 + 1j * frequency[n // 2 :], vectors[:, n // 2 :].conj().T


def coordinates(pairs: Tensor) -> Tensor:
    """(Re z, Im z), (..., n) float64, of n/2 modes z as real numbers (..., n/2, 2)."""
    return pairs.double().transpose(-1, -2).flatten(-2)


class Transition(Protocol):
    """A real state matrix Ā (H, n, n), not necessarily as its entries."""

    def __call__(self, x: Tensor) -> Tensor:
        """Ā x.  Args: x (..., H, n).  Returns: the same shape."""
        ...

    def squares(self, count: int) -> list[Tensor] | list[Diagonal]:
        """Ā, Ā², Ā⁴, …, each with a transpose ``mT`` and a product ``@`` with (H, n, K)."""
        ...


@dataclass(frozen=True)
class Diagonal:
    """diag(f) for complex f (..., H, n/2), in coordinates: 2 × 2 blocks that turn and scale those of each mode."""

    real: Tensor
    imaginary: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """f z.  Args: x (..., H, n).  Returns: the same shape."""
        a, b = x.chunk(2, dim=-1)
        return torch.cat([self.real * a - self.imaginary * b, self.imaginary * a + self.real * b], dim=-1)

    def __matmul__(self, x: Tensor) -> Tensor:
        """The same of the columns of x (..., H, n, K)."""
        return Diagonal(self.real.unsqueeze(-2), self.imaginary.unsqueeze(-2))(x.mT).mT

    @property
    def mT(self) -> Diagonal:  # noqa: N802, as of torch's tensors
        """The transpose: diag(conj f)."""
        return Diagonal(self.real, -self.imaginary)

    def inverse(self) -> Diagonal:
        """1 / f."""
        square = self.real.square() + self.imaginary.square()
        return Diagonal(self.real / square, -self.imaginary / square)

    def squares(self, count: int) -> list[Diagonal]:
        """f, f², f⁴, …"""
        found = [self]
        while len(found) < count:
            f, g = found[-1].real, found[-1].imaginary
            found.append(Diagonal(f * f - g * g, 2 * f * g))
        return found


def _krylov(squares: list[Tensor] | list[Diagonal], vectors: Tensor, count: int) -> Tensor:
    """(v, Āv, …, Ā^{count-1}v) by doubling.

    Args: squares: Ā, Ā², Ā⁴, …, at least as many as doublings; vectors (H, n, K).
    Returns: (H, n, count, K).
    """
    size = vectors.shape[-1]
    for power in squares[: (count - 1).bit_length()]:
        vectors = torch.cat([vectors, power @ vectors], dim=-1)
    return vectors.unflatten(-1, (-1, size))[..., :count, :]


class ModalKernel(SequenceKernel):
    """k_t = C Āᵗ B̄ with n real states as n/2 complex modes: Λ = -exp(A_real) + i A_imag shared by n_ssm.

    C and Δt are one a feature. With t = jb + i and b about √L, k_t is the product of the row C Ā^{jb} and the column
    Āⁱ B̄, and both families are made by doubling from the squares of Ā; so L samples take n(L + n√L) operations and
    memory n√L.
    """

    def register_modes(self, poles: Tensor) -> None:
        """Register Λ (n/2,) complex, random C, and the sampling periods; C is 1 throughout when deterministic."""
        C = torch.randn(self.channels, self.d_model, self.n // 2, 2) / math.sqrt(2)
        if self.deterministic:
            C = torch.zeros_like(C)
            C[..., 0] = 1.0  # every mode, so that every pole has a gradient
        self.register_sampling_period("raw_sampling_period", self.d_model)
        self.register("A_real", torch.log(-poles.real).repeat(self.n_ssm, 1))
        self.register("A_imag", poles.imag.repeat(self.n_ssm, 1))
        self.register("C", C)

    def check_order(self, d_state: int) -> int:
        """Return n if it is even and at least 2; otherwise raise."""
        n = check_positive_integer("d_state", d_state)
        if n % 2:
            raise ValueError(f"d_state of {self.name} must be even, for its modes come in conjugate pairs; got {n}.")
        return n

    @property
    def sampling_period(self) -> Tensor:
        """Δt of every feature, (H,)."""
        return self.transformed(self.raw_sampling_period)

    def continuous(self, rate: float = 1.0) -> tuple[Diagonal, Tensor, Tensor]:
        """(Λ, each part (H, n/2), B (H, n) in coordinates, Δt (H, 1) at a relative sampling rate), float64."""
        poles = Diagonal(self.per_feature(-torch.exp(self.A_real.double())), self.per_feature(self.A_imag.double()))
        dt = self.transformed(self.raw_sampling_period.double()) * self.check_rate(rate)
        return poles, self.per_feature(coordinates(self.B)), dt.unsqueeze(-1)

    def discretized(self, rate: float = 1.0) -> tuple[Transition, Tensor]:
        """(Ā, B̄ (H, n) in coordinates) at a relative sampling rate, float64."""
        raise NotImplementedError

    def outputs(self) -> Tensor:
        """c (C, H, n) with c·x = 2 Re Σ_j C_j z_j for coordinates x of the modes z, float64."""
        real, imaginary = coordinates(self.C).chunk(2, dim=-1)
        return 2 * torch.cat([real, -imaginary], dim=-1)

    def forward(
        self, L: int | None = None, rate: float = 1.0, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """k_t for t < L, and C Ā^{t+1} s_0 if there is a state s_0 (the host's convention: update, then output).

        Args: L: length, l_max if None; rate: relative sampling rate; state: (B, H, n/2) complex or None.
        Returns: kernel (C, H, L) and state response (B, C, H, L) or None.
        """
        length = self.kernel_length(L)
        with enough_memory(self.name, (self.channels, self.d_model, length), working_dtype(self.C)):
            if state is None:
                return self.kept.get(self, (length, rate), lambda: self._samples(length, rate, None)[0]), None
            start = coordinates(torch.view_as_real(self.check_state(state)))
            return self._samples(length, rate, start)

    def _samples(self, length: int, rate: float, start: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The kernel (C, H, L), and the response to an initial state (B, H, n) in coordinates."""
        dtype = working_dtype(self.C)
        transition, B = self.discretized(rate)
        squares, halvings = transition.squares(length.bit_length()), length.bit_length() // 2
        block = 1 << halvings
        transposed = [power.mT for power in squares[halvings:]]
        rows = _krylov(transposed, self.outputs().permute(1, 2, 0), -(-length // block)).to(dtype)

        def samples(vectors: Tensor) -> Tensor:
            """C Āᵗ v for t < L.  Args: v (K, H, n).  Returns: (K, C, H, L)."""
            columns = _krylov(squares, vectors.permute(1, 2, 0), block).to(dtype)
            with full_precision(columns.device):
                return torch.einsum("hnjc,hnik->kchji", rows, columns).flatten(-2)[..., :length]

        return samples(B.unsqueeze(0))[0], None if start is None else samples(transition(start))

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """s ← Ā s + B̄ u,  y = 2 Re C s.  Args: u (B, H), state (B, H, n/2).  Returns: y (B, C, H), state."""
        start = coordinates(torch.view_as_real(self.check_inputs(u, state, "B, H")))
        transition, B = self.discretized()
        after = transition(start) + B * u.unsqueeze(-1)
        y = torch.einsum("chn,bhn->bch", self.outputs(), after)
        return y.to(u.dtype), torch.complex(*after.chunk(2, dim=-1)).to(state.dtype)

    def forward_state(self, u: Tensor, state: Tensor) -> Tensor:
        """Ā^L s + Σ_t Ā^{L-1-t} B̄ u_t, by halves.  Args: u (B, H, L), state (B, H, n/2).  Returns: (B, H, n/2)."""
        after = coordinates(torch.view_as_real(self.check_inputs(u, state, "B, H, L"))).permute(1, 2, 0)
        transition, B = self.discretized()
        length, dtype = u.shape[-1], working_dtype(self.C)
        squares, halvings = transition.squares(length.bit_length()), length.bit_length() // 2
        columns = _krylov(squares, B.unsqueeze(-1), 1 << halvings).squeeze(-1).to(dtype)
        rounds = ((length - 1) >> halvings).bit_length()
        latest_first = pad(u.flip(-1).to(dtype), (0, (1 << rounds + halvings) - length)).unflatten(
            -1, (1 << rounds, -1)
        )
        with full_precision(u.device):
            driven = torch.einsum("hni,bhji->hnjb", columns, latest_first).double()
        for power in squares[halvings : halvings + rounds]:
            driven = driven[..., ::2, :] + (power @ driven[..., 1::2, :].flatten(-2)).view_as(driven[..., ::2, :])
        for power in (power for bit, power in enumerate(squares) if length >> bit & 1):
            after = power @ after
        after = (after + driven.squeeze(-2)).permute(2, 0, 1)
        return torch.complex(*after.chunk(2, dim=-1)).to(state.dtype)

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state (*batch_shape, H, n/2), complex64 at least, on the parameters' device."""
        dtype = torch.promote_types(working_dtype(self.C), torch.complex32)
        return self.C.detach().new_zeros(*batch_shape, self.d_model, self.n // 2, dtype=dtype)

    def extra_repr(self) -> str:
        """Return the sizes, for print(model)."""
        return f"d_model={self.d_model}, d_state={self.n}, channels={self.channels}, n_ssm={self.n_ssm}"
