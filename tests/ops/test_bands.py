"""Bands of complex all-pass stages: against dense matrices in numpy, and the theorems of docs/mathematics.md."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

import reference
from hope_ssm.hankel import StateSpace, hankel_singular_values, state_space_singular_values
from hope_ssm.ops import band_responses, bands, convolution

F, G, C, B = 3, 2, 2, 2  # features, bands, channels, batch
PERIODS = np.array([[0.05, 0.3], [1.0, 2.5], [0.004, 0.02]])
FREQUENCIES = np.array([[0.0, 0.4], [1.3, math.pi], [0.07, 2.2]])


def dense(dt: float, omega: float, m: int) -> tuple[np.ndarray, np.ndarray]:
    """A = e^{iω} (S - aI)(I - aS)⁻¹ and B = √(1 - a²) (I - aS)⁻¹ e₀, as they stand."""
    a, shift, identity = (dt - 1) / (dt + 1), np.eye(m, k=-1), np.eye(m)
    inverse = np.linalg.inv(identity - a * shift)
    return np.exp(1j * omega) * (shift - a * identity) @ inverse, math.sqrt(1 - a * a) * inverse[:, 0]


def dense_outputs(c: np.ndarray, u: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """y (B, C, F, L) and the last states, c (C, F, G, m) and states (B, F, G, m) complex, u (B, F, L)."""
    states, outputs = states.copy(), np.zeros((len(u), len(c), *u.shape[1:]))
    systems = [[dense(PERIODS[f, g], FREQUENCIES[f, g], c.shape[-1]) for g in range(G)] for f in range(F)]
    for t in range(u.shape[-1]):
        for f, g in np.ndindex(F, G):
            A, into = systems[f][g]
            states[:, f, g] = states[:, f, g] @ A.T + u[:, f, t, None] * into
        outputs[..., t] = np.einsum("cfgk,bfgk->bcf", c, states).real
    return outputs, states


def pairs(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.stack([values.real, values.imag]))


def some(rng, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


@pytest.fixture
def system():
    return torch.tensor(PERIODS), torch.tensor(FREQUENCIES)


@pytest.mark.parametrize("m", [1, 2, 5])
@pytest.mark.parametrize("length", [1, 2, 3, 17, 64, 65])
def test_everything_is_the_dense_recursion(m, length, system, rng):
    """Kernel, response to a state, state after a stretch and after steps, to 1e-12."""
    c, start = some(rng, C, F, G, m), some(rng, B, F, G, m)
    u = rng.standard_normal((B, F, length))
    exact, last = dense_outputs(c, u, start)
    impulse = np.broadcast_to(np.eye(1, length), (1, F, length))
    kernel = bands.kernel(pairs(c), *system, length)
    np.testing.assert_allclose(kernel, dense_outputs(c, impulse, 0 * start[:1])[0][0], rtol=0, atol=1e-12)
    response = bands.state_response(pairs(c), *system, pairs(start), length)
    np.testing.assert_allclose(response, dense_outputs(c, 0 * u, start)[0], rtol=0, atol=1e-12)
    after = bands.forward_state(*system, torch.tensor(u), pairs(start))
    np.testing.assert_allclose(after, pairs(last), rtol=0, atol=1e-12)
    states, outputs = pairs(start), []
    for t in range(length):
        y, states = bands.step(pairs(c), *system, torch.tensor(u[..., t]), states)
        outputs.append(y)
    np.testing.assert_allclose(torch.stack(outputs, -1), exact, rtol=0, atol=1e-12)
    np.testing.assert_allclose(states, pairs(last), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [2, 13, 65])
def test_gradients_are_those_of_the_tables(length, system, rng):
    """The recurrences in Δt and ω against differentiating the tables, in c, Δt, ω; and second derivatives."""
    c, periods, frequencies = (x.requires_grad_() for x in (pairs(some(rng, C, F, G, 3)), *system))
    weight = torch.tensor(rng.standard_normal((C, F, length)))
    wanted = (c, periods, frequencies)

    def loss(samples):
        return (weight * samples).sum() + samples.square().sum()

    plain = band_responses._synthesis(c, frequencies, *band_responses._tables(periods, frequencies, length, 3), length)
    exact = torch.autograd.grad(loss(plain), wanted, create_graph=True)
    found = torch.autograd.grad(loss(band_responses.response(*wanted, length)), wanted, create_graph=True)
    for value, other in zip(found, exact, strict=True):
        assert (value - other).abs().max() < 1e-11 * other.abs().max()
    second, other = (torch.autograd.grad(sum(g.square().sum() for g in gs), wanted) for gs in (found, exact))
    for value, wished in zip(second, other, strict=True):
        assert (value - wished).abs().max() < 1e-10 * wished.abs().max()


@pytest.mark.parametrize("dt", [1e-4, 0.01, 1.0, 30.0])
def test_float32_keeps_the_memory(dt, rng):
    """At L = 4096 the values and the gradient of c within 1e-5 of float64, relative to the largest.

    Δt and ω have one gradient each, a sum over all steps and orders that cancels. They have the tolerance of HOPE's Δt;
    instructions that add in one row come to 3e-5.
    """
    c, periods, frequencies = pairs(some(rng, 1, 1, 2, 16)), torch.full((1, 2), dt), torch.tensor([[0.3, 2.0]])
    results = []
    for dtype in (torch.float32, torch.float64):
        inputs = [x.to(dtype).requires_grad_() for x in (c.float(), periods, frequencies)]
        k = bands.kernel(*inputs, 4096)
        weight = torch.tensor(np.random.default_rng(1).standard_normal(k.shape)).to(dtype)
        results.append((k, *torch.autograd.grad((k * weight).sum(), inputs)))
    for low, high, tolerance in zip(*results, (1e-5, 1e-5, 1e-4, 1e-4), strict=True):
        assert (low - high).abs().max() < tolerance * high.abs().max()


# The theorems


@pytest.mark.parametrize("m", [1, 2, 8])
@pytest.mark.parametrize(("dt", "omega"), [(0.05, 0.4), (1.0, 1.3), (3.0, math.pi)])
def test_the_state_matrix_has_norm_one_and_the_states_are_orthonormal(m, dt, omega):
    """‖A‖ = 1 (|a| for m = 1) and W_c = Σ_t Aᵗ B B* A*ᵗ = I, of the matrices that ``step`` has."""
    period, frequency = torch.tensor([[dt]], dtype=torch.float64), torch.tensor([[omega]], dtype=torch.float64)
    unit = pairs(np.eye(m)[:, None, None] + 0j)
    none = torch.zeros(2, 1, 1, 1, m, dtype=torch.float64)
    _, columns = bands.step(none, period, frequency, torch.zeros(m, 1, dtype=torch.float64), unit)
    _, into = bands.step(none, period, frequency, torch.ones(1, 1, dtype=torch.float64), none[:, 0][:, None])
    A, into = ((x[0] + 1j * x[1]).squeeze(1).squeeze(1).T.numpy() for x in (columns, into))
    np.testing.assert_allclose(A, dense(dt, omega, m)[0], rtol=0, atol=1e-14)
    norm = np.linalg.norm(A, 2)
    assert norm == pytest.approx(1.0 if m > 1 else abs((dt - 1) / (dt + 1)), abs=1e-12)
    gramian = scipy.linalg.solve_discrete_lyapunov(A, into @ into.conj().T)
    np.testing.assert_allclose(gramian, np.eye(m), rtol=0, atol=1e-11)


def stage_delay(theta: np.ndarray, dt: float, omega: float) -> np.ndarray:
    """-dφ/dθ of one stage e^{iω·}: by differences of the phase of (z⁻¹ + a)/(1 + a z⁻¹) at z = e^{i(θ - ω)}."""

    def phase(angle):
        w, a = np.exp(-1j * (angle - omega)), (dt - 1) / (dt + 1)
        return (w + a) / (1 + a * w)

    step = 1e-6
    return -np.angle(phase(theta + step) / phase(theta - step)) / (2 * step)


@pytest.mark.parametrize("omega", [0.0, 0.8, 2.5])
def test_how_far_a_stage_delays(omega):
    """At most 1/|sin(θ - ω)|, reached at Δt = |tan((θ - ω)/2)|: of HOPE 1/sin θ; at the centre 1/Δt, without bound.

    And whatever ω and Δt are, the delays over the circle sum to 2π: a stage moves its share, it has no more.
    """
    theta = np.linspace(-math.pi, math.pi, 2000, endpoint=False) + 1e-3
    for dt in (1e-2, 0.1, 1.0, 5.0):
        delay = stage_delay(theta, dt, omega)
        assert (delay <= 1 / np.abs(np.sin(theta - omega)) + 1e-4).all()
        assert stage_delay(np.array([omega]), dt, omega)[0] == pytest.approx(1 / dt, rel=1e-6)
        assert delay.mean() == pytest.approx(1.0, rel=1e-3)
    for there in (omega + 0.05, omega + 1.2):
        best = stage_delay(np.array([there]), abs(math.tan((there - omega) / 2)), omega)[0]
        assert best == pytest.approx(1 / math.sin(there - omega), rel=1e-6)


def orthonormal(h: np.ndarray, dt: float) -> np.ndarray:
    """c = √(1 - a²) (I - aS)⁻ᵀ h, the coordinates of HOPE's Markov parameters."""
    a = (dt - 1) / (dt + 1)
    return math.sqrt(1 - a * a) * np.linalg.solve((np.eye(len(h)) - a * np.eye(len(h), k=-1)).T, h)


