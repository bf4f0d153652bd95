"""Paterson-Stockmeyer: a few powers of the node, one real matrix product, then Horner's rule in blocks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hope_ssm.ops.backends.batches import by_system
from hope_ssm.ops.frequency import allpass_nodes, warp_slope
from hope_ssm.ops.transforms import as_written
from hope_ssm.precision import full_precision


def samples(coefficients: Tensor, sampling_period: Tensor, length: int) -> Tensor:
    """p(z) = Σ_j (z^b)^j Σ_{i<b} c_{jb+i} zⁱ at the all-pass nodes, with b about √n.

    The inner sums of all blocks are one real product [n/b, b] × [b, 2F] per system; leading batch dimensions
    that the sampling period does not have (channels, batch) share the powers and become rows of it.

    Args:
        coefficients: c, (..., n) real.
        sampling_period: Δt, (...) real, its batch dimensions broadcast against those of ``coefficients``.
        length: L; the angles are θ_j = 2πj / L.

    Returns:
        (..., F) complex with F = L // 2 + 1. Memory O(√n·F) per system while it runs and O(n) for the backward pass,
        which computes the powers again (torch.compile decides that itself).

    Source: Paterson and Stockmeyer, "On the number of nonscalar multiplications necessary to evaluate
    polynomials", SIAM J. Comput. 2 (1973).
    """
    c, dt, restore = by_system(coefficients, sampling_period)
    # Dynamo loses the gradient of Δt through _Evaluation inside torch.func.vjp.
    if as_written():
        return restore(_polynomial(c, *_powers(dt, length, int(c.shape[-1]))))
    return restore(_Evaluation.apply(c, dt, length))


class _Evaluation(torch.autograd.Function):
    """(c (S, R, n), Δt (S)) ↦ p(z), (S, R, F); the backward pass is made of the same three parts."""

    generate_vmap_rule = True

    @staticmethod
    def forward(c: Tensor, dt: Tensor, length: int) -> Tensor:
        return _polynomial(c, *_powers(dt, length, c.shape[-1]))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.length = inputs[2]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        c, dt = ctx.saved_tensors
        n = c.shape[-1]
        powers, stride = _powers(dt, ctx.length, n)
        of_c = of_dt = None
        if ctx.needs_input_grad[0]:  # Re Σ_f conj(g) z^k, again in blocks
            of_c = _moments(gradient, powers, stride, n)
        if ctx.needs_input_grad[1]:  # dp/dθ' = -i Σ_k k c_k z^k
            order = torch.arange(n, dtype=c.dtype, device=c.device)
            slope = (gradient.conj() * _polynomial(c * order, powers, stride)).imag.sum(-2)
            of_dt = (slope * warp_slope(dt, ctx.length)).sum(-1)
        return of_c, of_dt, None


def _powers(dt: Tensor, length: int, n: int) -> tuple[Tensor, Tensor]:
    """(z⁰ … z^{b-1} as real numbers (..., b, 2F), z^b (..., 1, F)) with b = ⌈√n⌉."""
    block = math.isqrt(n - 1) + 1
    node = allpass_nodes(dt, length).unsqueeze(-2)
    powers = torch.ones_like(node)
    while powers.shape[-2] < block:
        powers = torch.cat([powers, powers * (powers[..., -1:, :] * node)], dim=-2)
    powers = powers[..., :block, :]
    return torch.view_as_real(powers).flatten(-2), powers[..., -1:, :] * node


def _polynomial(c: Tensor, powers: Tensor, stride: Tensor) -> Tensor:
    """Σ_k c_k z^k.

    Args:
        c: (S, R, n).
        powers: of ``_powers``.
        stride: of ``_powers``.

    Returns:
        (S, R, F) complex.
    """
    block = int(powers.shape[-2])
    count = -(-int(c.shape[-1]) // block)
    c = torch.nn.functional.pad(c, (0, count * block - c.shape[-1]))
    with full_precision(c.device):
        sums = c.reshape(*c.shape[:-2], -1, block) @ powers
    sums = torch.view_as_complex(sums.reshape(*sums.shape[:-2], c.shape[-2], count, -1, 2))
    value = sums[..., -1, :]
    for j in range(count - 2, -1, -1):
        value = torch.addcmul(sums[..., j, :], value, stride)
    return value


def _moments(gradient: Tensor, powers: Tensor, stride: Tensor, n: int) -> Tensor:
    """Re Σ_f conj(g_f) z_f^k for k < n.

    Args:
        gradient: (S, R, F) complex.
        powers: of ``_powers``.
        stride: of ``_powers``.
        n: how many moments.

    Returns:
        (S, R, n).
    """
    block = powers.shape[-2]
    blocks = [gradient]
    for _ in range(-(-n // block) - 1):
        blocks.append(blocks[-1] * stride.conj())
    stacked = torch.view_as_real(torch.stack(blocks, dim=-2)).flatten(-2)  # (S, R, n/b, 2F)
    with full_precision(powers.device):
        moments = stacked.flatten(-3, -2) @ powers.transpose(-1, -2)
    return moments.reshape(*gradient.shape[:-1], -1)[..., :n]
