"""Gramians, norms, balanced truncation: against dense solvers, python-control where it is, and high precision."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.linalg
import torch

import reference
from hope_ssm import registry
from hope_ssm.hankel import (
    StateSpace,
    balanced_truncation,
    certificates,
    diagonal_singular_values,
    h2_norm,
    h_infinity_norm,
    hankel_singular_values,
    memory_length,
    numerical_rank,
    response_singular_values,
    smallest_orders,
    state_space_singular_values,
)
from hope_ssm.kernels.to_state_space import modes, stepped_system, system


def random_system(rng, n, outputs=1, radius=0.98):
    A = rng.standard_normal((n, n))
    A *= radius / np.abs(np.linalg.eigvals(A)).max()
    parts = A, rng.standard_normal(n), rng.standard_normal((outputs, n)), rng.standard_normal(outputs)
    return StateSpace(*(torch.tensor(part) for part in parts))


def arrays(system):
    return (part.numpy() for part in (system.A, system.B, system.C, system.D))


def sampled_norm(system, angles):
    A, B, C, D = arrays(system)
    z = np.exp(1j * angles)[:, None, None]
    x = np.linalg.solve(z * np.eye(len(A)) - A, np.broadcast_to(B[:, None], (len(angles), len(B), 1)).astype(complex))
    return np.linalg.norm(D + (C @ x)[..., 0], axis=-1).max()


# Singular values


@pytest.mark.parametrize("n", [1, 2, 5, 17])
def test_singular_values_are_those_of_the_gramians(n, rng):
    system = random_system(rng, n)
    A, B, C, _ = arrays(system)
    exact = reference.hankel_singular_values_by_gramians(A, B, C[0])
    np.testing.assert_allclose(state_space_singular_values(system).numpy(), exact, rtol=0, atol=1e-8 * exact[0])


@pytest.mark.parametrize("name", ["hope", "s4", "s4d"])
@pytest.mark.parametrize("n", [2, 8, 64])
def test_singular_values_of_kernels(name, n):
    """By the square-root method with another solver of Lyapunov's equation, from the steps of the kernel in float64."""
    torch.manual_seed(0)
    kernel = registry.get(name)(d_model=2, d_state=n, dt_min=0.05, dt_max=0.5, verbose=False).double()
    values = state_space_singular_values(system(kernel)[0])
    for i in range(2):
        A, B, C, _ = arrays(stepped_system(kernel)[i])
        reach = scipy.linalg.solve_discrete_lyapunov(A, np.outer(B, B), method="bilinear")
        observe = scipy.linalg.solve_discrete_lyapunov(A.T, C.T @ C, method="bilinear")

        def root(gramian):
            scale, vectors = np.linalg.eigh((gramian + gramian.T) / 2)
            return vectors * np.sqrt(np.clip(scale, 0, None))

        exact = np.linalg.svd(root(observe).T @ root(reach), compute_uv=False)
        np.testing.assert_allclose(values[i].numpy(), exact, rtol=0, atol=1e-8 * exact[0])


@pytest.mark.parametrize("n", [2, 9])
def test_singular_values_by_python_control(n, rng):
    control = pytest.importorskip("control")
    system = random_system(rng, n, radius=0.9)
    A, B, C, _ = arrays(system)
    exact = np.sqrt(np.abs(np.linalg.eigvals(control.dlyap(A, np.outer(B, B)) @ control.dlyap(A.T, C.T @ C))))
    np.testing.assert_allclose(
        state_space_singular_values(system), np.sort(exact)[::-1], rtol=0, atol=1e-8 * exact.max()
    )


@pytest.mark.parametrize("n", [2, 64])
def test_modes_are_the_steps_of_s4d(n):
    """Without a Gramian, from the modes: the same singular values, also with shared parameters and two channels."""
    torch.manual_seed(0)
    kernel = registry.get("s4d")(d_model=4, d_state=n, channels=2, n_ssm=2, dt_min=0.05, dt_max=0.5, verbose=False)
    features = torch.tensor([0, 3])
    values = diagonal_singular_values(*modes(kernel, features))
    full = stepped_system(kernel)[features]
    for c in range(2):
        exact = state_space_singular_values(StateSpace(full.A, full.B, full.C[:, c : c + 1], full.D[:, c : c + 1]))
        torch.testing.assert_close(values[c], exact, rtol=0, atol=1e-8 * float(exact.max()))


@pytest.mark.parametrize("n", [1, 3, 64])
def test_singular_values_of_markov_parameters_are_those_of_their_matrix(n, rng):
    h = torch.tensor(rng.standard_normal((3, 1, n)))
    values = state_space_singular_values(StateSpace.from_markov_parameters(h))
    exact = hankel_singular_values(h[:, 0])
    torch.testing.assert_close(values, exact, rtol=0, atol=1e-12 * float(exact.max()))


