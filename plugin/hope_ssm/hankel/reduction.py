"""Balanced truncation: fewer states, with the error bounded before a single sample is computed."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.checks import check_positive_integer, check_positive_number
from hope_ssm.hankel.gramians import gramian_factor
from hope_ssm.hankel.state_space import StateSpace

RANK = 1e-13  # singular values below this times σ_1 are rounding: no state can be balanced against them


def certificates(singular_values: Tensor) -> Tensor:
    """2 Σ_{k>r} σ_k for r = 0 … n: the H∞ error of the balanced truncation to r states is at most this.

    Args:
        singular_values: descending, (..., n).

    Returns:
        (..., n + 1), descending to 0.

    Source: Al-Saggaf, Franklin, "An error bound for a discrete reduced order model", IEEE TAC 1987; Glover 1984.
    """
    tails = 2 * singular_values.flip(-1).cumsum(-1).flip(-1)
    return torch.nn.functional.pad(tails, (0, 1))


def smallest_orders(singular_values: Tensor, tolerance: float) -> Tensor:
    """The least r whose certificate is at most ``tolerance`` · σ_1.

    Args:
        singular_values: descending, (..., n).
        tolerance: above 0.

    Returns:
        (...) whole numbers.
    """
    tolerance = check_positive_number("tolerance", tolerance)
    return (certificates(singular_values) > tolerance * singular_values[..., :1]).sum(-1)


def balanced_truncation(system: StateSpace, order: int) -> StateSpace:
    """Return the r states that carry the r largest Hankel singular values: W_c = W_o = diag(σ_1 … σ_r) of G itself.

    The result is stable, and ‖G - G_r‖_∞ ≤ 2 Σ_{k>r} σ_k (``certificates``).

    Args:
        system: stable, not a batch: A (n, n), B (n,), C (C, n), D (C,).
        order: r, from 1 to the number of singular values above 1e-13 σ_1.

    Raises:
        ValueError: more states than that, or an unstable system.

    Source: Moore, IEEE TAC 1981; square-root method of Tombs, Postlethwaite, Int. J. Control 1987.
    """
    order = check_positive_integer("order", order)
    reach = gramian_factor(system.A, system.B.unsqueeze(-1))
    observe = gramian_factor(system.A.mH, system.C.mH)
    left, values, right = torch.linalg.svd(observe.mH @ reach, full_matrices=False)
    there = int((values > RANK * values[0]).sum())
    if order > there:
        raise ValueError(f"order must be at most {there}, the number of states that the system has; got {order}.")
    scale = values[:order].rsqrt()
    into = reach @ right.mH[:, :order] * scale
    back = (observe @ left[:, :order] * scale).mH
    return StateSpace(back @ system.A @ into, back @ system.B, system.C @ into, system.D)
