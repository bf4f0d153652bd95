"""The convolution kernel of a HOPE system."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.checks import check_choice, check_positive_integer
from hope_ssm.ops import backends
from hope_ssm.ops.realization import feedthrough, input_vector, state_response
from hope_ssm.ops.transfer import check_system, sample_transfer_function

TRUNCATIONS = ("exact", "none")


def convolution_kernel(
    markov_parameters: Tensor,
    sampling_period: Tensor | float,
    length: int,
    *,
    truncation: str = "exact",
    backend: str = "auto",
) -> Tensor:
    """k_0 = Σ_k h_k a^{k+1},  k_t = C A^{t-1} B:  L samples of the impulse response of G(z) = Σ_k h_k P(z)^{k+1}.

    ``truncation="none"`` gives the kernel of the paper's Algorithm 1 instead, k = Re iFFT(g) with L samples of g: the
    response beyond L wraps around onto its start, Σ_m k_{t+mL}.

    Args:
        markov_parameters: h, (..., n) real.
        sampling_period: Δt, a number or (...) real, above 0; batch dimensions broadcast. The window of memory is
            about n / Δt samples at low frequencies.
        length: L, at least 1, odd or even.
        truncation: ``"exact"`` or ``"none"``.
        backend: how to evaluate the transfer function, one of ``hope_ssm.ops.backends.NAMES``.

    Returns:
        (..., L) real, in the common dtype of the parameters (float32 at least).

    Raises:
        TypeError: complex or integer parameters, a length that is not a whole number.
        ValueError: shapes that do not broadcast, Δt not finite and positive, an unknown truncation or backend.

    Source: arXiv 2405.13975, Algorithm 1 (``"none"``); the exact truncation is this project's.
    """
    h, dt = check_system(markov_parameters, sampling_period)
    length = check_positive_integer("length", length)
    check_choice("truncation", truncation, TRUNCATIONS)
    return sample_kernel(h, dt, length, truncation, backends.get(backend, h.device))


def sample_kernel(h: Tensor, dt: Tensor, length: int, truncation: str, backend: backends.Backend) -> Tensor:
    """The kernel of a checked system, without looking at its values; shapes as in ``convolution_kernel``."""
    if truncation == "none":
        return torch.fft.irfft(sample_transfer_function(h, dt, length, backend), n=length)
    first = feedthrough(h, dt).unsqueeze(-1).to(dt.dtype)
    memory = state_response(h, dt, input_vector(dt, h.shape[-1]), length, backend)
    return torch.cat([first.expand(*memory.shape[:-1], 1), memory], dim=-1)[..., :-1]


def sample_noncausal_kernel(h: Tensor, dt: Tensor, length: int, backend: backends.Backend) -> Tensor:
    """k = irfft(g_0 … g_{L//2}) with g(θ) = Σ_k h_k exp(-i(k+1)θ') on [0, π], complex h, and g(-θ) = conj g(θ).

    This is the kernel of Re h minus the Hilbert transform of the kernel of Im h. That transform is two-sided and does
    not end: the response at lags -1, -2, … stands in k_{L-1}, k_{L-2}, …, and all of k changes with L.

    Args:
        h: (..., n, 2), the real and imaginary parts of the Markov parameters.
        dt: Δt, (...) real, in the dtype of ``h``.
        length: L.
        backend: of ``backends.get``.

    Returns:
        (..., L) real. Im g(0) and, for even L, Im g(π) have no effect: g there is its own conjugate.
    """
    of_real, of_imaginary = torch.view_as_real(sample_transfer_function(h.movedim(-1, 0), dt, length, backend))
    turned = torch.stack([-of_imaginary[..., 1], of_imaginary[..., 0]], dim=-1)  # i times it
    return torch.fft.irfft(torch.view_as_complex(of_real + turned), n=length)
