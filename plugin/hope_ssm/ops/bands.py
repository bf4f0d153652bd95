"""Bands: short chains of complex all-pass stages, each around a frequency of its own, in orthonormal coordinates.

With a_g = (Δt_g - 1)/(Δt_g + 1), the down-shift S and m complex states a band,

    x_g ← e^{iω_g} (S - a_g I)(I - a_g S)⁻¹ x_g + √(1 - a_g²) (I - a_g S)⁻¹ e₀ u,      y = Re Σ_g c_gᵀ x_g,
    k_t = Re Σ_g √(1 - a_g²) e^{iω_g t} Σ_k c_{g,k} λ_k(t; Δt_g),

with λ_k of ``backends.krylov``: ‖A‖ = 1, and the controllability Gramian of a band is I. A complex number is a pair
of real ones, on the first axis, so that n = 2Gm. Axes: R responses or sequences, F features, G bands, m stages,
L samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.ops.band_responses import advance_series, moments, response, rotated
from hope_ssm.ops.frequency import allpass_coefficient
from hope_ssm.ops.toeplitz import allpass_power, geometric_series, series_product, toeplitz, transposed_product


def input_scale(periods: Tensor) -> Tensor:
    """√(1 - a²) = 2√Δt / (1 + Δt), float64: what makes the functions λ_k orthonormal.

    Args:
        periods: Δt, (...).

    Returns:
        (...) float64.
    """
    dt = periods.double()
    return 2 * dt.sqrt() / (1 + dt)


def advance(states: Tensor, periods: Tensor, frequencies: Tensor, steps: int) -> Tensor:
    """A^L x, float64.

    Args:
        states: x, (2, R, F, G, m).
        periods: Δt, (F, G).
        frequencies: ω, (F, G), radians per sample.
        steps: L.

    Returns:
        (2, R, F, G, m) float64.
    """
    power = allpass_power(periods.double(), steps, states.shape[-1])
    return rotated(series_product(power, states.double()), (steps * frequencies.double()).unsqueeze(-1))


def state_response(coefficients: Tensor, periods: Tensor, frequencies: Tensor, states: Tensor, length: int) -> Tensor:
    """Re Σ_g c_gᵀ A^{t+1} x_g for t < L: a response again, with the coefficients T((I - aS) A x)ᵀ c.

    Args:
        coefficients: c, (2, C, F, G, m).
        periods: Δt, (F, G).
        frequencies: ω, (F, G), radians per sample.
        states: x, (2, B, F, G, m).
        length: L.

    Returns:
        (B, C, F, L).
    """
    first = advance(states, periods, frequencies, 1)
    a = allpass_coefficient(periods).unsqueeze(-1)
    first = torch.cat([first[..., :1], first[..., 1:] - a * first[..., :-1]], dim=-1).unsqueeze(2)
    c = coefficients.double().unsqueeze(1)
    real = transposed_product(first[0], c[0]) - transposed_product(first[1], c[1])
    imaginary = transposed_product(first[0], c[1]) + transposed_product(first[1], c[0])
    both = torch.stack([real, imaginary]).to(periods.dtype)
    return response(both.flatten(1, 2), periods, frequencies, length).unflatten(0, both.shape[1:3])


def kernel(coefficients: Tensor, periods: Tensor, frequencies: Tensor, length: int) -> Tensor:
    """k_t for t < L.

    Args:
        coefficients: c, (2, C, F, G, m).
        periods: Δt, (F, G).
        frequencies: ω, (F, G), radians per sample.
        length: L.

    Returns:
        (C, F, L).
    """
    scale = input_scale(periods).unsqueeze(-1).to(periods.dtype)
    return response(scale * coefficients, periods, frequencies, length)


def forward_state(periods: Tensor, frequencies: Tensor, inputs: Tensor, states: Tensor) -> Tensor:
    """A^L x + Σ_t A^{L-1-t} B u_t, float64.

    Args:
        periods: Δt, (F, G).
        frequencies: ω, (F, G), radians per sample.
        inputs: u, (B, F, L).
        states: x, (2, B, F, G, m).

    Returns:
        (2, B, F, G, m) float64.
    """
    driven = moments(inputs.flip(-1).to(periods.dtype), periods, frequencies, states.shape[-1])
    return input_scale(periods).unsqueeze(-1) * driven + advance(states, periods, frequencies, inputs.shape[-1])


def step(
    coefficients: Tensor, periods: Tensor, frequencies: Tensor, inputs: Tensor, states: Tensor
) -> tuple[Tensor, Tensor]:
    """x ← A x + B u,  y = Re Σ_g c_gᵀ x_g, float64.

    Args:
        coefficients: c, (2, C, F, G, m).
        periods: Δt, (F, G).
        frequencies: ω, (F, G), radians per sample.
        inputs: u, (B, F).
        states: x, (2, B, F, G, m).

    Returns:
        y (B, C, F) and the next states (2, B, F, G, m), float64.
    """
    order = states.shape[-1]
    matrix, a = toeplitz(advance_series(periods, order)), allpass_coefficient(periods)
    after = rotated(torch.einsum("fgij,zbfgj->zbfgi", matrix, states.double()), frequencies.double().unsqueeze(-1))
    into = input_scale(periods).unsqueeze(-1) * geometric_series(a, order)
    after = torch.stack([after[0] + into * inputs.double()[..., None, None], after[1]])
    real, imaginary = coefficients.double()
    y = torch.einsum("cfgk,bfgk->bcf", real, after[0]) - torch.einsum("cfgk,bfgk->bcf", imaginary, after[1])
    return y, after
