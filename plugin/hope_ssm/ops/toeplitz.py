"""Power series of length n, that is lower-triangular Toeplitz matrices T(q), T(q)_ij = q_{i-j}, in float64.

All matrices of the HOPE realization are such series in the down-shift S, so they commute and one vector of n
numbers stands for each. float64 throughout: it is n numbers per system, and float32 would lose the long memory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hope_ssm.ops.frequency import allpass_coefficient, input_gain


def series_product(p: Tensor, q: Tensor) -> Tensor:
    """T(p) q: the first n coefficients of the product of two series.

    Args:
        p: (..., n) float64; batch dimensions broadcast.
        q: (..., n) float64.

    Returns:
        (..., n).
    """
    n = p.shape[-1]
    product = torch.fft.rfft(p, n=2 * n) * torch.fft.rfft(q, n=2 * n)
    return torch.fft.irfft(product, n=2 * n)[..., :n]


def transposed_product(q: Tensor, x: Tensor) -> Tensor:
    """(T(q)ᵀ x)_k = Σ_j q_j x_{k+j}, with x zero beyond its end.

    Args:
        q: (..., n) float64; batch dimensions broadcast.
        x: (..., n) float64.

    Returns:
        (..., n).
    """
    n = q.shape[-1]
    product = torch.fft.rfft(q, n=2 * n).conj() * torch.fft.rfft(x, n=2 * n)
    return torch.fft.irfft(product, n=2 * n)[..., :n]


def toeplitz(series: Tensor) -> Tensor:
    """T(q)_ij = q_{i-j}, as a dense matrix.

    Args:
        series: q, (..., n).

    Returns:
        (..., n, n).
    """
    order = torch.arange(series.shape[-1], device=series.device)
    lag = order.unsqueeze(-1) - order
    return torch.where(lag < 0, 0, series[..., lag.clamp(min=0)])


def geometric_series(ratio: Tensor, n: int) -> Tensor:
    """(1, a, a², …, a^{n-1}): the series of (I - aS)⁻¹, by doubling, smooth in a (also at a = 0).

    Args:
        ratio: (...) float64.
        n: number of terms.

    Returns:
        (..., n).
    """
    series = torch.ones_like(ratio).unsqueeze(-1)
    while series.shape[-1] < n:
        following = series[..., -1:] * ratio.unsqueeze(-1)
        series = torch.cat([series, series * following], dim=-1)
    return series[..., :n]


def transform_size(n: int) -> int:
    """The smallest of 2ᵏ · (1, 3, 5, 9), at least 2n - 1: a product of two series of length n does not wrap around."""
    n = int(n)  # torch.jit.trace has tensors for sizes
    return min(factor << ((2 * n - 2) // factor).bit_length() for factor in (1, 3, 5, 9))


def spectra_of_advance(sampling_period: Tensor, n: int, count: int) -> list[Tensor]:
    """Real FFTs of the series of A, A², A⁴, …, the first n Taylor coefficients of ((w - a) / (1 - aw))^(2^m).

    By repeated squaring in float64: the relative error of power L is about ε·L.

    Args:
        sampling_period: Δt, (...).
        n: terms of a series.
        count: how many.

    Returns:
        as many, each (..., transform_size(n) // 2 + 1) complex128.
    """
    a, gain, size = allpass_coefficient(sampling_period), input_gain(sampling_period), transform_size(n)
    series = torch.cat([-a.unsqueeze(-1), gain.unsqueeze(-1) * geometric_series(a, n)[..., : n - 1]], dim=-1)
    spectra = [torch.fft.rfft(series, n=size)]
    while len(spectra) < count:
        series = torch.fft.irfft(spectra[-1] * spectra[-1], n=size)[..., :n]
        spectra.append(torch.fft.rfft(series, n=size))
    return spectra[:count]


def allpass_power(sampling_period: Tensor, exponent: int, n: int) -> Tensor:
    """First n Taylor coefficients of ((w - a) / (1 - a w))^L: the series of A^L, the state's advance by L steps.

    Sampled on a circle of radius 10^(-1/n) inside the disc of analyticity, where the function is bounded by 1,
    and read off one FFT of 16 n points or more: aliasing 1e-16, rounding amplified ten times at most. Only the
    upper half of the circle is sampled, the lower is its conjugate. The points keep off the real axis, where the
    base has its zero w = a and its logarithm none. That is taken with log1p, so its relative error stays ε at
    small Δt and the power's is ε·L·|log|, where repeated squaring has ε·L.

    Args:
        sampling_period: Δt, (...) float64.
        exponent: L, at least 0.
        n: number of coefficients.

    Returns:
        (..., n) float64, Euclidean norm at most 1.
    """
    points = 16 << max(0, (int(n) - 1).bit_length())
    radius = 0.1 ** (1 / n)
    order = torch.arange(points // 2, dtype=torch.float64, device=sampling_period.device)
    circle = torch.polar(torch.full_like(order, radius), (order + 0.5) * (2 * math.pi / points))
    bilinear = (1 - circle) / (1 + circle)
    x, y = (sampling_period.unsqueeze(-1) * part for part in (bilinear.real, bilinear.imag))
    log_modulus = torch.log1p(-4 * x / ((1 + x) ** 2 + y**2)) / 2
    argument = torch.atan2(-y, 1 - x) - torch.atan2(y, 1 + x)
    # not polar, whose derivative divides by a modulus that may be too small for its square
    samples = torch.exp(torch.complex(exponent * log_modulus, exponent * argument))
    half_point = torch.polar(radius ** -order[:n], order[:n] * (-math.pi / points))
    return (torch.fft.fft(samples, n=points)[..., :n] * (2 / points) * half_point).real
