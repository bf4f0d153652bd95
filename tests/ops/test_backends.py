"""Every way to evaluate the transfer function against the dense one: values, all gradients, shapes and dtypes."""

from __future__ import annotations

import logging
import math
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import reference
from combinations import diagonal
from features import needs
from hope_ssm.ops import backends
from hope_ssm.ops.backends import krylov
from hope_ssm.requirements import COMPILED
from installed import backend_parameters

CPU = torch.device("cpu")
FAST = backend_parameters("dense")
BATCHES = [((), ()), ((2, 3), (3,)), ((3,), (2, 1)), ((4, 2, 3), (2, 1)), ((2, 3), (4, 1, 3)), ((2, 3), (1, 1))]


def test_names():
    assert backends.NAMES[0] == "auto"
    assert set(backends.NAMES) == {"auto", "dense", "blocked", "krylov", "keops", "triton"}


@pytest.mark.parametrize(("name", "package"), [("keops", "pykeops"), ("triton", "triton")])
def test_an_absent_package(name, package, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: None)
    message = f"backend='{name}' needs {package}, which is absent: pip install 'hope-ssm[{name}]'"
    with pytest.raises(ImportError, match=re.escape(message)):
        backends.get(name, CPU)
    assert backends.get("auto", CPU)


def test_triton_on_a_cpu(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda wanted: object())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"must compute on a GPU; got cpu\. backend='auto' computes"):
        backends.get("triton", CPU)


