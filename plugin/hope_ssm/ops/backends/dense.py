"""The readable reference: every power of every node, (..., n, F) real and imaginary parts at once."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.ops.frequency import frequency_grid, warped_angle
from hope_ssm.precision import full_precision


def samples(coefficients: Tensor, sampling_period: Tensor, length: int) -> Tensor:
    """p(θ_j) = Σ_k c_k exp(-ikθ'_j), the polynomial in the all-pass node, term by term.

    Args:
        coefficients: c, (..., n) real.
        sampling_period: Δt, (...) real, its batch dimensions broadcast against those of ``coefficients``.
        length: L; the angles are θ_j = 2πj / L.

    Returns:
        (..., F) complex with F = L // 2 + 1. Memory O(n·F) per system.
    """
    theta = frequency_grid(length, device=coefficients.device)  # in float64: at large Δt the warp magnifies π - θ
    angle = warped_angle(theta, sampling_period.unsqueeze(-1)).to(sampling_period.dtype)
    order = torch.arange(coefficients.shape[-1], dtype=angle.dtype, device=angle.device)
    phase = order[:, None] * angle.unsqueeze(-2)
    coefficients = coefficients.to(phase.dtype)
    with full_precision(coefficients.device):
        real, imaginary = (torch.einsum("...k,...kf->...f", coefficients, part) for part in (phase.cos(), phase.sin()))
    return torch.complex(real, -imaginary)