@pytest.mark.parametrize("dt", [1e-4, 1e-2, 1.0, 100.0])
def test_hope_steps_have_them_at_every_sampling_period(dt):
    kernel = registry.get("hope")(d_model=2, d_state=12, dt_min=dt, dt_max=dt, verbose=False).double()
    values = state_space_singular_values(stepped_system(kernel))
    exact = hankel_singular_values(kernel.markov_parameters[0]).detach()
    torch.testing.assert_close(values, exact, rtol=0, atol=1e-8 * float(exact.max()))


def test_tiny_singular_values_of_diagonal_systems_keep_their_digits():
    """Against 60 digits; what a Gramian in float64 has of the last are its own rounding errors."""
    poles, b = [0.9, 0.89, 0.6, 0.59, 0.55, 0.5], [1.0, 2.0, -1.0, 0.5, 1.0, 0.3]
    with mpmath.workdps(60):
        exactly = [mpmath.mpf(p) for p in poles]
        gramian = mpmath.matrix(6, 6)
        for i in range(6):
            for j in range(6):
                gramian[i, j] = mpmath.mpf(b[i]) * mpmath.mpf(b[j]) / (1 - exactly[i] * exactly[j])
        exact = sorted((float(abs(x)) for x in mpmath.eigsy(gramian, eigvals_only=True)), reverse=True)
    poles, b = torch.tensor(poles, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)
    values = diagonal_singular_values(poles, b, b)  # B = C: the Gramians are equal, σ their eigenvalues
    assert exact[-1] < 1e-7 * exact[0]
    np.testing.assert_allclose(values.numpy(), exact, rtol=1e-9)


def test_diagonal_systems_in_conjugate_pairs_and_repeated_poles(rng):
    poles = torch.tensor(0.95 * rng.random((2, 4)) * np.exp(1j * rng.random((2, 4))))
    C = torch.tensor(rng.standard_normal((2, 4, 2)) @ [1, 1j])
    poles, C = torch.cat([poles, poles.conj()], -1), torch.cat([C, C.conj()], -1)
    poles[1, 0] = poles[1, 1]
    B = torch.ones_like(C)
    exact = state_space_singular_values(StateSpace.from_modes(poles, B, C.unsqueeze(1), torch.zeros(2, 1)))
    torch.testing.assert_close(diagonal_singular_values(poles, B, C), exact, rtol=0, atol=1e-10 * float(exact.max()))


def test_those_of_a_response_differ_by_at_most_what_was_left_out(rng):
    system = random_system(rng, 5, radius=0.9)
    response = system.impulse_response(600)[0]
    exact = state_space_singular_values(system)
    for length in (20, 60, 599):
        values, bound = response_singular_values(response, length)
        assert ((values[:5] - exact).abs() <= bound + 1e-10).all()
    assert bound == 0
    assert (values[:5] - exact).abs().max() < 1e-10


# Norms


@pytest.mark.parametrize(("n", "outputs"), [(1, 1), (2, 3), (6, 1), (13, 2)])
def test_h_infinity_norm_is_the_supremum(n, outputs, rng):
    """Never below the samples of a fine grid, nor above by more than the grid can miss."""
    system = random_system(rng, n, outputs)
    norm = h_infinity_norm(system, 1e-9).item()
    coarse = sampled_norm(system, np.linspace(0, np.pi, 40_001))
    assert coarse * (1 - 1e-9) <= norm <= coarse * 1.001


def test_h_infinity_norm_finds_a_peak_between_the_points_of_any_grid():
    """1 / (z - λ) + conjugate at 1 - |λ| = 1e-9: the peak is 1e-9 radian wide."""
    pole = (1 - 1e-9) * np.exp(1.2345j)
    poles = torch.tensor([pole, pole.conjugate()])
    ones, none = torch.ones(2), torch.zeros(1)
    norm = h_infinity_norm(StateSpace.from_modes(poles, ones, ones.unsqueeze(0), none), 1e-8).item()
    assert norm == pytest.approx(1e9, rel=1e-6)


def test_h_infinity_norm_of_markov_parameters_and_all_pass():
    h = torch.ones(1, 7, dtype=torch.float64)
    assert h_infinity_norm(StateSpace.from_markov_parameters(h)).item() == pytest.approx(7, rel=1e-6)
    a = 0.7  # (1 + az)/(z + a), D + CB/(z + a)
    parts = ([[-a]], [1 - a * a], [[1.0]], [a])
    allpass = StateSpace(*(torch.tensor(part, dtype=torch.float64) for part in parts))
    assert h_infinity_norm(allpass, 1e-10).item() == pytest.approx(1, rel=1e-9)


