"""What the kernels with a complex state matrix share: n/2 modes, each with its conjugate.

Computations use n real coordinates x = (Re z, Im z) of the modes z. Axes: B batch, C channels, H features, L samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hope_ssm.checks import check_positive_integer, check_positive_number
from hope_ssm.kernels.state_space import StateSpaceKernel
from hope_ssm.precision import working_dtype

SLOWEST = 1e-4  # the least decay -Re λ that a logarithm is taken of


def coordinates(pairs: Tensor) -> Tensor:
    """(Re z, Im z), (..., n) float64, of n/2 modes z as real numbers (..., n/2, 2)."""
    return pairs.double().transpose(-1, -2).flatten(-2)


@dataclass  # made in compiled graphs, where older compilers know no frozen ones
class Diagonal:
    """diag(f) for complex f (..., H, n/2), in coordinates: 2 × 2 blocks that turn and scale those of each mode."""

    real: Tensor
    imaginary: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """f z.

        Args:
            x: (..., H, n).

        Returns:
            the same shape.
        """
        a, b = x.chunk(2, dim=-1)
        return torch.cat([self.real * a - self.imaginary * b, self.imaginary * a + self.real * b], dim=-1)

    def at(self, steps: slice) -> Diagonal:
        """Those of some steps of f (B, L, H, n/2)."""
        return Diagonal(self.real[:, steps], self.imaginary[:, steps])

    def after(self, earlier: Diagonal) -> Diagonal:
        """f g."""
        f, h, g, k = self.real, self.imaginary, earlier.real, earlier.imaginary
        return Diagonal(f * g - h * k, f * k + h * g)

    def __matmul__(self, x: Tensor) -> Tensor:
        """The same of the columns of x (..., H, n, K)."""
        return Diagonal(self.real.unsqueeze(-2), self.imaginary.unsqueeze(-2)).apply(x.mT).mT

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
            found.append(found[-1].after(found[-1]))
        return found


def exponential(poles: Diagonal, dt: Tensor) -> tuple[Diagonal, Diagonal]:
    """(e^{Δtλ}, e^{Δtλ} - 1), without loss of digits where Δtλ is small.

    Args:
        poles: λ, each part (H, n/2).
        dt: Δt, (…, H, 1).

    Returns:
        both, each part (…, H, n/2).
    """
    x, y = dt * poles.real, dt * poles.imaginary
    growth = torch.exp(x)
    rotated = growth * torch.sin(y)
    less_one = torch.expm1(x) * torch.cos(y) - 2 * torch.sin(y / 2).square()
    return Diagonal(growth * torch.cos(y), rotated), Diagonal(less_one, rotated)


def zero_order_hold(poles: Diagonal, B: Tensor, dt: Tensor) -> tuple[Diagonal, Tensor]:
    """Ā = e^{ΔtΛ} and B̄ = (Ā - 1)Λ⁻¹B, exact for piecewise constant inputs.

    Args:
        poles: λ, each part (H, n/2).
        B: (H, n) in coordinates.
        dt: Δt, (…, H, 1).

    Returns:
        Ā, and B̄ (…, H, n) in coordinates.
    """
    growth, less_one = exponential(poles, dt)
    return growth, less_one.apply(poles.inverse().apply(B))


class ModalKernel(StateSpaceKernel):
    """k_t = 2 Re Σ_j C_j Ā_jᵗ B̄_j with n real states as n/2 complex modes: Λ = -exp(A_real) + i A_imag, by n_ssm.

    C and Δt are one per feature.
    """

    A_real: Tensor
    A_imag: Tensor
    B: Tensor

    def register_modes(self, poles: Tensor, scale_imag: float = 1.0) -> None:
        """Register Λ, (n/2,) or (n_ssm, n/2) complex, random C, and the sampling periods.

        Args:
            poles: Re Λ + i Im Λ.
            scale_imag: α, above 0: Λ begins as Re Λ + iα Im Λ.

        Source: Yu, Lyu, Lim, Mahoney, Erichson, "Tuning Frequency Bias of State Space Models", ICLR 2025
        (arXiv 2410.02035).
        """
        poles = torch.complex(poles.real, check_positive_number("imag_scale", scale_imag) * poles.imag)
        C = self.initial_outputs()
        self.register_sampling_period("raw_sampling_period", self.d_model)
        self.register_poles(poles.expand(self.n_ssm, -1))
        self.register("C", C)

    def initial_outputs(self) -> Tensor:
        """Random C (C, H, n/2, 2), E|C_j|² = 1; 1 throughout when deterministic, so that every pole has a gradient."""
        C = torch.randn(self.channels, self.d_model, self.n // 2, 2) / math.sqrt(2)
        if self.deterministic:
            C = torch.zeros_like(C)
            C[..., 0] = 1.0
        return C

    def register_poles(self, poles: Tensor) -> None:
        """Register Λ (n_ssm, n/2); a logarithm carries the real part, so that it stays below 0."""
        self.register("A_real", torch.log((-poles.real).clamp(min=SLOWEST)))
        self.register("A_imag", poles.imag.clone())

    def check_order(self, d_state: int) -> int:
        """Return n if it is even and at least 2; otherwise raise."""
        n = check_positive_integer("d_state", d_state)
        if n % 2:
            raise ValueError(
                f"d_state of {self.name} must be even, because its modes come in conjugate pairs; got {n}."
            )
        return n

    def poles(self) -> Diagonal:
        """Λ, each part (H, n/2), float64."""
        return Diagonal(self.per_feature(-torch.exp(self.A_real.double())), self.per_feature(self.A_imag.double()))

    def inputs(self) -> Tensor:
        """B (H, n) in coordinates, float64."""
        return self.per_feature(coordinates(self.B))

    def outputs(self) -> Tensor:
        """c (C, H, n) with c·x = 2 Re Σ_j C_j z_j for coordinates x of the modes z, float64."""
        real, imaginary = coordinates(self.C).chunk(2, dim=-1)
        return 2 * torch.cat([real, -imaginary], dim=-1)

    def from_state(self, state: Tensor) -> Tensor:
        """Coordinates (B, H, n) of a complex state (B, H, n/2)."""
        return coordinates(torch.view_as_real(state))

    def to_state(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The inverse of ``from_state``."""
        return torch.complex(*x.chunk(2, dim=-1)).to(dtype)

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state (*batch_shape, H, n/2), complex64 at least, on the parameters' device."""
        dtype = torch.promote_types(working_dtype(self.C), torch.complex32)
        return self.C.detach().new_zeros(*batch_shape, self.d_model, self.n // 2, dtype=dtype)
