"""Algorithm 1 as it was published: every term of every sample of the transfer function in memory at once."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def algorithm_1(markov_parameters: Tensor, sampling_period: Tensor, length: int) -> Tensor:
    """k = Re iFFT(g),  g_j = Σ_k h_k z_j^{-(k+1)},  z = (1 + s)/(1 - s),  s = (ω - 1)/(ω + 1)/Δt,  ω = e^{2πij/L}.

    A dense (H, L, n) array of complex numbers, z by its angle 2·atan2(sin(θ/2), Δt·cos(θ/2)).

    Args:
        markov_parameters: (H, n).
        sampling_period: (H,).
        length: L.

    Returns:
        (H, L) real.

    Source: arXiv 2405.13975, Algorithm 1.
    """
    dtype = markov_parameters.dtype
    half = torch.arange(length, device=markov_parameters.device, dtype=dtype) * (math.pi / length)
    angle = 2 * torch.atan2(torch.sin(half), sampling_period.unsqueeze(-1) * torch.cos(half))
    order = torch.arange(1, markov_parameters.shape[-1] + 1, device=angle.device, dtype=dtype)
    terms = torch.exp(-1j * angle.unsqueeze(-1) * order)  # (H, L, n)
    samples = (terms * markov_parameters.unsqueeze(-2)).sum(-1)
    return torch.fft.ifft(samples).real
