"""Responses of bands: Laguerre functions times waves, all bands of a feature in one matrix product.

    r_t = Re Σ_g e^{iω_g t} Σ_k c_{g,k} λ_k(t; Δt_g),      Σ_t λ_k(t) z^{-t} = P(z)ᵏ / (1 + a z⁻¹)

A complex number is a pair of real ones, on the first axis. Axes: R responses or sequences, F features, G bands, m
stages, L samples; b about √L. See ``bands`` for the systems that these are responses of.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hope_ssm.ops.backends.krylov import slope
from hope_ssm.ops.frequency import allpass_coefficient, input_gain
from hope_ssm.ops.toeplitz import geometric_series, toeplitz
from hope_ssm.ops.transforms import as_written, forward_mode
from hope_ssm.precision import full_precision


def rotated(pairs: Tensor, angle: Tensor) -> Tensor:
    """e^{iφ} z, with the cosine of a float64 φ.

    Args:
        pairs: z, (2, ...), real and imaginary parts.
        angle: φ, (...).

    Returns:
        (2, ...).
    """
    cosine, sine = (turn(angle.double()).to(pairs.dtype) for turn in (torch.cos, torch.sin))
    real, imaginary = pairs
    return torch.stack([real * cosine - imaginary * sine, real * sine + imaginary * cosine])


def _angles(frequencies: Tensor, count: int, size: int = 1) -> Tensor:
    """ω·size·j for j < count.

    Args:
        frequencies: ω, (F, G).
        count: how many.
        size: steps from one to the next.

    Returns:
        (F, G, count) float64.
    """
    return frequencies.double().unsqueeze(-1) * (size * torch.arange(count, device=frequencies.device))


def advance_series(periods: Tensor, order: int) -> Tensor:
    """The series q of (w - a)/(1 - aw): one step of time is e^{iω} T(q).

    Args:
        periods: Δt, (F, G).
        order: m.

    Returns:
        (F, G, m) float64.
    """
    a, gain = allpass_coefficient(periods), input_gain(periods)
    return torch.cat([-a.unsqueeze(-1), gain.unsqueeze(-1) * geometric_series(a, order)[..., : order - 1]], dim=-1)


def _tables(periods: Tensor, frequencies: Tensor, length: int, order: int) -> tuple[Tensor, Tensor]:
    """What makes responses and moments: (e^{iωi} λ_k(i) for i < b,  T(q^b), T(q^2b), T(q^4b), …), b about √L.

    λ(i) = T(q)ⁱ (1, a, a², …), by doubling with dense matrices (faster than FFTs up to m = 64), in the dtype of Δt, of
    powers of q in float64.

    Args:
        periods: Δt, (F, G).
        frequencies: ω, (F, G), radians per sample.
        length: L.
        order: m.

    Returns:
        (2, F, G, b, m) and (M, F, G, m, m).
    """
    doublings = (length - 1).bit_length()
    powers = [advance_series(periods, order)]
    while len(powers) < doublings:
        powers.append((toeplitz(powers[-1]) @ powers[-1].unsqueeze(-1)).squeeze(-1))
    matrices = toeplitz(torch.stack(powers)).to(periods.dtype)[:doublings]
    fine_doublings = (doublings + 1) // 2
    fine = geometric_series(allpass_coefficient(periods), order).to(periods.dtype).unsqueeze(-2)
    with full_precision(periods.device):
        for matrix in matrices[:fine_doublings]:
            fine = torch.cat([fine, fine @ matrix.mT], dim=-2)
    angle = _angles(frequencies, fine.shape[-2]).unsqueeze(-1)
    turned = torch.stack([fine * torch.cos(angle).to(fine.dtype), fine * torch.sin(angle).to(fine.dtype)])
    return turned, matrices[fine_doublings:]


def _synthesis(c: Tensor, frequencies: Tensor, basis: Tensor, matrices: Tensor, length: int) -> Tensor:
    """c (2, R, F, G, m), tables of order m or more → (R, F, L)."""
    count, order, block = c.shape[1], c.shape[-1], basis.shape[-2]
    strides = -(-length // block)
    rows = c.permute(2, 3, 0, 1, 4).flatten(2, 3)  # (F, G, 2·R, m): the pairs of the first stride, then the next …
    with full_precision(c.device):
        for matrix in matrices[..., :order, :order]:
            missing = strides * 2 * count - rows.shape[-2]
            rows = torch.cat([rows, rows[..., :missing, :] @ matrix], dim=-2)
        rows = rows.unflatten(-2, (strides, 2, count)).movedim(3, 0)
        real, imaginary = rotated(rows, _angles(frequencies, strides, block)[..., None, None])
        product = torch.einsum("zfgjrk,zfgik->rfji", torch.stack([real, -imaginary]), basis[..., :order])
    return product.flatten(-2)[..., :length]


def _analysis(inputs: Tensor, frequencies: Tensor, basis: Tensor, matrices: Tensor) -> Tensor:
    """u (R, F, L), tables of order m → (2, R, F, G, m), the adjoint of ``_synthesis`` but for the sign of Im."""
    (count, _, length), block = inputs.shape, basis.shape[-2]
    pieces = torch.nn.functional.pad(inputs, (0, -length % block)).unflatten(-1, (-1, block))
    with full_precision(inputs.device):
        rows = torch.einsum("rfji,zfgik->zfgjrk", pieces, basis)
        rows = rotated(rows, _angles(frequencies, pieces.shape[-2], block)[..., None, None])
        rows = rows.movedim(0, 3).flatten(2, 4)
        for level in range(len(matrices) - 1, -1, -1):
            half = 2 * count << level
            late = rows[..., half:, :] @ matrices[level].mT
            rows = rows[..., :half, :] + torch.nn.functional.pad(late, (0, 0, 0, 2 * half - rows.shape[-2]))
    return rows.unflatten(-2, (2, count)).permute(2, 3, 0, 1, 4)


def response(coefficients: Tensor, periods: Tensor, frequencies: Tensor, length: int) -> Tensor:
    """r_t = Re Σ_g e^{iω_g t} Σ_k c_{g,k} λ_k(t; Δt_g)  for t = 0 … L - 1, exactly.

    With b about √L and t = jb + i both factors fall apart, e^{iωt} = e^{iωjb} e^{iωi} and λ_k as in ``krylov``. So r is
    one real matrix product [L/b, n] × [n, b] a feature of two short tables, however many bands there are. The
    derivative in Δt is that of ``krylov``; the one in ω needs i·t·λ_k(t), which is of the same kind,

        t λ_k = (1 - Δt²)/(4Δt) (k (λ_{k-1} + λ_k) + (k+1) (λ_k + λ_{k+1})) + (k (1 + Δt) + (k+1) (Δt - 1)) / 2 · λ_k.

    Args:
        coefficients: c, (2, R, F, G, m), real and imaginary parts of R responses.
        periods: Δt, (F, G).
        frequencies: ω, (F, G), radians per sample.
        length: L.

    Returns:
        (R, F, L) in the dtype of ``periods``.
    """
    c = coefficients.to(periods.dtype)
    if as_written():
        return _synthesis(c, frequencies, *_tables(periods, frequencies, length, c.shape[-1]), length)
    return _Response.apply(c, periods, frequencies, length)[0]


def moments(inputs: Tensor, periods: Tensor, frequencies: Tensor, order: int) -> Tensor:
    """m_{g,k} = Σ_t u_t e^{iω_g t} λ_k(t; Δt_g), the adjoint of :func:`response` with conj m.

    Args:
        inputs: u, (R, F, L).
        periods: Δt, (F, G).
        frequencies: ω, (F, G), radians per sample.
        order: m.

    Returns:
        (2, R, F, G, m).
    """
    return _analysis(inputs, frequencies, *_tables(periods, frequencies, inputs.shape[-1], order))


def _times_time(found: Tensor, dt: Tensor) -> Tensor:
    """Σ_t u_t t e^{iωt} λ_k(t) for k < m from the moments m_0 … m_m.

    Args:
        found: moments m_0 … m_m, (..., m + 1).
        dt: broadcast against them.

    Returns:
        (..., m).
    """
    order = torch.arange(1, found.shape[-1], dtype=found.dtype, device=found.device)
    rising = order * (found[..., 1:] + found[..., :-1])
    pairs = rising + torch.nn.functional.pad(rising[..., :-1], (1, 0))
    own = ((order - 1) * (1 + dt) + order * (dt - 1)) / 2
    return (1 - dt * dt) / (4 * dt) * pairs + own * found[..., :-1]


class _Response(torch.autograd.Function):
    """(c, Δt, ω) ↦ r.  The gradient is found from moments of one more order; its own derivatives, if asked for, by
    differentiating the tables."""

    generate_vmap_rule = True

    @staticmethod
    def forward(c: Tensor, periods: Tensor, frequencies: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
        basis, matrices = _tables(periods, frequencies, length, c.shape[-1] + 1)
        return _synthesis(c, frequencies, basis, matrices, length), basis, matrices

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs[:3], *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        c, periods, frequencies, basis, matrices = ctx.saved_tensors
        if torch.is_grad_enabled() or forward_mode():
            basis, matrices = _tables(periods, frequencies, gradient.shape[-1], c.shape[-1] + 1)
        found = _analysis(gradient, frequencies, basis, matrices)
        real, imaginary = c
        dt = periods.unsqueeze(-1)
        moved, (timed_real, timed_imaginary) = slope(found, dt), _times_time(found, dt)
        of_periods = (real * moved[0] - imaginary * moved[1]).sum((0, -1))
        of_frequencies = -(real * timed_imaginary + imaginary * timed_real).sum((0, -1))
        of_c = torch.stack([found[0], -found[1]])[..., :-1]
        return of_c, of_periods, of_frequencies.to(frequencies.dtype), None
