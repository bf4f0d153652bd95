"""The frequency grid and the all-pass warp between it and the unit-step system.

The bilinear transform at sampling period Δt followed by its inverse at period 1 moves points along the unit circle,

    θ' = 2 · atan2(sin(θ/2), Δt · cos(θ/2)),

and ``exp(-iθ') = P(exp(iθ))`` with the first-order all-pass filter ``P(z) = (z⁻¹ + a) / (1 + a z⁻¹)``,
``a = (Δt - 1) / (Δt + 1)``. Angles are signed and ``s = i tan(θ/2)`` is never formed: it is infinite at θ = π.

Axes: L samples in time; F = L // 2 + 1 angles in [0, π].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def frequency_grid(length: int, *, device: torch.device | str | None = None) -> Tensor:
    """θ_j = 2πj / L for j = 0 … L // 2, the angles of a real FFT of ``length`` samples.

    Returns:
        (F,) float64, radians per sample in [0, π].
    """
    return torch.arange(length // 2 + 1, dtype=torch.float64, device=device) * (2 * math.pi / length)


def warped_angle(theta: Tensor, sampling_period: Tensor) -> Tensor:
    """θ' = 2 · atan2(sin(θ/2), Δt · cos(θ/2)): where the unit-step system is sampled.

    Args:
        theta: angles in radians, (..., F), in [-π, π].
        sampling_period: Δt > 0, broadcast against ``theta``.

    Returns:
        angles in radians, the shape of both broadcast, in [-π, π]; Δt = 1 is the identity.
    """
    return 2 * torch.atan2(torch.sin(theta / 2), sampling_period * torch.cos(theta / 2))


def allpass_coefficient(sampling_period: Tensor) -> Tensor:
    """a = (Δt - 1) / (Δt + 1), in float64: in float32 its distance from -1 is lost at small Δt."""
    dt = sampling_period.double()
    return (dt - 1) / (dt + 1)


def input_gain(sampling_period: Tensor) -> Tensor:
    """1 - a² = 4Δt / (1 + Δt)², without cancellation, float64."""
    dt = sampling_period.double()
    return 4 * dt / (1 + dt) ** 2


def _half_angle(sampling_period: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(Δt·cos(θ/2), sin(θ/2), 1/(their squares' sum), cos(θ/2)), each (..., F) in the dtype of the period."""
    half = frequency_grid(length, device=sampling_period.device) / 2
    cosine, sine = torch.cos(half).to(sampling_period.dtype), torch.sin(half).to(sampling_period.dtype)
    scaled = sampling_period.unsqueeze(-1) * cosine
    return scaled, sine, 1 / (scaled * scaled + sine * sine), cosine


def allpass_nodes(sampling_period: Tensor, length: int) -> Tensor:
    """P = exp(-iθ') = (c - is)² / (c² + s²) with c = Δt·cos(θ/2), s = sin(θ/2), on the grid of ``length``.

    No trigonometry of Δt: the warp is a rational map.

    Args:
        sampling_period: (...) real, Δt > 0.
        length: L.

    Returns:
        (..., F) complex, modulus 1.
    """
    c, s, inverse, _ = _half_angle(sampling_period, length)
    return torch.complex((c * c - s * s) * inverse, -2 * c * s * inverse)


def laguerre_prefactor(sampling_period: Tensor, length: int) -> Tensor:
    """1 / (1 + a z⁻¹) = (1 + Δt)/2 · exp(iθ/2) · (c - is) / (c² + s²) on the grid of ``length``.

    Times ``√(1 - a²) Pᵏ`` this is the k-th discrete Laguerre function. ``a`` itself is not formed: in float32
    ``1 - |a|`` would lose all its digits at small Δt.

    Args:
        sampling_period: (...) real, Δt > 0.
        length: L.

    Returns:
        (..., F) complex.
    """
    c, s, inverse, cosine = _half_angle(sampling_period, length)
    scale = inverse * (1 + sampling_period.unsqueeze(-1)) / 2
    return torch.complex((cosine * c + s * s) * scale, (c - cosine) * s * scale)


def warp_slope(sampling_period: Tensor, length: int) -> Tensor:
    """dθ'/dΔt = -2 sin(θ/2) cos(θ/2) / (c² + s²) on the grid of ``length``.

    Args:
        sampling_period: (...) real, Δt > 0.
        length: L.

    Returns:
        (..., F) real, at most 0.
    """
    _, s, inverse, cosine = _half_angle(sampling_period, length)
    return -2 * s * cosine * inverse
