"""Bounds on what perturbations do: they hold, and are attained; the norm of the resolvent; the effective rank."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hope_ssm.hankel import (
    StateSpace,
    effective_rank,
    h_infinity_norm,
    markov_perturbation_bound,
    resolvent_norm,
    state_space_perturbation_bound,
)


def random_system(rng, n, is_complex, radius):
    def numbers(*shape):
        real = torch.tensor(rng.standard_normal(shape))
        return torch.complex(real, torch.tensor(rng.standard_normal(shape))) if is_complex else real

    A = numbers(n, n)
    return StateSpace(A * radius / torch.linalg.eigvals(A).abs().max(), numbers(n), numbers(1, n), numbers(1))


def moved(system, rng, size):
    """The system with every matrix moved by ``size`` in norm."""
    parts = []
    for part in (system.A, system.B, system.C, system.D):
        step = torch.tensor(rng.standard_normal(part.shape)).to(part.dtype)
        parts.append(part + size * step / step.norm())
    return StateSpace(*parts)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_the_bound_of_markov_parameters_holds_and_is_attained(n, rng):
    h, step = torch.tensor(rng.standard_normal((2, n)))
    systems = [StateSpace.from_markov_parameters(x[None]) for x in (h, h + step)]
    distance = h_infinity_norm(systems[1] - systems[0]).item()
    assert distance <= markov_perturbation_bound(step).item() * (1 + 1e-9)
    equal = torch.full((n,), 0.3, dtype=torch.float64)
    other = StateSpace.from_markov_parameters((h + equal)[None])
    assert h_infinity_norm(other - systems[0]).item() == pytest.approx(markov_perturbation_bound(equal).item(), 1e-6)
    assert markov_perturbation_bound(torch.ones(3, 2, n)).shape == (3, 2)


def test_the_bound_of_state_spaces_holds():
    rng = np.random.default_rng(0)
    finite = 0
    for trial in range(60):
        system = random_system(rng, 1 + trial % 5, trial % 2 == 1, rng.uniform(0.3, 0.99))
        other = moved(system, rng, 10 ** rng.uniform(-5, -1.5))
        bound = state_space_perturbation_bound(system, other)
        if torch.isfinite(bound):
            finite += 1
            assert h_infinity_norm(system - other, 1e-4) <= bound * (1 + 1e-12)
    assert finite > 30


@pytest.mark.parametrize("size", [1e-3, 5e-2, 0.09])
def test_the_bound_of_state_spaces_is_attained(size):
    """1/(z - λ) at λ = 0.9 moved towards 1: 1/(0.1 - δ) - 1/0.1."""
    one = torch.ones(1, dtype=torch.float64)
    system, other = (StateSpace(pole * one[None], one, one[None], 0 * one) for pole in (0.9, 0.9 + size))
    exact = h_infinity_norm(system - other).item()
    assert exact == pytest.approx(1 / (0.1 - size) - 10, rel=1e-6)
    assert exact <= state_space_perturbation_bound(system, other, 1e-9).item() <= exact * (1 + 1e-5)
    assert state_space_perturbation_bound(system, system) == 0


def test_no_finite_bound_beyond_the_distance_to_instability(rng):
    system = random_system(rng, 4, True, 0.8)
    angles = np.linspace(0, 2 * np.pi, 20_001)
    worst = max(angles, key=lambda t: 1 / np.linalg.svd(np.exp(1j * t) * np.eye(4) - system.A.numpy())[1][-1])
    left, values, right = np.linalg.svd(np.exp(1j * worst) * np.eye(4) - system.A.numpy())
    distance = 1 / resolvent_norm(system.A, 1e-9).item()
    assert values[-1] == pytest.approx(distance, rel=1e-6)
    to_the_circle = torch.tensor(values[-1] * np.outer(left[:, -1], right[-1]))
    assert torch.linalg.eigvals(system.A + to_the_circle).abs().max().item() == pytest.approx(1, abs=1e-9)
    other = StateSpace(system.A + to_the_circle, system.B, system.C, system.D)
    assert torch.isinf(state_space_perturbation_bound(system, other))


def test_norm_of_the_resolvent_of_normal_matrices_and_of_a_shift():
    poles = torch.tensor([0.5j, -0.9, 0.3 + 0.2j])
    norms = resolvent_norm(torch.stack([torch.diag(poles), torch.diag(poles / 2)]).to(torch.complex128))
    torch.testing.assert_close(norms, torch.tensor([10.0, 1 / 0.55], dtype=torch.float64), rtol=1e-5, atol=0)
    shift = torch.diag(torch.ones(7, dtype=torch.float64), 1)
    exact = 1 / np.linalg.svd(np.eye(8) - shift.numpy())[1][-1]  # the same at every angle
    assert resolvent_norm(shift).item() == pytest.approx(exact, rel=1e-6)


def test_bad_input(rng):
    system = random_system(rng, 3, False, 0.5)
    with pytest.raises(
        ValueError, match=r"must have one output and equal shapes; got A \(3, 3\), C \(1, 3\) and A \(2"
    ):
        state_space_perturbation_bound(system, random_system(rng, 2, False, 0.5))
    with pytest.raises(ValueError, match="a system must be stable"):
        resolvent_norm(2 * torch.eye(2, dtype=torch.float64))


def test_effective_rank():
    sigma = torch.tensor([[1.0, 1, 1, 1], [5, 0, 0, 0], [0.5, 0.5, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(effective_rank(sigma), torch.tensor([4.0, 1, 2], dtype=torch.float64))
    assert torch.autograd.gradcheck(effective_rank, torch.rand(2, 5, dtype=torch.float64, requires_grad=True))
    sigma = torch.tensor([2.0, 0.0, 1e-30], requires_grad=True)
    effective_rank(sigma).backward()
    assert torch.isfinite(sigma.grad).all()