def test_h2_norm_is_the_energy_of_the_response(rng):
    system = random_system(rng, 6, 2, radius=0.9)
    assert h2_norm(system).item() == pytest.approx(system.impulse_response(500).square().sum().sqrt().item(), rel=1e-9)


def test_python_control_agrees(rng):
    control = pytest.importorskip("control")
    for n in (2, 5):
        system = random_system(rng, n)
        A, B, C, D = arrays(system)
        theirs = control.ss(A, B[:, None], C, D[:, None], 1.0)
        assert h_infinity_norm(system, 1e-8).item() == pytest.approx(control.system_norm(theirs, "inf", tol=1e-9), 1e-6)
        assert h2_norm(system).item() == pytest.approx(control.system_norm(theirs, 2), 1e-8)


# Reduction


@pytest.mark.slow
def test_no_truncation_errs_more_than_its_certificate():
    """200 random systems; at every second order. The error is at least σ_{r+1}, the least that any system can reach."""
    rng = np.random.default_rng(0)
    for trial in range(200):
        n = int(rng.integers(2, 9))
        full = random_system(rng, n, outputs=1 + trial % 2, radius=rng.uniform(0.5, 0.999))
        sigma = state_space_singular_values(full)
        bound = certificates(sigma)
        order = int(rng.integers(1, n + 1))
        error = h_infinity_norm(full - balanced_truncation(full, order), 1e-4)
        assert error <= bound[order] + 1e-9 * sigma[0]
        below = sigma[order] if order < n else 0
        assert error >= below * (1 - 1e-3) - 1e-9 * sigma[0]


def test_a_truncation_is_balanced_and_keeps_everything_at_full_order(rng):
    full = random_system(rng, 6)
    same = balanced_truncation(full, 6)
    torch.testing.assert_close(same.impulse_response(40), full.impulse_response(40), rtol=0, atol=1e-10)
    sigma = state_space_singular_values(full)
    gramian = scipy.linalg.solve_discrete_lyapunov(same.A.numpy(), np.outer(same.B, same.B))
    np.testing.assert_allclose(gramian, np.diag(sigma), atol=1e-9 * float(sigma[0]))


def test_orders_for_a_tolerance():
    sigma = torch.tensor([[4.0, 2.0, 1.0, 0.25], [4.0, 0.0, 0.0, 0.0]])
    assert certificates(sigma)[0].tolist() == [14.5, 6.5, 2.5, 0.5, 0]
    assert smallest_orders(sigma, 0.125).tolist() == [3, 1]
    assert smallest_orders(sigma, 0.124).tolist() == [4, 1]


def test_rank_and_memory():
    sigma = torch.tensor([1.0, 0.1, 1e-3, 0.0])
    assert [int(numerical_rank(sigma, epsilon)) for epsilon in (0.5, 1e-2, 1e-6)] == [1, 2, 3]
    assert memory_length(torch.tensor([9.0, 0.0, 0.0, 1.0, 0.0])) == 3
    assert memory_length(torch.tensor([[9.0, 0.0], [9.0, 1.0]])).tolist() == [0, 1]
    assert memory_length(torch.tensor([9.0])) == 0


# Bad input


def test_unstable_systems_and_bad_numbers():
    one = torch.ones(1, dtype=torch.float64)
    for pole in (1.0, 1.5, -1.0):
        unstable = StateSpace(pole * one.unsqueeze(0), one, one.unsqueeze(0), one)
        for function in (state_space_singular_values, h2_norm, h_infinity_norm):
            with pytest.raises(ValueError, match="a system must be stable"):
                function(unstable)
        with pytest.raises(ValueError, match=r"poles must be inside the unit circle; got one of modulus 1"):
            diagonal_singular_values(pole * one, one, one)
    with pytest.raises(ValueError, match="B of a state space must be finite"):
        StateSpace(0 * one.unsqueeze(0), one / 0, one.unsqueeze(0), one)
    with pytest.raises(TypeError, match=r"must be float64 or complex128; got torch.float32. Convert with .double"):
        StateSpace(torch.zeros(1, 1), torch.ones(1), torch.ones(1, 1), torch.ones(1))
    with pytest.raises(ValueError, match=r"shapes A \(..., n, n\).* got A \(1, 1\), B \(2,\)"):
        StateSpace(0 * one.unsqueeze(0), torch.ones(2).double(), one.unsqueeze(0), one)
    with pytest.raises(ValueError, match="tolerance must be a finite number above 0; got 0"):
        smallest_orders(one, 0)
    with pytest.raises(ValueError, match="order must be at most 1, the number of states that the system has; got 2"):
        balanced_truncation(StateSpace(0 * one.unsqueeze(0), one, one.unsqueeze(0), one), 2)
