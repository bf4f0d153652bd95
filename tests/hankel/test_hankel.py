"""The Hankel matrix and its singular values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference
from hope_ssm import convolution_kernel, hankel_matrix, hankel_singular_values, transfer_function


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_matrix(n, rng):
    h = rng.standard_normal((2, n))
    matrix = hankel_matrix(torch.tensor(h))
    assert matrix.shape == (2, n, n)
    for i in range(2):
        np.testing.assert_array_equal(matrix[i].numpy(), scipy.linalg.hankel(h[i]))


@pytest.mark.parametrize("n", [1, 2, 5, 64])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_singular_values(n, dtype, tolerance, rng):
    h = rng.standard_normal((2, 3, n))
    values = hankel_singular_values(torch.tensor(h, dtype=dtype))
    assert values.shape == (2, 3, n)
    assert values.dtype == dtype
    for index in np.ndindex(2, 3):
        exact = np.linalg.svd(scipy.linalg.hankel(h[index]), compute_uv=False)
        np.testing.assert_allclose(values[index].numpy(), exact, rtol=0, atol=tolerance * exact[0])


@pytest.mark.parametrize("dt", [0.01, 0.3, 1.0, 4.0, 50.0])
@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_they_are_those_of_the_system_at_every_sampling_period(dt, n, rng):
    """√eig(W_c W_o) of a dense realization by two bilinear maps."""
    h = rng.standard_normal(n)
    A, B, C, _ = reference.hope_bilinear(h, dt)
    exact = reference.hankel_singular_values_by_gramians(A, B, C)
    values = hankel_singular_values(torch.tensor(h)).numpy()
    np.testing.assert_allclose(values, exact, rtol=0, atol=1e-8 * exact[0])


def test_they_are_those_of_the_impulse_response(rng):
    """The infinite Hankel matrix of k_1, k_2, … has the n singular values of h and no others."""
    h = rng.standard_normal(4)
    kernel = convolution_kernel(torch.tensor(h), 0.4, 401).numpy()
    exact = np.linalg.svd(scipy.linalg.hankel(kernel[1:]), compute_uv=False)
    np.testing.assert_allclose(hankel_singular_values(torch.tensor(h)).numpy(), exact[:4], rtol=0, atol=1e-10)
    assert exact[4] < 1e-10


@given(n=st.integers(1, 30), seed=st.integers(0, 1000))
def test_bounds_of_the_theory(n, seed):
    """σ_1 ≤ ‖G‖_∞ ≤ 2 Σ σ_k, Σ σ_k² = Σ (k + 1) h_k², descending and not negative."""
    h = torch.tensor(np.random.default_rng(seed).standard_normal(n))
    values = hankel_singular_values(h)
    gain = transfer_function(h, 0.5, 20_000).abs().max()
    assert (values >= 0).all()
    assert (values.diff() <= 0).all()
    assert values[0] <= gain * (1 + 1e-6) + 1e-12  # the largest sample is a little below the supremum
    assert gain <= 2 * values.sum() * (1 + 1e-12)
    energy = (h.square() * torch.arange(1, n + 1)).sum()
    assert values.square().sum().item() == pytest.approx(energy.item(), rel=1e-12)


def test_scaling_and_one_markov_parameter():
    h = torch.tensor([3.0, -4.0], dtype=torch.float64)
    torch.testing.assert_close(hankel_singular_values(-2 * h), 2 * hankel_singular_values(h))
    torch.testing.assert_close(hankel_singular_values(h[1:]), torch.tensor([4.0], dtype=torch.float64))
    impulse = hankel_singular_values(torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64))
    torch.testing.assert_close(impulse, torch.full((3,), 2.0, dtype=torch.float64))
    assert math.isclose(hankel_singular_values(torch.zeros(3)).sum(), 0)


def test_gradients(rng):
    h = torch.tensor(rng.standard_normal((2, 5)), requires_grad=True)
    assert torch.autograd.gradcheck(hankel_matrix, h)
    assert torch.autograd.gradcheck(hankel_singular_values, h)
    repeated = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64, requires_grad=True)  # a triple zero
    (gradient,) = torch.autograd.grad(hankel_singular_values(repeated).sum(), repeated)
    assert torch.isfinite(gradient).all()
