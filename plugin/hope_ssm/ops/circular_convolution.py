"""Circular convolution of a sequence with a kernel of its length. Axes: B batch, C channels, H features, L steps."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.precision import working_dtype


def circular_convolution(u: Tensor, k: Tensor) -> Tensor:
    """y_t = Σ_s k_{(t-s) mod L} u_s, by transforms of L points without padding.

    With k the L samples whose transform is a response g on the L-th roots of unity this is iFFT(FFT(u) · g), Algorithm
    1 of Yu, Mahoney, Erichson (ICLR 2025, arXiv 2405.13975).

    Args:
        u: (B, H, L) real.
        k: (C, H, L) real.

    Returns:
        (B, C, H, L) in the dtype of u; computed in the common dtype of u and k, float32 at least.
    """
    dtype = working_dtype(u, k)
    spectrum = torch.fft.rfft(u.to(dtype).unsqueeze(1)) * torch.fft.rfft(k.to(dtype))
    return torch.fft.irfft(spectrum, n=u.shape[-1]).to(u.dtype)