@pytest.mark.parametrize("dt", [0.01, 0.3, 1.0, 4.0])
def test_a_band_at_zero_is_hope_in_other_coordinates(dt, rng):
    """Its kernel is HOPE's one step later, to 1e-12."""
    h = rng.standard_normal(6)
    period = torch.tensor([[dt]], dtype=torch.float64)
    c = pairs(orthonormal(h, dt)[None, None, None] + 0j)
    found = bands.kernel(c, period, torch.zeros_like(period), 200)[0, 0]
    exact = convolution.convolution_kernel(torch.tensor(h), dt, 201)[1:]
    np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dt", "omega"), [(0.05, 0.0), (0.05, 0.9), (1.0, 2.0), (4.0, math.pi)])
def test_hankel_singular_values_depend_on_neither_period_nor_frequency(dt, omega, rng):
    """For given h they are those of its Hankel matrix, complex or not."""
    h = rng.standard_normal(8)
    A, into = (torch.tensor(x + 0j) for x in dense(dt, omega, 8))
    system = StateSpace(A, into, torch.tensor(orthonormal(h, dt)[None] + 0j), torch.zeros(1, dtype=torch.complex128))
    exact = hankel_singular_values(torch.tensor(h))
    torch.testing.assert_close(state_space_singular_values(system), exact, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_bands_reach_a_delay_that_hope_cannot():
    """Least squares, small coefficients, of a delay by T = 128 of frequencies up to 1/2 from 32 orthonormal states.

    T is more than 32 / sin(1/2), so no Δt of HOPE will do; T · 1/2 is less than the 32 π radians of the bands.
    """
    n, delay, length = 32, 128, 1024
    theta = np.arange(1, 65) / 128
    target = np.exp(-1j * delay * theta)
    fourier = np.exp(-1j * np.outer(np.arange(length), theta))

    def residual(responses):
        spectra = np.stack(responses) @ fourier
        stacked = np.concatenate([spectra.real, spectra.imag], axis=1).T
        wanted = np.concatenate([target.real, target.imag])
        left, values, right = np.linalg.svd(stacked, full_matrices=False)
        fit = right.T @ (values / (values**2 + 1e-4 * len(wanted)) * (left.T @ wanted))
        return np.linalg.norm(stacked @ fit - wanted) / np.linalg.norm(wanted)

    def laguerre(dt, m):
        return reference.laguerre_responses(np.array(dt), m, length) * 2 * math.sqrt(dt) / (1 + dt)

    spacing = math.pi * n / (16 * delay * 1.6)
    waves = [np.exp(1j * (g + 0.5) * spacing * np.arange(length)) for g in range(16)]
    ours = [part for wave in waves for part in ((wave * laguerre(0.2 * spacing, 1)[0]).view(float).reshape(-1, 2).T)]
    hope = [residual(list(laguerre(dt, n))) for dt in (0.05, 0.1, 0.2, math.tan(0.25), 0.5, 1.0)]
    assert residual(ours) < 0.25
    assert min(hope) > 0.4
