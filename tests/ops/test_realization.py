"""The state space behind the kernel: its matrices, and state passing by step, response and stretch."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given
from hypothesis import strategies as st

import reference
from hope_ssm.ops import backends, frequency, realization

BACKENDS = ["blocked", "dense", "krylov"]
PERIODS = [1e-3, 0.2, 1.0, 1.7, 30.0]


def system(h, dt):
    return (x.numpy() for x in realization.state_space(torch.tensor(h), torch.tensor(dt, dtype=torch.float64)))


def evaluate(backend):
    return backends.get(backend, torch.device("cpu"))


@pytest.mark.parametrize("n", [1, 2, 3, 40])
@pytest.mark.parametrize("dt", PERIODS)
def test_matrices_give_the_recursion(n, dt, rng):
    h = rng.standard_normal(n)
    A, B, C, D = system(h, dt)
    kernel = np.append(D, reference.state_space_kernel(A, B, C, 199))
    exact = reference.long_kernel(h, dt, 200)
    assert abs(kernel - exact)[1:].max() < 1e-10 * abs(exact[1:]).max()
    assert abs(kernel[0] - exact[0]) < 1e-13 * abs(h).sum()


@pytest.mark.parametrize("n", [1, 2, 3, 16, 64])
@pytest.mark.parametrize("dt", PERIODS)
def test_realization_is_perfectly_conditioned(n, dt):
    """‖A‖₂ = 1 for n ≥ 2 and |a| for n = 1; the controllability Gramian is (1 - a²) I."""
    A, B, _, _ = system(np.ones(n), dt)
    a = (dt - 1) / (dt + 1)
    assert np.linalg.norm(A, 2) == pytest.approx(1 if n > 1 else abs(a), abs=1e-12)
    gramian = (1 - a * a) * np.eye(n)
    np.testing.assert_allclose(A @ gramian @ A.T + np.outer(B, B), gramian, rtol=0, atol=1e-13 * (1 - a * a))
    assert abs(np.diag(A) + a).max() < 1e-14  # stable: all poles at -a


def test_matrices_broadcast(rng):
    h, dt = torch.tensor(rng.standard_normal((2, 1, 4))), torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    A, B, C, D = realization.state_space(h, dt)
    assert (A.shape, B.shape, C.shape, D.shape) == ((2, 3, 4, 4), (2, 3, 4), (2, 3, 4), (2, 3))


def test_coefficients_keep_their_digits_at_small_periods():
    dt = torch.tensor([1e-6, 1e6], dtype=torch.float32)
    assert frequency.allpass_coefficient(dt).dtype == torch.float64
    exact = 4 * dt.double() / (1 + dt.double()) ** 2
    torch.testing.assert_close(frequency.input_gain(dt), exact, rtol=1e-15, atol=0)
    a, (small, large) = frequency.allpass_coefficient(dt), dt.double()
    torch.testing.assert_close(1 + a[0], 2 * small / (1 + small), rtol=1e-9, atol=0)
    torch.testing.assert_close(1 - a[1], 2 / (1 + large), rtol=1e-9, atol=0)


@given(n=st.integers(1, 20), dt=st.floats(1e-3, 1e2), steps=st.integers(0, 300))
def test_advance_is_the_power_of_the_matrix(n, dt, steps):
    state = np.random.default_rng(steps).standard_normal((3, n))
    A, *_ = system(np.ones(n), dt)
    value = realization.advance(torch.tensor(state), torch.tensor(dt, dtype=torch.float64), steps)
    np.testing.assert_allclose(value.numpy(), state @ np.linalg.matrix_power(A, steps).T, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("n", "length"), [(1, 1), (1, 5), (6, 1), (6, 4), (6, 33), (6, 64)])
@pytest.mark.parametrize("dt", [0.05, 1.0, 5.0])
def test_response_to_a_state(backend, n, length, dt, rng):
    """r_t = C Aᵗ s."""
    h, state = rng.standard_normal((2, n))
    A, _, C, _ = system(h, dt)
    response = realization.state_response(
        torch.tensor(h), torch.tensor(dt, dtype=torch.float64), torch.tensor(state), length, evaluate(backend)
    )
    np.testing.assert_allclose(response.numpy(), reference.state_space_kernel(A, state, C, length), atol=1e-12)


@pytest.mark.parametrize(("n", "length"), [(1, 1), (1, 6), (5, 1), (5, 3), (5, 30), (5, 31), (64, 1000)])
def test_state_after_a_stretch(n, length, rng):
    dt = np.array([0.05, 1.0, 5.0])
    u, state = rng.standard_normal((2, 3, length)), rng.standard_normal((2, 3, n))
    value = realization.forward_state(torch.tensor(dt), torch.tensor(u), torch.tensor(state))
    for b in range(2):
        for feature in range(3):
            _, exact = reference.hope_recursion(np.ones(n), dt[feature], u[b, feature], state[b, feature])
            np.testing.assert_allclose(value[b, feature].numpy(), exact, atol=1e-11)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_steps_are_the_recursion(n, rng):
    dt = np.array([1e-3, 0.3, 1.0, 1.5, 40.0])
    h, u = rng.standard_normal((2, 5, n)), rng.standard_normal((3, 5, 20))
    state = torch.zeros(3, 5, n, dtype=torch.float64)
    outputs = []
    for t in range(20):
        y, state = realization.step(torch.tensor(h), torch.tensor(dt), torch.tensor(u[..., t]), state)
        assert y.shape == (3, 2, 5)
        outputs.append(y)
    outputs = torch.stack(outputs, -1).numpy()
    for b, channel, feature in np.ndindex(3, 2, 5):
        exact, last = reference.hope_recursion(h[channel, feature], dt[feature], u[b, feature])
        np.testing.assert_allclose(outputs[b, channel, feature], exact, atol=1e-12)
        np.testing.assert_allclose(state[b, feature].numpy(), last, atol=1e-12)


@pytest.mark.slow
def test_steps_do_not_drift_in_float32():
    """Measured: 4e-7 of the outputs, 5e-6 of those after the input's end; y = ax + s, s ← x - ay has 7e-6 and 7e-4."""
    n, length = 3, 14_000
    dt = np.float32([1e-4, 1e-2, 0.999, 1.0, 1.001, 10.0, 1e4])
    h = np.float32([0.7, -1.1, 0.6])
    u = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    u[length // 2 :] = 0
    periods, parameters = torch.tensor(dt), torch.tensor(h).expand(1, len(dt), n)
    state, outputs = torch.zeros(1, len(dt), n), []
    with torch.inference_mode():
        for x in torch.tensor(u):
            y, state = realization.step(parameters, periods, x.expand(1, len(dt)), state)
            outputs.append(y[0, 0])
    outputs = torch.stack(outputs, -1).double().numpy()
    after = slice(length // 2 + n, None)
    for row, period in zip(outputs, dt, strict=True):
        exact = np.convolve(reference.long_kernel(h.astype(np.float64), float(period), length), u)[:length]
        assert abs(row - exact).max() < 1e-6 * abs(exact).max()
        if not 0.1 < period < 5:
            assert abs(row - exact)[after].max() < 1e-5 * abs(exact[after]).max()


@pytest.mark.slow
def test_a_million_steps_of_float32(request):
    """At Δt = 1e-4, within 1e-5 of the largest output and also of the largest that memory adds; measured: 1.6e-7, 8e-6.

    Without --every-seed, ten thousand steps; with it, all of them, by a compiled loop over ten.
    """
    whole = request.config.getoption("--every-seed")
    h, length, some = np.float32([0.7, -1.1, 0.6]), 1_000_000 if whole else 10_000, 10
    u = np.random.default_rng(0).standard_normal(length).astype(np.float32)
    period, parameters = torch.tensor([1e-4]), torch.tensor(h).expand(1, 1, 3)

    def several(inputs, state):
        outputs = []
        for x in inputs.unbind(0):
            y, state = realization.step(parameters, period, x.view(1, 1), state)
            outputs.append(y.view(()))
        return torch.stack(outputs), state

    steps, state, outputs = torch.compile(several) if whole else several, torch.zeros(1, 1, 3), []
    with torch.inference_mode():
        for part in torch.tensor(u).split(some):
            y, state = steps(part, state)
            outputs.append(y)
    dt = float(period)
    a, exact, stage = (dt - 1) / (dt + 1), np.zeros(length), u.astype(np.float64)
    for coefficient in h.astype(np.float64):
        stage = scipy.signal.lfilter([a, 1], [1, a], stage)
        exact += coefficient * stage
    memory = exact - h.astype(np.float64) @ a ** np.arange(1, 4) * u
    error = abs(torch.cat(outputs).double().numpy() - exact).max()
    assert error < 1e-5 * abs(exact).max()
    assert error < 1e-5 * abs(memory).max()


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(backend, rng):
    """Of everything that passes state on, in everything it depends on."""
    h = torch.tensor(rng.standard_normal((2, 2, 3)), requires_grad=True)
    dt = torch.tensor([0.4, 1.0], dtype=torch.float64, requires_grad=True)
    u = torch.tensor(rng.standard_normal((2, 2, 4)), requires_grad=True)
    state = torch.tensor(rng.standard_normal((2, 2, 3)), requires_grad=True)

    def response(h, dt, state):
        return realization.state_response(h, dt, state.unsqueeze(1), 4, evaluate(backend))

    def stretch(dt, u, state):
        return realization.forward_state(dt, u, state)

    # At Δt = 1 the step changes from one form to another: see below.
    apart = torch.tensor([0.4, 2.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(response, (h, dt, state))
    assert torch.autograd.gradcheck(stretch, (dt, u, state))
    assert torch.autograd.gradcheck(realization.step, (h, apart, u[..., 0].detach().clone().requires_grad_(), state))
    assert torch.autograd.gradgradcheck(response, (h, dt, state))
    assert torch.autograd.gradgradcheck(stretch, (dt, u, state))


def test_step_gradient_meets_at_unit_period(rng):
    """The two forms of the step are one function: at Δt = 1 its derivative is that of the other form too."""
    h, u, state = (torch.tensor(rng.standard_normal(shape)) for shape in ((1, 1, 4), (1, 1), (1, 1, 4)))

    def slope(period):
        dt = torch.tensor([period], dtype=torch.float64, requires_grad=True)
        y, after = realization.step(h, dt, u, state)
        return torch.autograd.grad(y.sum() + after.square().sum(), dt)[0]

    torch.testing.assert_close(slope(1.0), slope(1 - 1e-9), rtol=1e-6, atol=0)
