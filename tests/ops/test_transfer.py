"""Samples of the transfer function."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference
from hope_ssm import transfer_function

BACKENDS = ["auto", "blocked", "dense"]
PERIODS = [1e-3, 0.1, 1.0, 3.0, 10.0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [1, 2, 5, 64, 127])
@pytest.mark.parametrize("length", [1, 2, 3, 64, 65, 500])
def test_values(backend, n, length, rng):
    h = rng.standard_normal(n)
    value = transfer_function(torch.tensor(h), torch.tensor(PERIODS, dtype=torch.float64), length, backend=backend)
    assert value.shape == (len(PERIODS), length // 2 + 1)
    assert value.dtype == torch.complex128
    for row, dt in zip(value.numpy(), PERIODS, strict=True):
        exact = reference.hope_transfer(h, dt, length)
        assert abs(row - exact[: length // 2 + 1]).max() < 1e-12 * abs(h).sum()
        assert abs(exact[1:] - exact[1:][::-1].conj()).max(initial=0) < 1e-11 * abs(h).sum()  # the other half


@pytest.mark.parametrize("backend", ["blocked", "dense"])
def test_float32_error_is_within_the_bound(backend, rng):
    """|ĝ - g| ≤ π n ε ‖h‖₁ for signed angles."""
    n, length = 64, 1000
    h = rng.standard_normal(n).astype(np.float32)
    dt = torch.tensor(np.float32([1e-4, 1e-2, 0.3, 1, 5, 100]))
    exact = transfer_function(torch.tensor(h).double(), dt.double(), length)
    value = transfer_function(torch.tensor(h), dt, length, backend=backend)
    assert value.dtype == torch.complex64
    assert (value - exact).abs().max() < math.pi * n * 2**-24 * abs(h).sum()


@given(n=st.integers(1, 20), length=st.integers(1, 200), dt=st.floats(1e-4, 1e3))
def test_bounds_of_the_theory(n, length, dt):
    """‖G‖_∞ ≤ Σ|h_k|, and a perturbation of h moves G by at most √n ‖δh‖."""
    random = np.random.default_rng(n + length)
    h, change = torch.tensor(random.standard_normal((2, n)))
    g, moved = transfer_function(h, dt, length), transfer_function(h + change, dt, length)
    assert g.abs().max() <= h.abs().sum() * (1 + 1e-12)
    assert (moved - g).abs().max() <= math.sqrt(n) * torch.linalg.vector_norm(change) * (1 + 1e-12)


def test_zero_and_highest_frequency():
    """The warp fixes θ = 0 and θ = π whatever Δt is: Σ h_k and Σ (-1)^{k+1} h_k."""
    h = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    g = transfer_function(h, torch.tensor([1e-3, 0.5, 1.0, 50.0], dtype=torch.float64), 8)
    torch.testing.assert_close(g[:, 0], torch.full((4,), 7.0 + 0j, dtype=g.dtype))
    torch.testing.assert_close(g[:, -1], torch.full((4,), -3.0 + 0j, dtype=g.dtype), rtol=0, atol=1e-10)


@pytest.mark.parametrize("backend", ["blocked", "dense"])
@pytest.mark.parametrize("length", [1, 4, 5])
def test_gradients(backend, length, rng):
    h = torch.tensor(rng.standard_normal((2, 5)), requires_grad=True)
    dt = torch.tensor([0.3, 1.0], dtype=torch.float64, requires_grad=True)

    def real(h, dt):
        return torch.view_as_real(transfer_function(h, dt, length, backend=backend))

    assert torch.autograd.gradcheck(real, (h, dt))
    assert torch.autograd.gradgradcheck(real, (h, dt))


@pytest.mark.parametrize(
    ("given_dtypes", "result"),
    [
        ((torch.float32, torch.float32), torch.complex64),
        ((torch.float32, torch.float64), torch.complex128),
        ((torch.float64, torch.float32), torch.complex128),
        ((torch.bfloat16, torch.bfloat16), torch.complex64),
        ((torch.float16, torch.float16), torch.complex64),
    ],
)
def test_dtypes(given_dtypes, result):
    h, dt = (torch.ones(3, dtype=dtype) for dtype in given_dtypes)
    assert transfer_function(h, dt[0], 4).dtype == result
