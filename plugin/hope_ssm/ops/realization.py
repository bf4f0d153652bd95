"""HOPE as a state space with n real states: the same system, exactly, one sample or one stretch at a time.

With the all-pass coefficient ``a = (Δt - 1) / (Δt + 1)`` and the down-shift S,

    A = (S - aI)(I - aS)⁻¹,   B = (1 - a²)(I - aS)⁻¹ e₀,   C = hᵀ(I - aS)⁻¹,   D = Σ_k h_k a^{k+1},
    s_{t+1} = A s_t + B u_t,  y_t = C s_t + D u_t.

All four are power series in S (see ``toeplitz``). ‖A‖₂ = 1 for n ≥ 2 and the controllability Gramian is
(1 - a²)·I, so the realization is perfectly conditioned. Axes: B batch, C channels, H features, n states, L samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.ops.backends import Backend, krylov
from hope_ssm.ops.frequency import allpass_coefficient, input_gain
from hope_ssm.ops.toeplitz import allpass_power, geometric_series, series_product, transposed_product


def input_vector(sampling_period: Tensor, n: int) -> Tensor:
    """B_j = (1 - a²) aʲ.

    Args:
        sampling_period: Δt, (...).
        n: number of states.

    Returns:
        (..., n) float64.
    """
    return input_gain(sampling_period).unsqueeze(-1) * geometric_series(allpass_coefficient(sampling_period), n)


def feedthrough(markov_parameters: Tensor, sampling_period: Tensor) -> Tensor:
    """D = k_0 = Σ_k h_k a^{k+1}.

    Args:
        markov_parameters: h, (..., n).
        sampling_period: Δt, (...).

    Returns:
        (...) float64.
    """
    a = allpass_coefficient(sampling_period)
    return a * (markov_parameters.double() * geometric_series(a, markov_parameters.shape[-1])).sum(-1)


def state_space(markov_parameters: Tensor, sampling_period: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(A, B, C, D) as dense float64 matrices, to look at and to compare with.

    Args:
        markov_parameters: (..., n).
        sampling_period: (...).

    Returns:
        A (..., n, n), B (..., n), C (..., n), D (...).
    """
    n = markov_parameters.shape[-1]
    batch = torch.broadcast_shapes(markov_parameters.shape[:-1], sampling_period.shape)
    a = allpass_coefficient(sampling_period).expand(batch)
    identity = torch.eye(n, dtype=torch.float64, device=a.device)
    shift = torch.diag(torch.ones(n - 1, dtype=torch.float64, device=a.device), -1)
    inverse = torch.linalg.inv(identity - a[..., None, None] * shift)
    A = (shift - a[..., None, None] * identity) @ inverse
    C = (markov_parameters.double().unsqueeze(-2) @ inverse).squeeze(-2)
    B = input_vector(sampling_period, n).expand(*batch, n)
    return A, B, C.expand(*batch, n), feedthrough(markov_parameters, sampling_period).expand(batch)


def advance(state: Tensor, sampling_period: Tensor, steps: int) -> Tensor:
    """A^L s, the state after L steps without input.

    Args:
        state: s, (..., n).
        sampling_period: Δt, (...).
        steps: L.

    Returns:
        (..., n) float64.
    """
    return series_product(allpass_power(sampling_period.double(), steps, state.shape[-1]), state.double())


def state_response(
    markov_parameters: Tensor, sampling_period: Tensor, state: Tensor, length: int, backend: Backend
) -> Tensor:
    """r_t = C Aᵗ s = Σ_k c_k λ_k(t) for t = 0 … L-1,  c_k = Σ_j h_{j+k} s_j,  λ_k the Laguerre functions of ``krylov``.

    The convolution kernel is this response to the state B (see ``convolution``).

    Args:
        markov_parameters: h, (..., n) real in the working dtype.
        sampling_period: Δt, (...) in the working dtype; batch dimensions broadcast.
        state: s, (..., n).
        length: L, at least 1.
        backend: of ``backends.get``.

    Returns:
        (..., L) in the dtype of ``sampling_period``.
    """
    coefficients = transposed_product(state.double(), markov_parameters.double())
    return backend.response(coefficients, sampling_period, length)


