"""From Markov parameters and a sampling period to samples of the transfer function."""

from __future__ import annotations

from torch import Tensor

from hope_ssm.checks import (
    check_broadcast,
    check_markov_parameters,
    check_positive_integer,
    check_sampling_period,
)
from hope_ssm.ops import backends
from hope_ssm.ops.frequency import allpass_nodes
from hope_ssm.precision import working_dtype


def check_system(markov_parameters: Tensor, sampling_period: Tensor | float) -> tuple[Tensor, Tensor]:
    """Return both in their working dtype; raise a sentence if one of them does not describe a system."""
    h = check_markov_parameters(markov_parameters)
    dt = check_sampling_period(sampling_period, h)
    check_broadcast(("markov_parameters", h.shape[:-1]), ("sampling_period", dt.shape))
    dtype = working_dtype(h, dt)
    return h.to(dtype), dt.to(dtype)


def transfer_function(
    markov_parameters: Tensor, sampling_period: Tensor | float, length: int, *, backend: str = "auto"
) -> Tensor:
    """g(θ) = Σ_k h_k exp(-i(k+1)θ'),  θ' = 2·atan2(sin(θ/2), Δt·cos(θ/2)),  at θ_j = 2πj / L.

    Args:
        markov_parameters: h, (..., n) real.
        sampling_period: Δt, a number or (...) real, above 0; batch dimensions broadcast.
        length: L, at least 1.
        backend: how to evaluate it, one of ``hope_ssm.ops.backends.NAMES``.

    Returns:
        (..., L // 2 + 1) complex, the half circle 0 ≤ θ ≤ π; the other half is its conjugate.

    Raises:
        TypeError: complex or integer parameters, a length that is not a whole number.
        ValueError: shapes that do not broadcast, Δt not finite and positive, an unknown backend.

    Source: Yu, Mahoney, Erichson, "HOPE for a Robust Parameterization of Long-memory State Space Models",
    ICLR 2025 (arXiv 2405.13975), Algorithm 1.
    """
    h, dt = check_system(markov_parameters, sampling_period)
    length = check_positive_integer("length", length)
    return sample_transfer_function(h, dt, length, backends.get(backend, h.device))


def sample_transfer_function(h: Tensor, dt: Tensor, length: int, backend: backends.Backend) -> Tensor:
    """g = P · p(P) for a checked system; shapes as in ``transfer_function``."""
    return allpass_nodes(dt, length) * backend.samples(h, dt, length)
