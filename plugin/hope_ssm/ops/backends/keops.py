"""KeOps: the sum as a symbolic matrix, reduced without being stored, on CPU and GPU."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.ops.backends.batches import by_system
from hope_ssm.ops.frequency import frequency_grid, warped_angle


def samples(coefficients: Tensor, sampling_period: Tensor, length: int) -> Tensor:
    """p(θ_j) = Σ_k c_k exp(-ikθ'_j), the polynomial in the all-pass node, term by term but never in memory.

    KeOps compiles its formulas at their first use in each precision (seconds), and differentiates them itself.

    Args:
        coefficients: c, (..., n) real.
        sampling_period: Δt, (...) real, its batch dimensions broadcast against those of ``coefficients``.
        length: L; the angles are θ_j = 2πj / L.

    Returns:
        (..., F) complex with F = L // 2 + 1. Memory O(n + F) per system.

    Source: Charlier, Feydy, Glaunès, Collin, Durif, "Kernel Operations on the GPU, with Autodiff, without Memory
    Overflows", JMLR 22 (2021).
    """
    from pykeops.torch import LazyTensor

    c, dt, restore = by_system(coefficients.to(sampling_period.dtype), sampling_period)
    shape, frequencies = c.shape[:2], length // 2 + 1
    theta = frequency_grid(max(length, 2), device=dt.device)  # KeOps takes an axis of one for no axis
    angle = warped_angle(theta, dt.unsqueeze(-1)).to(dt.dtype)  # (S, F)
    angle = angle.unsqueeze(1).expand(*shape, -1).flatten(0, 1)
    c = torch.nn.functional.pad(c, (0, max(0, 2 - c.shape[-1]))).flatten(0, 1)
    order = torch.arange(c.shape[-1], dtype=dt.dtype, device=dt.device)
    phase = LazyTensor(angle[:, :, None, None].contiguous()) * LazyTensor(order[None, None, :, None])
    weight = LazyTensor(c[:, None, :, None].contiguous())
    real, imaginary = ((weight * part).sum(dim=2).squeeze(-1) for part in (phase.cos(), -phase.sin()))
    return restore(torch.complex(real, imaginary).unflatten(0, shape)[..., :frequencies])