def forward_state(sampling_period: Tensor, inputs: Tensor, state: Tensor) -> Tensor:
    """s_L = A^L s_0 + Σ_t A^{L-1-t} B u_t, the state after a stretch of inputs.

    (A^t B)_k = (1 - a²) λ_k(t) with λ of ``backends.krylov``, so the sum is the adjoint of the kernel's computation,
    taken of the reversed inputs; no [.., n, L] array is made.

    Args:
        sampling_period: Δt, (H,) in the working dtype.
        inputs: u, (B, H, L).
        state: s_0, (B, H, n).

    Returns:
        (B, H, n) in the dtype of ``state``.
    """
    n, length = state.shape[-1], inputs.shape[-1]
    latest_first = inputs.flip(-1).transpose(0, 1).to(sampling_period.dtype)
    moments = krylov.moments(latest_first, sampling_period, n).transpose(0, 1)
    driven = input_gain(sampling_period).unsqueeze(-1) * moments
    return (driven + advance(state, sampling_period, length)).to(state.dtype)


def step(markov_parameters: Tensor, sampling_period: Tensor, inputs: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One sample through the all-pass chain: x_0 = u;  y_k = a x_k + s_k;  s_k ← x_k - a y_k;  x_{k+1} = y_k.

    With ε = 1 - |a|, that is 2Δt / (1 + Δt) where Δt < 1 and 2 / (1 + Δt) elsewhere, and t_k = σ_k y_k, where
    σ_k = (-1)ᵏ for Δt < 1 and 1 elsewhere, the chain is a sum that leaks and a state that moves by O(ε):

        t_k = (1 - ε) t_{k-1} + σ_k s_k,   t_{-1} = σ_{-1} u,     s_k ← -σ_{-1} (s_k - ε σ_k (t_{k-1} + t_k)),

    so rounding does not accumulate over millions of steps in float32. The sum is taken in ⌈log₄ n⌉ passes, each of
    which makes sums over r terms into sums over 4r, vectorized over batch, features and states: 3n log₄ n + 6n
    multiply-adds per feature instead of 4n, but no chain of n dependent operations. (The time of a step is
    that of its passes over memory: four terms per pass are faster than two or eight.)

    Args:
        markov_parameters: h, (C, H, n).
        sampling_period: Δt, (H,).
        inputs: u, (B, H).
        state: s, (B, H, n).

    Returns:
        y (B, C, H) and the next state (B, H, n).
    """
    n = state.shape[-1]
    dt = sampling_period.unsqueeze(-1)
    alternating = dt < 1
    leak = 2 * torch.where(alternating, dt, 1) / (1 + dt)
    before = torch.where(alternating, -1, 1).to(dt.dtype)  # σ_{-1}
    order = torch.arange(n, dtype=dt.dtype, device=dt.device)  # whole numbers would keep the compiler from vectorizing
    signs = torch.where(alternating, 1 - 2 * (order - 2 * torch.floor(order / 2)), 1)  # σ_k, (H, n)

    signed, first = signs * state, before * inputs.unsqueeze(-1)
    keep, reach = 1 - leak, 1
    t = signed + torch.where(order == 0, keep * first, 0)
    while reach < n:
        terms = min(4, -(-n // reach))
        wide = torch.cat([t.new_zeros(*t.shape[:-1], (terms - 1) * reach), t], dim=-1)
        total = wide[..., :n]
        for j in range(1, terms):
            total = torch.addcmul(wide[..., j * reach : j * reach + n], keep, total)
        t, keep, reach = total, keep**4, 4 * reach
    previous = torch.cat([first.expand(*t.shape[:-1], 1), t[..., :-1]], dim=-1)
    following = -before * signs * (signed - leak * (previous + t))
    return torch.einsum("bhn,chn->bch", t, markov_parameters * signs), following