@pytest.mark.slow
def test_optional_packages_are_not_imported_by_others():
    code = (
        "import sys, torch\n"
        "from hope_ssm import HopeKernel\n"
        "before = set(sys.modules)\n"
        "HopeKernel(d_model=2)(L=8)\n"
        "print([name for name in ('pykeops', 'hope_ssm.ops.backends.triton') if name in set(sys.modules) - before])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr


def test_auto_says_once_what_it_took(caplog):
    caplog.set_level(logging.INFO, logger="hope_ssm.ops.backends")
    chosen = backends.automatic(CPU)
    assert chosen in backends.MODULES
    assert backends.get("auto", CPU) is backends.get(chosen, CPU)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"backend=auto chose {chosen!r} on cpu."]


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("n", "length"), diagonal([1, 2, 3, 4, 5, 9, 10, 63, 64, 65], [1, 2, 3, 50, 51]))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_and_gradients(backend, n, length, dtype, rng):
    """To rounding: π n ε times the largest value that each could have."""
    c = torch.tensor(rng.standard_normal((2, n)), dtype=dtype, requires_grad=True)
    dt = torch.tensor([0.05, 3.0], dtype=dtype, requires_grad=True)
    weight = torch.tensor(rng.standard_normal((2, length // 2 + 1, 2)), dtype=dtype)
    results = []
    for name in (backend, "dense"):
        value = backends.get(name, CPU).samples(c, dt, length)
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
    exact = backends.get("dense", CPU).samples(c, dt, 9)
    assert exact.shape == (*np.broadcast_shapes(c_batch, dt_batch), 5)
    torch.testing.assert_close(backends.get(backend, CPU).samples(c, dt, 9), exact, rtol=0, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("backend", backend_parameters())
@pytest.mark.parametrize("length", [1, 4, 5])
def test_derivatives(backend, length, rng):
    c = torch.tensor(rng.standard_normal((2, 5)), requires_grad=True)
    dt = torch.tensor([0.6, 1.0], dtype=torch.float64, requires_grad=True)

    def real(c, dt):
        return torch.view_as_real(backends.get(backend, CPU).samples(c, dt, length))

    assert torch.autograd.gradcheck(real, (c, dt), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(
        real, (c, dt), check_fwd_over_rev=backend not in ("keops", "triton"), fast_mode=True
    )


@pytest.mark.parametrize("backend", backend_parameters())
@pytest.mark.parametrize("at", [(0, 0), (0, None), (None, 0)])
def test_forward_mode_and_vmap(backend, at, rng):
    """Jacobians forward are those backward, of both orders, also for a batch of coefficients, of Δt or of both."""
    c, dt = torch.tensor(rng.standard_normal((3, 2, 5))), torch.tensor(np.exp(rng.standard_normal((3, 2))))
    c, dt = (x if axis == 0 else x[0] for x, axis in zip((c, dt), at, strict=True))

    def real(c, dt):
        return torch.view_as_real(backends.get(backend, CPU).samples(c, dt, 5)).sin().sum(-1)

    forward, backward = (
        torch.func.vmap(way(real, (0, 1)), at)(c, dt) for way in (torch.func.jacfwd, torch.func.jacrev)
    )
    torch.testing.assert_close(forward, backward, rtol=1e-11, atol=1e-11)
    loss = lambda c, dt: real(c, dt).square().sum()  # noqa: E731
    one = torch.func.vmap(torch.func.jacfwd(torch.func.jacfwd(loss, (0, 1)), (0, 1)), at)(c, dt)
    other = torch.func.vmap(torch.func.jacfwd(torch.func.jacrev(loss, (0, 1)), (0, 1)), at)(c, dt)
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)
    last = torch.func.vmap(torch.func.jacrev(torch.func.jacrev(loss, (0, 1)), (0, 1)), at)(c, dt)
    torch.testing.assert_close(one, last, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", backend_parameters())
def test_inputs_are_left_alone(backend):
    c, dt = torch.ones(2, 5), torch.full((2,), 0.5)
    backends.get(backend, CPU).samples(c, dt, 8)
    assert torch.equal(c, torch.ones(2, 5))
    assert torch.equal(dt, torch.full((2,), 0.5))


# The response in time


@pytest.mark.parametrize(("n", "length"), diagonal([1, 2, 3, 4, 5, 9, 33, 64], [1, 2, 3, 50, 65]))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_response_and_its_gradients(n, length, dtype, rng):
    """To rounding: ε times the largest value each could have; the slope also to that of its difference quotient."""
    c = torch.tensor(rng.standard_normal((2, n)), dtype=dtype, requires_grad=True)
    dt = torch.tensor([0.0625, 3.0], dtype=dtype, requires_grad=True)
    weight = torch.tensor(rng.standard_normal((2, length)), dtype=dtype)
    value = krylov.response(c, dt, length)
    assert value.shape == (2, length)
    assert value.dtype == dtype
    exact = reference.laguerre_responses(dt.detach().double().numpy(), n, length)  # (2, n, L)
    expected = torch.einsum("sk,skl->sl", c.detach().double(), torch.tensor(exact))
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(value.double(), expected, rtol=0, atol=8 * eps * float(c.detach().abs().sum(-1).max()))
    of_c, of_dt = torch.autograd.grad((value * weight).sum(), (c, dt))
    expected = torch.einsum("sl,skl->sk", weight.double(), torch.tensor(exact))
    torch.testing.assert_close(of_c.double(), expected, rtol=0, atol=8 * eps * float(weight.abs().sum(-1).max()))
    step = 1e-6
    apart = [reference.laguerre_responses(dt.detach().double().numpy() + sign * step, n, length) for sign in (1, -1)]
    slope = np.einsum("sk,skl,sl->s", c.detach().double(), (apart[0] - apart[1]) / (2 * step), weight.double())
    scale = n * float((c.detach().abs().sum(-1) * weight.abs().sum(-1)).max())
    np.testing.assert_allclose(of_dt.double(), slope, rtol=0, atol=(8 * eps + 1e-9) * scale)


@pytest.mark.parametrize(("c_batch", "dt_batch"), BATCHES)
def test_response_in_batches(c_batch, dt_batch, rng):
    c, dt = rng.standard_normal((*c_batch, 6)), np.exp(rng.standard_normal(dt_batch))
    value = krylov.response(torch.tensor(c), torch.tensor(dt), 9)
    exact = reference.laguerre_responses(dt, 6, 9)
    np.testing.assert_allclose(value, np.einsum("...k,...kl->...l", c, exact), rtol=0, atol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 4, 5])
def test_derivatives_of_the_response(length, rng):
    c = torch.tensor(rng.standard_normal((2, 5)), requires_grad=True)
    dt = torch.tensor([0.6, 1.0], dtype=torch.float64, requires_grad=True)

    def response(c, dt):
        return krylov.response(c, dt, length)

    assert torch.autograd.gradcheck(response, (c, dt), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(response, (c, dt), check_fwd_over_rev=True, fast_mode=True)
    moments = lambda g, dt: krylov.moments(g, dt, 5)  # noqa: E731
    g = torch.tensor(rng.standard_normal((2, 3, length)), requires_grad=True)
    assert torch.autograd.gradcheck(moments, (g, dt), check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(moments, (g, dt), check_fwd_over_rev=True, fast_mode=True)


@needs(COMPILED)
@pytest.mark.slow
def test_compiled_and_eager_response_agree(rng):
    """torch.compile differentiates through the tables, eager mode by the formula."""
    c = torch.tensor(rng.standard_normal((2, 5)), requires_grad=True)
    dt = torch.tensor([0.3, 1.7], dtype=torch.float64, requires_grad=True)
    weight = torch.tensor(rng.standard_normal((2, 11)))
    eager = torch.autograd.grad((krylov.response(c, dt, 11) * weight).sum(), (c, dt))
    function = torch.compile(krylov.response, fullgraph=True, backend="aot_eager")
    for one, other in zip(eager, torch.autograd.grad((function(c, dt, 11) * weight).sum(), (c, dt)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trained", [False, True])
def test_a_frozen_sampling_period_costs_no_further_order(trained):
    """A trained one has the table of the responses λ_k one order longer, for its gradient."""
    kept = []
    c, dt = torch.ones(2, 64, requires_grad=True), torch.full((2,), 0.5, requires_grad=trained)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        krylov.response(c, dt, 100)
    assert (2, 16, 64 + trained) in kept
    assert (2, 16, 64 + (not trained)) not in kept
