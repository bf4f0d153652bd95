"""The convolution kernel against the recursion, Algorithm 1, and the theory that joins them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference
from hope_ssm import convolution_kernel

BACKENDS = ["blocked", "dense"]
TRUNCATIONS = ["exact", "none"]
# (batch of h, batch of Δt): more dimensions on either side, ones inside, a single number
BATCHES = [
    ((), ()),
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (2, 3)),
    ((2, 3), ()),
    ((), (2, 3)),
    ((2, 1), (1, 3)),
    ((4, 2, 3), (2, 1)),
    ((2, 3), (4, 1, 3)),
    ((2, 2, 3), (1, 2, 1)),
    ((1,), (2, 3, 1)),
]


def relative_errors(kernel, exact):
    """Largest error relative to the largest sample: of the whole kernels (..., L), and of t ≥ 1 alone."""
    kernel = kernel.detach().double().numpy()
    worst = []
    for start in (0, 1):
        error = abs(kernel - exact)[..., start:].max(-1, initial=0)
        scale = abs(exact)[..., start:].max(-1, initial=0)
        worst.append(np.max(error / np.where(scale > 0, scale, 1)))
    return worst


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 16, 17, 64, 127, 128])
def test_exact_kernel_is_the_recursion(backend, n, chain, rng):
    h, dt = rng.standard_normal(n), torch.tensor(chain.periods)
    for length in (1, 2, 3, 7, 64, 65, 500, 999, 1024, 1999, 2000):
        kernel = convolution_kernel(torch.tensor(h), dt, length, backend=backend)
        assert kernel.shape == (len(dt), length)
        assert max(relative_errors(kernel, chain.kernels(h, length))) < 1e-10


@given(n=st.integers(1, 128), length=st.integers(1, 2000), dt=st.floats(1e-3, 10), seed=st.integers(0, 100))
def test_exact_kernel_is_the_recursion_anywhere(n, length, dt, seed):
    h = np.random.default_rng(seed).standard_normal(n)
    kernel = convolution_kernel(torch.tensor(h), dt, length)
    assert max(relative_errors(kernel, reference.long_kernel(h, dt, length))) < 1e-10


@pytest.mark.parametrize("n", [1, 2, 7, 40])
@pytest.mark.parametrize("dt", [0.02, 1.0, 4.0])
def test_exact_kernel_is_the_bilinear_state_space(n, dt, rng):
    """Independent of the all-pass chain: the unit-step shift register through the two bilinear maps."""
    h = rng.standard_normal(n)
    A, B, C, D = reference.hope_bilinear(h, dt)
    exact = np.append(D, reference.state_space_kernel(A, B, C, 99))
    assert max(relative_errors(convolution_kernel(torch.tensor(h), dt, 100), exact)) < 1e-10


@pytest.mark.parametrize("dt", [1e-3, 0.05, 10.0])
def test_exact_kernel_is_the_recursion_at_65536_samples(dt, rng):
    h = rng.standard_normal(64)
    exact = reference.long_kernel(h, dt, 65536)
    assert max(relative_errors(convolution_kernel(torch.tensor(h), dt, 65536), exact)) < 1e-10


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [1, 5, 64, 128])
@pytest.mark.parametrize("length", [1, 2, 7, 64, 65, 500, 501])
def test_no_truncation_is_algorithm_1(backend, n, length, rng):
    h, periods = rng.standard_normal(n), [1e-3, 0.05, 1.0, 3.0, 10.0]
    kernel = convolution_kernel(torch.tensor(h), torch.tensor(periods).double(), length, truncation="none")
    exact = np.stack([reference.algorithm_1(h, float(dt), length) for dt in torch.tensor(periods).double()])
    assert relative_errors(kernel, exact)[0] < 1e-10


@pytest.mark.parametrize("length", [1999, 2000])
def test_no_truncation_is_algorithm_1_at_2000_samples(length, rng):
    h = rng.standard_normal(128)
    kernel = convolution_kernel(torch.tensor(h), 0.1, length, truncation="none")
    assert relative_errors(kernel, reference.algorithm_1(h, 0.1, length))[0] < 1e-10


@pytest.mark.parametrize("dt", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("length", [1, 2, 9, 10])
def test_no_truncation_wraps_the_response_around(dt, length, rng):
    """L samples of g give Σ_m k_{t+mL}."""
    h = rng.standard_normal(6)
    periods = 600 // length
    aliased = reference.long_kernel(h, dt, periods * length).reshape(periods, length).sum(0)
    kernel = convolution_kernel(torch.tensor(h), dt, length, truncation="none").numpy()
    np.testing.assert_allclose(kernel, aliased, atol=1e-12)
    exact = convolution_kernel(torch.tensor(h), dt, length).numpy()
    if length < 6 and dt != 1:
        assert abs(kernel - exact).max() > 1e-2  # the two are different things


def test_unit_period_is_the_finite_impulse_response(rng):
    h = torch.tensor(rng.standard_normal(5))
    kernel = convolution_kernel(h, 1.0, 9)
    torch.testing.assert_close(kernel, torch.cat([h.new_zeros(1), h, h.new_zeros(3)]), rtol=0, atol=1e-14)


def test_shorter_kernels_are_beginnings_of_longer_ones(rng):
    """Causality: what is asked for does not change what came before."""
    h = torch.tensor(rng.standard_normal(16))
    whole = convolution_kernel(h, 0.07, 333)
    for length in (1, 2, 100, 332):
        torch.testing.assert_close(convolution_kernel(h, 0.07, length), whole[:length], rtol=0, atol=1e-13)


# Measured here over five seeds: blocked 9.3e-6, dense 9.1e-6, both at n ≥ 64.
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("n", [1, 2, 16, 64, 128])
def test_float32_error_of_the_memory_part(backend, n, chain32):
    """Relative to max_{1≤t<2000} |k_t|, with Δt from 1e-4 to 100.

    Not to the samples asked for alone: the one of L = 2 can be a small rest of large terms, and rounds as they do.
    """
    dt = torch.tensor(chain32.periods, dtype=torch.float32)
    for seed in range(3):
        h = np.random.default_rng(seed).standard_normal(n).astype(np.float32)
        for length in (2, 65, 500, 1024, 2000):
            kernel = convolution_kernel(torch.tensor(h), dt, length, backend=backend)
            assert kernel.dtype == torch.float32
            exact = chain32.kernels(h.astype(np.float64), 2000)
            whole = np.concatenate([kernel.double().numpy(), exact[:, length:]], axis=1)
            assert max(relative_errors(torch.tensor(whole), exact)) < 1.2e-5


@pytest.mark.parametrize("dt", [1e-4, 1e-2, 1.0, 100.0])
def test_float32_error_at_65536_samples(dt, rng):
    dt, h = np.float32(dt), rng.standard_normal(64).astype(np.float32)
    exact = reference.long_kernel(h.astype(np.float64), float(dt), 65536)
    kernel = convolution_kernel(torch.tensor(h), torch.tensor(dt), 65536)
    assert max(relative_errors(kernel, exact)) < 1.2e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize(("h_batch", "dt_batch"), BATCHES)
def test_batch_dimensions_broadcast(backend, truncation, h_batch, dt_batch, rng):
    n, length = 5, 11
    h = torch.tensor(rng.standard_normal((*h_batch, n)), requires_grad=True)
    dt = torch.tensor(np.exp(rng.standard_normal(dt_batch)), requires_grad=True)
    kernel = convolution_kernel(h, dt, length, truncation=truncation, backend=backend)
    batch = np.broadcast_shapes(h_batch, dt_batch)
    assert kernel.shape == (*batch, length)

    one_by_one = torch.stack(
        [
            convolution_kernel(row, period, length, truncation=truncation, backend="dense")
            for row, period in zip(h.expand(*batch, n).reshape(-1, n), dt.expand(batch).reshape(-1), strict=True)
        ]
    ).reshape(*batch, length)
    torch.testing.assert_close(kernel, one_by_one, rtol=0, atol=1e-13)

    weight = torch.tensor(rng.standard_normal(kernel.shape))
    for value, exact in zip(
        torch.autograd.grad((kernel * weight).sum(), (h, dt)),
        torch.autograd.grad((one_by_one * weight).sum(), (h, dt)),
        strict=True,
    ):
        torch.testing.assert_close(value, exact, rtol=1e-10, atol=1e-12)


def test_sampling_period_may_be_a_number(rng):
    h = torch.tensor(rng.standard_normal((2, 3)))
    expected = convolution_kernel(h, torch.tensor(2.0, dtype=torch.float64), 6)
    for number in (2, 2.0, np.float64(2), np.int64(2), np.float32(2)):
        torch.testing.assert_close(convolution_kernel(h, number, 6), expected, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize(("n", "length"), [(1, 1), (1, 4), (5, 1), (5, 2), (5, 3), (4, 8), (3, 9)])
def test_gradients(backend, truncation, n, length, rng):
    """First and second derivatives, at Δt = 1 too."""
    h = torch.tensor(rng.standard_normal((2, n)), requires_grad=True)
    dt = torch.tensor([0.3, 1.0], dtype=torch.float64, requires_grad=True)

    def kernel(h, dt):
        return convolution_kernel(h, dt, length, truncation=truncation, backend=backend)

    assert torch.autograd.gradcheck(kernel, (h, dt))
    assert torch.autograd.gradgradcheck(kernel, (h, dt))


@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.parametrize(("n", "length"), [(1, 1), (1, 5), (8, 5), (64, 33)])
def test_second_derivatives_are_finite_at_unit_period(truncation, n, length, rng):
    h = torch.tensor(rng.standard_normal(n), requires_grad=True)
    dt = torch.ones((), dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(
        convolution_kernel(h, dt, length, truncation=truncation).square().sum(), dt, create_graph=True
    )
    for second in torch.autograd.grad(first, (h, dt)):
        assert torch.isfinite(second).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_in_the_markov_parameters_is_the_basis(dtype, chain32, rng):
    """k is linear in h: ∂k_t/∂h_k is the response of P^{k+1}, whatever h is."""
    n, length = 32, 200
    dt = torch.tensor(chain32.periods, dtype=dtype)
    h = torch.tensor(rng.standard_normal(n), dtype=dtype).expand(len(dt), n).clone().requires_grad_()
    weight = rng.standard_normal((len(dt), length)).astype(np.float32)
    (gradient,) = torch.autograd.grad((convolution_kernel(h, dt, length) * torch.tensor(weight)).sum(), h)
    basis = np.stack([chain32.kernels(np.eye(n)[k], length) for k in range(n)], 1)
    exact = np.einsum("dkl,dl->dk", basis, weight.astype(np.float64))
    tolerance = 2e-6 if dtype == torch.float32 else 1e-12
    assert abs(gradient.numpy() - exact).max() < tolerance * abs(exact).max()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dt", [1e-4, 0.05, 1.0, 100.0])
def test_float32_gradients(backend, dt, rng):
    """Measured: 8e-6 of the largest in h, medians below 5e-5 in Δt."""
    h, weight = rng.standard_normal(64).astype(np.float32), rng.standard_normal(1024).astype(np.float32)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        parameters = torch.tensor(h, dtype=dtype, requires_grad=True)
        period = torch.tensor(np.float32(dt), dtype=dtype, requires_grad=True)
        loss = (convolution_kernel(parameters, period, 1024, backend=backend) * torch.tensor(weight)).sum()
        gradients.append(torch.autograd.grad(loss, (parameters, period)))
    for (value, exact), tolerance in zip(zip(*gradients, strict=True), (1.5e-5, 1e-4), strict=True):
        assert value.dtype == torch.float32
        assert (value - exact).abs().max() < tolerance * exact.abs().max()


def test_no_uninitialized_memory_is_read(rng):
    """With new memory filled with NaN the values and gradients stay what they are."""
    h = torch.tensor(rng.standard_normal((2, 3, 7)), requires_grad=True)
    dt = torch.tensor([[0.2], [3.0]], dtype=torch.float64, requires_grad=True)

    def everything():
        results = []
        for backend in BACKENDS:
            for truncation in TRUNCATIONS:
                kernel = convolution_kernel(h, dt, 9, truncation=truncation, backend=backend)
                results += [kernel, *torch.autograd.grad(kernel.square().sum(), (h, dt))]
        return results

    plain = everything()
    torch.use_deterministic_algorithms(True)  # fills uninitialized memory
    try:
        poisoned = everything()
    finally:
        torch.use_deterministic_algorithms(False)
    for value, expected in zip(poisoned, plain, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
