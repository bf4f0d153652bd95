"""Batch dimensions: those that the sampling period has (systems), and those that share its powers (rows)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def leading_ones(shape: tuple[int, ...]) -> int:
    """How many axes of length 1 a shape begins with. (Older compilers trace no generators.)"""
    count = 0
    while count < len(shape) and shape[count] == 1:
        count += 1
    return count


def by_system(coefficients: Tensor, sampling_period: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """Bring (..., n) and (...) into the form (S, R, n) and (S): R rows (channels, batch) of every system share Δt.

    Returns:
        both, and the function that takes a result (S, R, X) back to (..., X).
    """
    n = coefficients.shape[-1]
    batch = torch.broadcast_shapes(coefficients.shape[:-1], sampling_period.shape)
    own = (1,) * (len(batch) - sampling_period.ndim) + tuple(sampling_period.shape)
    shared = leading_ones(own)
    rows, systems = batch[:shared], batch[shared:]
    c = coefficients.expand(*batch, n).reshape(math.prod(rows), math.prod(systems), n).transpose(0, 1)
    dt = sampling_period.reshape(own[shared:]).expand(systems).flatten()
    return c, dt, lambda value: value.transpose(0, 1).reshape(*batch, -1)
