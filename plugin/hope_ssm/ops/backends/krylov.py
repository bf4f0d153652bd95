"""Baby steps and giant steps in time: the response as one real matrix product of two short tables, without an FFT."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hope_ssm.ops.backends.batches import by_system
from hope_ssm.ops.frequency import allpass_coefficient
from hope_ssm.ops.toeplitz import geometric_series, spectra_of_advance, transform_size
from hope_ssm.ops.transforms import as_written, forward_mode
from hope_ssm.precision import full_precision


def response(coefficients: Tensor, sampling_period: Tensor, length: int) -> Tensor:
    """r_t = Σ_k c_k λ_k(t),  Σ_t λ_k(t) z^{-t} = P(z)ᵏ / (1 + a z⁻¹),  for t = 0 … L - 1, exactly.

    One step of time is T(q)ᵀ on c, q the series of (w - a) / (1 - aw), and λ_k(0) = aᵏ. So with b about √L

        r_{jb+i} = (T(q^b)ᵀʲ c)ᵀ (T(q)ⁱ (1, a, a², …)),

    a matrix product [L/b, n] × [n, b] per system. Both tables are made by doubling, in the dtype of Δt, from powers of
    q in float64. ‖T(q)‖ ≤ 1, so rounding is not amplified. The derivatives are of the same kind,

        ∂λ_k/∂Δt = λ_k / (1 + Δt) + (k (λ_{k-1} + λ_k) - (k+1) (λ_k + λ_{k+1})) / (2Δt),

    so one product with the transposed tables gives the gradients of c and of Δt.

    Args:
        coefficients: c, (..., n) real.
        sampling_period: Δt, (...) real, its batch dimensions broadcast against those of ``coefficients``.
        length: L.

    Returns:
        (..., L) in the dtype of ``sampling_period``; n·L multiply-adds and O(√L·n log n) for the tables, memory O(L +
        n·√L) per system.
    """
    c, dt, restore = by_system(coefficients.to(sampling_period.dtype), sampling_period)
    if as_written():
        return restore(_synthesis(c, *tables(dt, length, c.shape[-1]), length))
    extra = int(dt.requires_grad and torch.is_grad_enabled())
    fine, spectra = _detached_tables(dt, length, c.shape[-1] + extra)
    return restore(_Synthesis.apply(c, dt, fine, spectra, length))


def moments(gradient: Tensor, sampling_period: Tensor, order: int) -> Tensor:
    """m_k = Σ_t g_t λ_k(t) for k < n, the adjoint of ``response``.

    Args:
        gradient: (S, R, L).
        sampling_period: (S).
        order: n.

    Returns:
        (S, R, n).
    """
    if as_written():
        return _analysis(gradient, *tables(sampling_period, gradient.shape[-1], order))[..., :order]
    extra = int(sampling_period.requires_grad and torch.is_grad_enabled())
    fine, spectra = _detached_tables(sampling_period, gradient.shape[-1], order + extra)
    return _Analysis.apply(gradient, sampling_period, fine, spectra, order)


def tables(dt: Tensor, length: int, order: int) -> tuple[Tensor, list[Tensor]]:
    """(T(q)ⁱ (1, a, a², …) for i < b as (S, b, n),  spectra of q^(2^m), b ≤ 2^m < L, each (S, 1, F)): O(n·√L)."""
    doublings = (length - 1).bit_length()
    fine_doublings = (doublings + 1) // 2
    exact = spectra_of_advance(dt.unsqueeze(-1), order, doublings)
    spectra = [torch.view_as_complex(torch.view_as_real(spectrum).to(dt.dtype)) for spectrum in exact]
    fine = geometric_series(allpass_coefficient(dt), order).to(dt.dtype).unsqueeze(-2)
    for spectrum in spectra[:fine_doublings]:
        fine = torch.cat([fine, _multiplied(fine, spectrum)], dim=-2)
    return fine, spectra[fine_doublings:]


def _detached_tables(dt: Tensor, length: int, order: int) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        fine, spectra = tables(dt.detach(), length, order)
        none = dt.new_empty(0)
        return fine, torch.stack(spectra) if spectra else none


def _multiplied(rows: Tensor, spectrum: Tensor) -> Tensor:
    """x T(q)ᵀ for rows x (S, K, n) and the spectrum of q (S, 1, F); x T(q) for its conjugate."""
    n, size = rows.shape[-1], transform_size(rows.shape[-1])
    return torch.fft.irfft(torch.fft.rfft(rows, n=size) * spectrum, n=size)[..., :n]


def _synthesis(c: Tensor, fine: Tensor, spectra: Tensor | list[Tensor], length: int) -> Tensor:
    """(S, R, n), tables → (S, R, L).  Rows of the giant steps are ordered by step, then by R."""
    count, (block, order) = c.shape[-2], fine.shape[-2:]
    rows = torch.nn.functional.pad(c, (0, order - c.shape[-1]))
    total = -(-length // block) * count
    for spectrum in spectra:
        missing = total - rows.shape[-2]
        rows = torch.cat([rows, _multiplied(rows[..., :missing, :], spectrum.conj())], dim=-2)
    with full_precision(c.device):
        product = rows @ fine.mT
    return product.unflatten(-2, (-1, count)).transpose(-3, -2).flatten(-2)[..., :length]


def _analysis(gradient: Tensor, fine: Tensor, spectra: Tensor | list[Tensor]) -> Tensor:
    """(S, R, L), tables of order N → (S, R, N), the adjoint of ``_synthesis``."""
    (count, length), block = gradient.shape[-2:], fine.shape[-2]
    steps = torch.nn.functional.pad(gradient, (0, -length % block)).unflatten(-1, (-1, block))
    with full_precision(gradient.device):
        rows = steps.transpose(-3, -2).flatten(-3, -2) @ fine
    for level in range(len(spectra) - 1, -1, -1):
        half = count << level
        late = _multiplied(rows[..., half:, :], spectra[level])
        rows = rows[..., :half, :] + torch.nn.functional.pad(late, (0, 0, 0, 2 * half - rows.shape[-2]))
    return rows


def slope(moments: Tensor, dt: Tensor) -> Tensor:
    """∂m_k/∂Δt for k < n from m_0 … m_n.

    Args:
        moments: (..., n+1).
        dt: broadcast against them.

    Returns:
        (..., n).
    """
    pairs = moments[..., 1:] + moments[..., :-1]
    order = torch.arange(1, moments.shape[-1], dtype=dt.dtype, device=dt.device)
    rising = order * pairs
    return moments[..., :-1] / (1 + dt) + (torch.nn.functional.pad(rising[..., :-1], (1, 0)) - rising) / (2 * dt)


class _Synthesis(torch.autograd.Function):
    """(c, Δt) ↦ r; its backward pass is ``_Analysis``, so derivatives of every order are right."""

    generate_vmap_rule = True

    @staticmethod
    def forward(c: Tensor, dt: Tensor, fine: Tensor, spectra: Tensor, length: int) -> Tensor:
        return _synthesis(c, fine, spectra, length)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        c, dt, fine, spectra = ctx.saved_tensors
        n = c.shape[-1]
        if forward_mode():
            found = moments(gradient, dt, n + ctx.needs_input_grad[1])
        else:
            found = _Analysis.apply(gradient, dt, fine, spectra, n + ctx.needs_input_grad[1])
        if not ctx.needs_input_grad[1]:
            return found, None, None, None, None
        of_dt = (c * slope(found, dt[..., None, None])).sum((-2, -1))
        return found[..., :n], of_dt, None, None, None


class _Analysis(torch.autograd.Function):
    """(g, Δt) ↦ m; its backward pass is ``response`` and ``moments`` of one more order."""

    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, dt: Tensor, fine: Tensor, spectra: Tensor, order: int) -> Tensor:
        return _analysis(gradient, fine, spectra)[..., :order]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.order = inputs[4]

    @staticmethod
    def backward(ctx: Any, weights: Tensor) -> tuple[Tensor | None, ...]:
        gradient, dt, fine, spectra = ctx.saved_tensors
        of_gradient = of_dt = None
        if ctx.needs_input_grad[0] and forward_mode():
            of_gradient = response(weights.movedim(1, 0), dt, gradient.shape[-1]).movedim(0, 1)
        elif ctx.needs_input_grad[0]:
            of_gradient = _Synthesis.apply(weights, dt, *_enough(dt, fine, spectra, gradient, ctx.order))
        if ctx.needs_input_grad[1]:
            of_dt = (weights * slope(moments(gradient, dt, ctx.order + 1), dt[..., None, None])).sum((-2, -1))
        return of_gradient, of_dt, None, None, None


def _enough(dt: Tensor, fine: Tensor, spectra: Tensor, gradient: Tensor, order: int) -> tuple[Tensor, Tensor, int]:
    """The tables, made anew where a further derivative by Δt needs one order more than they have."""
    length = gradient.shape[-1]
    if dt.requires_grad and torch.is_grad_enabled() and fine.shape[-1] <= order:
        fine, spectra = _detached_tables(dt, length, order + 1)
    return fine, spectra, length
