"""State spaces for analysis: dense, in double precision, many at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class StateSpace:
    """x_{t+1} = A x_t + B u_t,  y_t = C x_t + D u_t: one input, C outputs, n states.

    Args:
        A: (..., n, n), float64 or complex128.
        B: (..., n).
        C: (..., C, n).
        D: (..., C).

    Raises:
        TypeError, ValueError: precision, shapes, numbers that are not finite.
    """

    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor

    def __post_init__(self) -> None:
        n, outputs = self.A.shape[-1], self.C.shape[-2] if self.C.ndim > 1 else None
        wanted = {"A": (n, n), "B": (n,), "C": (outputs, n), "D": (outputs,)}
        for name, shape in wanted.items():
            matrix = getattr(self, name)
            if matrix.dtype not in (torch.float64, torch.complex128):
                raise TypeError(
                    f"{name} of a state space must be float64 or complex128; got {matrix.dtype}. "
                    "Convert with .double()."
                )
            if matrix.shape != (*self.A.shape[:-2], *shape):
                raise ValueError(
                    "a state space must have shapes A (..., n, n), B (..., n), C (..., C, n), D (..., C); got "
                    + ", ".join(f"{key} {tuple(getattr(self, key).shape)}" for key in wanted)
                    + "."
                )
            if not torch.isfinite(matrix).all():
                raise ValueError(f"{name} of a state space must be finite; got infinite or NaN entries.")

    @classmethod
    def from_markov_parameters(cls, markov_parameters: Tensor) -> StateSpace:
        """G(z) = Σ_k h_k z^{-(k+1)}: HOPE at Δt = 1, A the shift towards the first state.

        The sampling period is an all-pass change of variable: it changes neither Hankel singular values nor H∞ norms.

        Args:
            markov_parameters: h, (..., C, n).
        """
        h = markov_parameters.double()
        n = h.shape[-1]
        shift = torch.diag(h.new_ones(n - 1), 1).expand(*h.shape[:-2], n, n)
        last = torch.eye(n, dtype=h.dtype, device=h.device)[-1].expand(*h.shape[:-2], n)
        return cls(shift, last, h.flip(-1), h.new_zeros(h.shape[:-1]))

    @classmethod
    def from_modes(cls, poles: Tensor, B: Tensor, C: Tensor, D: Tensor) -> StateSpace:
        """A = diag(λ).

        Args:
            poles: λ (..., n), complex or real, like the others.
            B: (..., n).
            C: (..., C, n).
            D: (..., C).
        """
        complete = (part.to(torch.complex128) for part in (torch.diag_embed(poles), B, C, D))
        return cls(*complete)

    def __getitem__(self, index: int | slice | Tensor) -> StateSpace:
        """Return some of the systems."""
        return StateSpace(*(getattr(self, field.name)[index] for field in fields(self)))

    def __sub__(self, other: StateSpace) -> StateSpace:
        """Return the system of the difference of the outputs; its states are those of both."""
        n, kind = self.A.shape[-1], torch.promote_types(self.A.dtype, other.A.dtype)
        total = n + other.A.shape[-1]
        A = torch.zeros(*self.A.shape[:-2], total, total, dtype=kind, device=self.A.device)
        A[..., :n, :n], A[..., n:, n:] = self.A, other.A
        B, C = torch.cat([self.B, other.B], dim=-1), torch.cat([self.C, -other.C], dim=-1)
        return StateSpace(A, B, C, self.D - other.D)

    def impulse_response(self, length: int) -> Tensor:
        """k_0 = D, k_t = C A^{t-1} B.

        Args:
            length: L.

        Returns:
            (..., C, L).
        """
        samples, state = [self.D], self.B
        for _ in range(length - 1):
            samples.append((self.C @ state.unsqueeze(-1)).squeeze(-1))
            state = (self.A @ state.unsqueeze(-1)).squeeze(-1)
        return torch.stack(samples, dim=-1)
