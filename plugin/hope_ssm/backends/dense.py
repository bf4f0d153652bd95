"""The readable reference: every power of every node, (..., n, F) complex numbers at once."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.backends import full_precision
from hope_ssm.frequency import frequency_grid, warped_angle


def evaluate(coefficients: Tensor, sampling_period: Tensor, length: int) -> Tensor:
    """p(θ_j) = Σ_k c_k exp(-ikθ'_j), the polynomial in the all-pass node, term by term.

    Args:
        coefficients: c, (..., n) real.
        sampling_period: Δt, (...) real, its batch dimensions broadcast against those of ``coefficients``.
        length: L; the angles are θ_j = 2πj / L.

    Returns: (..., F) complex with F = L // 2 + 1. Memory O(n·F) per system.
    """
    powers = _powers(sampling_period, length, coefficients.shape[-1])
    batch = torch.broadcast_shapes(coefficients.shape[:-1], powers.shape[:-2])
    coefficients = coefficients.expand(*batch, -1).to(powers.dtype)
    with full_precision(coefficients.device):
        return torch.einsum("...k,...kf->...f", coefficients, powers.expand(*batch, -1, -1))


def moments(values: Tensor, sampling_period: Tensor, length: int, n: int) -> Tensor:
    """m_k = Re Σ_j conj(v_j) exp(-ikθ'_j) for k < n: the adjoint of ``evaluate`` in the coefficients.

    Args: values: v, (..., F) complex; the others as of ``evaluate``.  Returns: (..., n) real.
    """
    powers = _powers(sampling_period, length, n)
    batch = torch.broadcast_shapes(values.shape[:-1], powers.shape[:-2])
    with full_precision(values.device):
        return torch.einsum("...f,...kf->...k", values.expand(*batch, -1).conj(), powers.expand(*batch, -1, -1)).real


def _powers(sampling_period: Tensor, length: int, n: int) -> Tensor:
    """exp(-ikθ'_j), (..., n, F) complex."""
    theta = frequency_grid(length, device=sampling_period.device)  # in float64: at large Δt the warp magnifies π - θ
    angle = warped_angle(theta, sampling_period.unsqueeze(-1)).to(sampling_period.dtype)
    phase = torch.arange(n, dtype=angle.dtype, device=angle.device)[:, None] * angle.unsqueeze(-2)
    return torch.polar(torch.ones_like(phase), -phase)
