"""The Hankel operator behind the parameterization."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.checks import check_markov_parameters


def hankel_matrix(markov_parameters: Tensor) -> Tensor:
    """H_ij = h_{i+j}, zero where i + j ≥ n.

    Args:
        markov_parameters: h, (..., n) real.

    Returns:
        (..., n, n) symmetric, in the dtype of h.
    """
    h = check_markov_parameters(markov_parameters)
    n = h.shape[-1]
    index = torch.arange(n, device=h.device)
    index = index[:, None] + index
    padded = torch.nn.functional.pad(h, (0, n))
    return padded[..., index.clamp(max=2 * n - 1)]


def hankel_singular_values(markov_parameters: Tensor) -> Tensor:
    """σ_1 ≥ … ≥ σ_n: the singular values of H_ij = h_{i+j}, and of the system at every sampling period.

    The warp between sampling periods is an all-pass change of variable, so it leaves the Hankel singular values
    alone. H is symmetric for real h: they are the moduli of its eigenvalues.

    Args:
        markov_parameters: h, (..., n) real.

    Returns:
        (..., n) in the dtype of h, descending, all ≥ 0.
    """
    eigenvalues = torch.linalg.eigvalsh(hankel_matrix(markov_parameters))
    return eigenvalues.abs().sort(dim=-1, descending=True).values
