"""Every way to evaluate the transfer function against the dense one: values, all gradients, shapes and dtypes."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch

from hope_ssm import backends

CPU = torch.device("cpu")
FAST = [name for name in backends.MODULES if name != "dense"]
BATCHES = [((), ()), ((2, 3), (3,)), ((3,), (2, 1)), ((4, 2, 3), (2, 1)), ((2, 3), (4, 1, 3)), ((2, 3), (1, 1))]


def test_names():
    assert backends.NAMES[0] == "auto"
    assert {"dense", "blocked"} <= set(backends.NAMES)
    for name in backends.MODULES:
        assert callable(backends.get(name, CPU))


def test_auto_says_once_what_it_took(caplog):
    caplog.set_level(logging.INFO, logger="hope_ssm.backends")
    chosen = backends.automatic(CPU)
    assert chosen in backends.MODULES
    assert backends.get("auto", CPU) is backends.get(chosen, CPU)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"backend=auto chose {chosen!r} on cpu."]


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9, 10, 63, 64, 65])
@pytest.mark.parametrize("length", [1, 2, 3, 50, 51])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_gradients(backend, n, length, dtype, rng):
    """To rounding: π n ε times the largest value that each could have."""
    c = torch.tensor(rng.standard_normal((2, n)), dtype=dtype, requires_grad=True)
    dt = torch.tensor([0.05, 3.0], dtype=dtype, requires_grad=True)
    weight = torch.tensor(rng.standard_normal((2, length // 2 + 1, 2)), dtype=dtype)
    results = []
    for name in (backend, "dense"):
        value = backends.get(name, CPU)(c, dt, length)
        assert value.shape == (2, length // 2 + 1)
        assert value.dtype == dtype.to_complex()
        loss = (torch.view_as_real(value) * weight).sum() + 0 * dt.sum()  # n = 1 does not depend on Δt
        results.append((value, *torch.autograd.grad(loss, (c, dt))))
    most, loudest = c.detach().abs().sum(-1), weight.abs().sum((-1, -2))
    scales = (most.unsqueeze(-1), loudest.unsqueeze(-1), n * most * loudest * torch.maximum(dt, 1 / dt).detach())
    for value, exact, scale in zip(*results, scales, strict=True):
        assert ((value - exact).abs() <= math.pi * (n + 4) * torch.finfo(dtype).eps * scale).all()


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("c_batch", "dt_batch"), BATCHES)
def test_batches(backend, c_batch, dt_batch, rng):
    c = torch.tensor(rng.standard_normal((*c_batch, 6)))
    dt = torch.tensor(np.exp(rng.standard_normal(dt_batch)))
    exact = backends.get("dense", CPU)(c, dt, 9)
    assert exact.shape == (*np.broadcast_shapes(c_batch, dt_batch), 5)
    torch.testing.assert_close(backends.get(backend, CPU)(c, dt, 9), exact, rtol=0, atol=1e-13)


@pytest.mark.parametrize("backend", list(backends.MODULES))
@pytest.mark.parametrize("length", [1, 4, 5])
def test_derivatives(backend, length, rng):
    c = torch.tensor(rng.standard_normal((2, 5)), requires_grad=True)
    dt = torch.tensor([0.6, 1.0], dtype=torch.float64, requires_grad=True)

    def real(c, dt):
        return torch.view_as_real(backends.get(backend, CPU)(c, dt, length))

    assert torch.autograd.gradcheck(real, (c, dt))
    assert torch.autograd.gradgradcheck(real, (c, dt))


@pytest.mark.parametrize("backend", list(backends.MODULES))
@pytest.mark.parametrize("n", [1, 2, 5, 16, 65])
@pytest.mark.parametrize("length", [1, 2, 51])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_moments_are_the_adjoint(backend, n, length, dtype, rng):
    """Σ_k c_k m_k = Re Σ_j conj(v_j) p(z_j) for any c and v, p by the readable reference in float64."""
    for c_batch, dt_batch in BATCHES:
        dt = torch.tensor(np.exp(rng.standard_normal(dt_batch)), dtype=dtype)
        parts = torch.tensor(rng.standard_normal((*c_batch, length // 2 + 1, 2)), dtype=dtype)
        moments = backends.adjoint(backend, CPU)(torch.view_as_complex(parts), dt, length, n)
        assert moments.shape == (*np.broadcast_shapes(c_batch, dt_batch), n)
        assert moments.dtype == dtype
        values = torch.view_as_complex(parts.double()).conj().unsqueeze(-2)
        basis = backends.get("dense", CPU)(torch.eye(n).double(), dt.double().unsqueeze(-1), length)
        exact = (values * basis).real.sum(-1)
        bound = math.pi * (n + 4) * torch.finfo(dtype).eps * parts.abs().sum((-1, -2)).max()
        assert (moments - exact).abs().max() <= bound


@pytest.mark.parametrize("backend", list(backends.MODULES))
@pytest.mark.parametrize("length", [1, 4, 5])
def test_derivatives_of_moments(backend, length, rng):
    parts = torch.tensor(rng.standard_normal((2, length // 2 + 1, 2)), requires_grad=True)
    dt = torch.tensor([0.6, 1.0], dtype=torch.float64, requires_grad=True)

    def of(parts, dt):
        return backends.adjoint(backend, CPU)(torch.view_as_complex(parts), dt, length, 5)

    assert torch.autograd.gradcheck(of, (parts, dt))
    assert torch.autograd.gradgradcheck(of, (parts, dt))


@pytest.mark.parametrize("backend", list(backends.MODULES))
def test_inputs_are_left_alone(backend):
    c, dt = torch.ones(2, 5), torch.full((2,), 0.5)
    backends.get(backend, CPU)(c, dt, 8)
    assert torch.equal(c, torch.ones(2, 5))
    assert torch.equal(dt, torch.full((2,), 0.5))
