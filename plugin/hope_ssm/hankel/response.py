"""What samples of an impulse response tell: singular values up to a bound, ε-rank, length of the memory."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.checks import check_positive_number
from hope_ssm.hankel.matrix import hankel_singular_values


def response_singular_values(response: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """σ of the system that ends with k_L, and Σ_{t>L} |k_t| over the rest of the samples.

    By Weyl's inequality no singular value of the whole response differs by more than that sum. k_0 is not in the
    Hankel operator: it is no memory.

    Args:
        response: k_0, k_1, …, (..., K) real.
        length: L, cut to K - 1.

    Returns:
        (..., L) and (...), in the dtype of the response.
    """
    length = max(1, min(length, response.shape[-1] - 1))
    memory = response[..., 1:] if response.shape[-1] > 1 else torch.zeros_like(response)
    return hankel_singular_values(memory[..., :length]), memory[..., length:].abs().sum(-1)


def numerical_rank(singular_values: Tensor, epsilon: float) -> Tensor:
    """How many σ_k > ε σ_1.

    Args:
        singular_values: descending, (..., n).
        epsilon: above 0.

    Returns:
        (...) whole numbers.
    """
    return (singular_values > check_positive_number("epsilon", epsilon) * singular_values[..., :1]).sum(-1)


def effective_rank(singular_values: Tensor) -> Tensor:
    """exp(-Σ_k p_k log p_k) with p_k = σ_k / Σ σ: from 1, one σ alone, to n, all equal; gradients are finite.

    Args:
        singular_values: (..., n), not all 0.

    Returns:
        (...).

    Source: Roy, Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007.
    """
    share = singular_values / singular_values.sum(-1, keepdim=True)
    return torch.special.entr(share.clamp(min=torch.finfo(share.dtype).tiny)).sum(-1).exp()


def memory_length(response: Tensor, energy: float = 0.99) -> Tensor:
    """The least t with Σ_{1≤s≤t} k_s² ≥ ``energy`` · Σ_{s≥1} k_s²: steps that hold most of what is remembered.

    Args:
        response: k_0, k_1, …, (..., K).
        energy: share of the energy, above 0 and below 1.

    Returns:
        (...) whole numbers, 0 without memory, at most K - 1: then the response may go on beyond its samples.
    """
    total = response[..., 1:].double().square().cumsum(-1)
    if not total.shape[-1]:
        return torch.zeros(response.shape[:-1], dtype=torch.int64, device=response.device)
    there = total[..., -1:] > 0
    return ((total < energy * total[..., -1:]).sum(-1) + 1) * there.squeeze(-1)
