"""Power series of length n: products, powers of the all-pass advance."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from hope_ssm.ops.toeplitz import allpass_power, geometric_series, series_product, transposed_product


def lower(q):
    return scipy.linalg.toeplitz(q, np.zeros(len(q)))


def power_in_80_digits(dt: float, exponent: int, n: int) -> np.ndarray:
    """Taylor coefficients of f = ((w - a)/(1 - aw))^L from (w - a)(1 - aw) f' = L (1 - a²) f."""
    with localcontext() as context:
        context.prec = 80
        a = (Decimal(dt) - 1) / (Decimal(dt) + 1)
        if a == 0:
            return np.eye(1, n, exponent)[0]
        f = [Decimal(0), (-a) ** exponent]  # one leading zero stands for f_{-1}
        for k in range(n - 1):
            right = (exponent * (1 - a * a) - (1 + a * a) * k) * f[k + 1] + a * (k - 1) * f[k]
            f.append(-right / (a * (k + 1)))
        return np.array([float(x) for x in f[1:]])


@pytest.mark.parametrize("n", [1, 2, 3, 8, 65])
def test_products_are_toeplitz_products(n, rng):
    p, q = rng.standard_normal((2, 3, n))
    product = series_product(torch.tensor(p), torch.tensor(q)).numpy()
    transposed = transposed_product(torch.tensor(p), torch.tensor(q)).numpy()
    for i in range(3):
        np.testing.assert_allclose(product[i], lower(p[i]) @ q[i], atol=1e-13)
        np.testing.assert_allclose(transposed[i], lower(p[i]).T @ q[i], atol=1e-13)


def test_products_broadcast(rng):
    p, q = torch.tensor(rng.standard_normal((2, 1, 5))), torch.tensor(rng.standard_normal((3, 5)))
    for operation in (series_product, transposed_product):
        value = operation(p, q)
        assert value.shape == (2, 3, 5)
        torch.testing.assert_close(value[1, 2], operation(p[1, 0], q[2]))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 64])
def test_geometric_series(n):
    ratio = torch.tensor([-0.999, -0.5, 0.0, 0.3, 1.0], dtype=torch.float64)
    expected = ratio.numpy()[:, None] ** np.arange(n)
    np.testing.assert_allclose(geometric_series(ratio, n).numpy(), expected, rtol=1e-13)


def test_geometric_series_is_smooth_at_zero():
    """Powers a**j have NaN second derivatives at a = 0; these do not."""
    ratio = torch.tensor([0.0, 0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: geometric_series(a, 5), ratio)
    assert torch.autograd.gradgradcheck(lambda a: geometric_series(a, 5), ratio)


@pytest.mark.parametrize("n", [1, 2, 5, 64, 128])
@pytest.mark.parametrize("exponent", [0, 1, 2, 17, 1000, 2**20])
def test_power_against_80_digits(n, exponent):
    for dt in (1e-6, 1e-3, 0.018, 0.5, 1.0, 1.5, 40.0, 1e5):
        value = allpass_power(torch.tensor(dt, dtype=torch.float64), exponent, n).numpy()
        exact = power_in_80_digits(dt, exponent, n)
        np.testing.assert_allclose(value, exact, rtol=0, atol=2e-10 if exponent > 1000 else 1e-12)


@given(
    dt=st.floats(1e-4, 1e4),
    first=st.integers(0, 3000),
    second=st.integers(0, 3000),
    n=st.integers(1, 40),
)
def test_exponents_add_and_the_norm_is_at_most_one(dt, first, second, n):
    dt = torch.tensor(dt, dtype=torch.float64)
    p, q, both = (allpass_power(dt, exponent, n) for exponent in (first, second, first + second))
    torch.testing.assert_close(series_product(p, q), both, rtol=0, atol=1e-10)
    assert torch.linalg.vector_norm(both) <= 1 + 1e-11


@pytest.mark.parametrize("exponent", [1, 2, 9, 64])
def test_power_gradient(exponent):
    dt = torch.tensor([0.02, 0.9, 1.0, 6.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: allpass_power(x, exponent, 5), dt)
    assert torch.autograd.gradgradcheck(lambda x: allpass_power(x, exponent, 5), dt)


@pytest.mark.parametrize("n", [1, 2, 16, 64])
def test_power_is_finite_where_a_point_of_the_circle_would_be_a_zero(n):
    """The base vanishes at w = a; a sample there had logarithm -∞ and, in the gradient, 0·∞."""
    radius = 0.1 ** (1 / n)
    centre = np.array([(1 + radius) / (1 - radius), (1 - radius) / (1 + radius)])
    dt = torch.tensor(np.outer(centre, 1 + np.arange(-40, 41) * 2.0**-52), requires_grad=True)
    value = allpass_power(dt, 33, n)
    (gradient,) = torch.autograd.grad(value.square().sum(), dt)
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
