"""Derivatives of p(z) = Σ_k c_k z^k at the all-pass nodes, for backends that compute its values and its moments.

With z = e^{-iθ'} and ∂θ'/∂Δt = -sin θ' / Δt,

    ∂p/∂Δt = Σ_k k c_k (z^{k-1} - z^{k+1}) / (2Δt),

so the moments m_k = Re Σ_f conj(g_f) z_f^k, k ≤ n, of a cotangent g give both gradients, and the derivatives of the
moments are moments again. Derivatives of every order come from the two sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sums:
    """Values and moments, without derivatives.

    Attributes:
        polynomial: (S, R, n), (S), L → (S, R, F) complex.
        moments: (S, R, F) complex, (S), L, n → (S, R, n) real.
    """

    polynomial: Callable[[Tensor, Tensor, int], Tensor]
    moments: Callable[[Tensor, Tensor, int, int], Tensor]


def differentiable(c: Tensor, dt: Tensor, length: int, sums: Sums) -> Tensor:
    """p(z) with derivatives of every order.

    Args:
        c: (S, R, n).
        dt: Δt, (S).
        length: L.
        sums: what computes the polynomial and its moments.

    Returns:
        (S, R, F) complex.
    """
    return _Polynomial.apply(c, dt, length, sums)


def _slope(moments: Tensor, dt: Tensor) -> Tensor:
    """∂m_k/∂Δt = k (m_{k-1} - m_{k+1}) / (2Δt) for k < n.

    Args:
        moments: m, (S, R, n+1).
        dt: Δt, (S).

    Returns:
        (S, R, n).
    """
    before = torch.nn.functional.pad(moments[..., :-2], (1, 0))
    order = torch.arange(moments.shape[-1] - 1, dtype=dt.dtype, device=dt.device)
    return order * (before - moments[..., 1:]) / (2 * dt[:, None, None])


class _Polynomial(torch.autograd.Function):
    """(c, Δt, L, sums) ↦ p(z)."""

    @staticmethod
    def forward(c: Tensor, dt: Tensor, length: int, sums: Sums) -> Tensor:
        return sums.polynomial(c, dt, length)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.length, ctx.sums = inputs[2:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        c, dt = ctx.saved_tensors
        n, trained = c.shape[-1], ctx.needs_input_grad[1]
        found = _Moments.apply(gradient, dt, ctx.length, n + trained, ctx.sums)
        of_dt = (c * _slope(found, dt)).sum((-2, -1)) if trained else None
        return found[..., :n], of_dt, None, None


class _Moments(torch.autograd.Function):
    """(g, Δt, L, n, sums) ↦ m."""

    @staticmethod
    def forward(gradient: Tensor, dt: Tensor, length: int, order: int, sums: Sums) -> Tensor:
        return sums.moments(gradient, dt, length, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.length, ctx.order, ctx.sums = inputs[2:]

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:
        gradient, dt = ctx.saved_tensors
        of_gradient = of_dt = None
        if ctx.needs_input_grad[0]:
            of_gradient = _Polynomial.apply(weights, dt, ctx.length, ctx.sums)
        if ctx.needs_input_grad[1]:
            found = _Moments.apply(gradient, dt, ctx.length, ctx.order + 1, ctx.sums)
            of_dt = (weights * _slope(found, dt)).sum((-2, -1))
        return of_gradient, of_dt, None, None, None
