"""Diagonal systems: both Gramians are Cauchy-like matrices, and their Cholesky factors have a closed form."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.hankel.state_space import StateSpace


def cauchy_factor(poles: Tensor, weights: Tensor) -> Tensor:
    """F with F F* = W, W_ij = b_i b̄_j / (1 - λ_i λ̄_j): column k is √(1 - |λ_k|²) b_i / (1 - λ_i λ̄_k), and then

        b_i ← b_i (λ_i - λ_k) / (1 - λ_i λ̄_k),

    because every Schur complement of W has that form again. This needs only differences of given numbers, products and
    quotients. Nothing cancels, so even tiny pivots have full relative accuracy. The largest pivot comes first.

    Args:
        poles: λ, (..., n) inside the unit circle.
        weights: b, (..., n).

    Returns:
        (..., n, n) complex, the columns in the order of the pivots.

    Source: Gohberg, Kailath, Olshevsky, Math. Comp. 1995; Demmel, SIAM J. Matrix Anal. Appl. 1999.
    """
    b, columns = weights, []
    gap = (1 - poles.abs()) * (1 + poles.abs())
    for _ in range(poles.shape[-1]):
        pivot = (b.abs().square() / gap).argmax(dim=-1, keepdim=True)
        pole = poles.gather(-1, pivot)
        distance = 1 - poles * pole.conj()
        columns.append(gap.gather(-1, pivot).sqrt() * b / distance)
        b = b * (poles - pole) / distance
    return torch.stack(columns, dim=-1)


def diagonal_singular_values(poles: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """σ_1 ≥ … ≥ σ_n ≥ 0 of  G(z) = Σ_j C_j B_j / (z - λ_j), without a step of its response.

    Modes in conjugate pairs count as two poles here: pass both.

    Args:
        poles: λ, (..., n) complex.
        B: (..., n).
        C: (..., n).

    Returns:
        (..., n) float64.

    Raises:
        ValueError: a pole on or outside the unit circle, numbers that are not finite.
    """
    system = StateSpace.from_modes(poles, B, C.unsqueeze(-2), torch.zeros_like(C[..., :1]))  # for its checks
    if not (poles.abs() < 1).all():
        raise ValueError(
            f"the poles must be inside the unit circle; got one of modulus {poles.abs().max().item():g}. "
            "The Hankel operator of an unstable system is not bounded."
        )
    poles, inputs, outputs = poles.to(torch.complex128), system.B, system.C.squeeze(-2)
    reach, observe = cauchy_factor(poles, inputs), cauchy_factor(poles.conj(), outputs.conj())
    return torch.linalg.svdvals(observe.mH @ reach)
