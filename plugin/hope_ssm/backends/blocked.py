"""Paterson-Stockmeyer: a few powers of the node, one real matrix product, then Horner's rule in blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hope_ssm.frequency import allpass_nodes


def evaluate(coefficients: Tensor, sampling_period: Tensor, length: int) -> Tensor:
    """p(z) = Σ_j (z^b)^j Σ_{i<b} c_{jb+i} zⁱ at the all-pass nodes, with b about √n.

    The inner sums of all blocks are one real product [n/b, b] × [b, 2F] a system; leading batch dimensions
    that the sampling period does not have (channels, batch) share the powers and become rows of it.

    Args:
        coefficients: c, (..., n) real.
        sampling_period: Δt, (...) real, its batch dimensions broadcast against those of ``coefficients``.
        length: L; the angles are θ_j = 2πj / L.

    Returns: (..., F) complex with F = L // 2 + 1. Memory O(√n·F) per system.

    Source: Paterson and Stockmeyer, "On the number of nonscalar multiplications necessary to evaluate
    polynomials", SIAM J. Comput. 2 (1973).
    """
    node = allpass_nodes(sampling_period, length)
    n = coefficients.shape[-1]
    block = math.isqrt(n - 1) + 1
    count = -(-n // block)

    batch = torch.broadcast_shapes(coefficients.shape[:-1], sampling_period.shape)
    own = (1,) * (len(batch) - sampling_period.ndim) + tuple(sampling_period.shape)
    shared = next((i for i, size in enumerate(own) if size != 1), len(own))
    rows, systems = batch[:shared], batch[shared:]
    coefficients = torch.nn.functional.pad(coefficients.expand(*batch, n), (0, count * block - n))
    coefficients = coefficients.reshape(math.prod(rows), *systems, count, block).movedim(0, -3)
    node = node.reshape(*own[shared:], 1, node.shape[-1])

    powers = torch.ones_like(node)
    while powers.shape[-2] < block:
        powers = torch.cat([powers, powers * (powers[..., -1:, :] * node)], dim=-2)
    powers = powers[..., :block, :]
    stride = powers[..., -1:, :] * node  # z^b, broadcast over the rows

    flat = torch.view_as_real(powers).flatten(-2)
    sums = coefficients.reshape(*systems, -1, block) @ flat
    sums = torch.view_as_complex(sums.reshape(*systems, math.prod(rows), count, -1, 2))
    value = sums[..., -1, :]
    for j in range(count - 2, -1, -1):
        value = torch.addcmul(sums[..., j, :], value, stride)
    return value.movedim(-2, 0).reshape(*batch, -1)
