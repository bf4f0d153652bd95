"""S4D-Real, DSS, StableSSM, LRU and RTF against dense float64 references written from their equations in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch

import reference
from combinations import diagonal
from hope_ssm import registry
from hope_ssm.kernels.stable import REPARAMETERIZATIONS

H, N = 3, 6
OPTIONS = {
    "s4d-real": {"d_state": 5},
    "dss": {},
    "dss-softmax": {"variant": "softmax", "l_max": 33},
    **{f"stable-{name}": {"reparameterization": name} for name in REPARAMETERIZATIONS},
    "stable-best": {"reparameterization": "best", "offset": 0.1},
    "lru": {"r_min": 0.5, "r_max": 0.99},
    "rtf": {"d_state": 5},
}
every_baseline = pytest.mark.parametrize("name", OPTIONS)


def kernel_name(name):
    return name if name in registry.kernels() else name.split("-")[0]


def build(name, **options):
    """In float64, with every parameter away from its initial value."""
    own = {"d_model": H, "d_state": N, "channels": 2, "verbose": False} | OPTIONS[name] | options
    if "dt" in registry.get(kernel_name(name)).idle_optimizer_options:
        own.pop("dt_min", None), own.pop("dt_max", None)
    kernel = registry.get(kernel_name(name))(**{"dt_min": 0.02, "dt_max": 0.5} | own).double()
    with torch.no_grad():
        for parameter in kernel.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return kernel


def arrays(kernel):
    """The parameters as numpy arrays, pairs of numbers as complex ones, shared copies repeated to H."""
    found = {}
    for name, parameter in kernel.named_parameters():
        value = parameter.detach()
        value = torch.view_as_complex(value) if name in "BC" and value.shape[-1] == 2 else value
        found[name] = value.numpy() if name in ("C", "numerator") else value.numpy()[np.arange(H) % len(value)]
    return found


def softmax_kernel(poles, C, dt, length, total):
    """2 Re Σ_j w_j/λ_j softmax_t(Δtλ_j t), t < total, row by row."""
    rows = np.exp(dt * np.outer(poles, np.arange(total)))
    return 2 * (C / poles @ (rows / rows.sum(-1, keepdims=True)))[:length].real


def exact(name, kernel, length, rate=1.0):
    """(C, H, L) by the matrix exponential, by recursion, or by scipy's filter."""
    p, k = arrays(kernel), np.zeros((kernel.channels, H, length))
    dt = rate * kernel.sampling_period.detach().numpy() if kernel.sampling_period is not None else None
    for c, h in np.ndindex(kernel.channels, H):
        if name == "rtf":
            k[c, h] = scipy.signal.lfilter(p["numerator"][c, h], [1, *p["denominator"][h]], np.eye(1, length)[0])
            continue
        if name == "lru":
            poles = np.exp(-np.exp(p["nu_log"][h]) + 1j * np.exp(p["theta_log"][h]))
            state = np.exp(p["gamma_log"][h]) * p["B"][h]
            for t in range(length):
                k[c, h, t] = 2 * (p["C"][c, h] @ state).real
                state = poles * state
            continue
        if name == "s4d-real":
            dense = np.diag(-np.exp(p["A_log"][h])), p["B"][h], p["C"][c, h]
        else:
            decay = {
                "stable-best": lambda w: 1 / (w**2 + 0.1),
                "stable-softplus": lambda w: np.log1p(np.exp(w)),
                "stable-direct": lambda w: -w,
            }.get(name, np.exp)
            poles = -decay(p["A_weight" if "A_weight" in p else "A_real"][h]) + 1j * p["A_imag"][h]
            if name == "dss-softmax":
                k[c, h] = softmax_kernel(poles, p["C"][c, h], dt[h], length, kernel.l_max)
                continue
            dense = reference.dense_from_modes(poles, p.get("B", np.ones((H, 1)) + 0j)[h] + 0 * poles, p["C"][c, h])
        k[c, h] = reference.state_space_kernel(*reference.discretize(*dense[:2], dt[h], "zoh"), dense[2], length)
    return k


@every_baseline
@pytest.mark.parametrize(("length", "n_ssm"), diagonal([1, 2, 7, 33], [1, 3]))
def test_values(name, n_ssm, length):
    kernel = build(name, n_ssm=n_ssm)
    expected = exact(name, kernel, length)
    k = kernel(L=length)[0].detach().numpy()
    np.testing.assert_allclose(k, expected, rtol=0, atol=1e-11 * abs(expected).max())
    if kernel.sampling_period is not None:
        k = kernel(L=length, rate=2)[0].detach().numpy()
        np.testing.assert_allclose(k, exact(name, kernel, length, 2), rtol=0, atol=1e-11 * abs(expected).max())


@every_baseline
def test_float32(name):
    """Of the same numbers, at an odd length of hundreds."""
    kernel = build(name, l_max=501)
    with torch.no_grad():
        if name == "rtf":  # keep the poles inside
            kernel.denominator *= 0.3
        kernel = kernel.float()
        value = kernel(L=501)[0].double()
        whole = kernel.double()(L=501)[0]
    assert (value - whole).abs().max() < 3e-6 * whole.abs().max()


@every_baseline
def test_gradients(name):
    options = {"d_model": 2, "d_state": 4, "n_ssm": 1, "channels": 1} | ({"l_max": 6} if name == "dss-softmax" else {})
    kernel = build(name, **options)
    names, values = zip(*((n, p.detach().requires_grad_()) for n, p in kernel.named_parameters()), strict=True)

    def samples(*tensors):
        return torch.func.functional_call(kernel, dict(zip(names, tensors, strict=True)), (5,))[0]

    assert torch.autograd.gradcheck(samples, values)


@every_baseline
def test_convolution_is_step_is_forward_state(name, rng):
    kernel = build(name)
    u = torch.tensor(rng.standard_normal((2, H, 33)))
    start = kernel.default_state(2)
    start = start + torch.tensor(rng.standard_normal(start.shape)) * (1 + 0.5j if start.is_complex() else 1)
    k, response = kernel(L=33, state=start)
    k = kernel(L=33)[0]  # without a state it may be made another way
    whole = response.clone()
    for t in range(33):
        whole[..., t] += torch.einsum("chs,bhs->bch", k[..., : t + 1].flip(-1), u[..., : t + 1])
    state, steps = start, []
    for x in u.unbind(-1):
        y, state = kernel.step(x, state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, -1), whole, rtol=0, atol=1e-10)
    torch.testing.assert_close(kernel.forward_state(u, start), state, rtol=0, atol=1e-10)


# What each paper says of its own


def test_initial_values():
    real = registry.get("s4d-real")(d_model=2, d_state=5, verbose=False)
    np.testing.assert_allclose(-real.A_log.detach().exp(), [[-1, -2, -3, -4, -5]] * 2, rtol=1e-6)
    plain = registry.get("s4d")(d_model=2, d_state=6, n_ssm=1, verbose=False).double()
    for name in REPARAMETERIZATIONS:
        kernel = registry.get("stable")(d_model=2, d_state=6, n_ssm=1, reparameterization=name, verbose=False).double()
        for ours, theirs in zip(vars(kernel.poles()).values(), vars(plain.poles()).values(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["best", "exp", "softplus"])
def test_reparameterizations_keep_the_system_stable(name):
    kernel = registry.get("stable")(d_model=2, d_state=6, reparameterization=name, verbose=False).double()
    for weight in (-20.0, -0.3, 0.0, 20.0):
        kernel.A_weight.data.fill_(weight)
        assert (kernel.poles().real < 0).all()
    kernel = registry.get("stable")(d_model=2, d_state=6, reparameterization="direct", verbose=False).double()
    kernel.A_weight.data.fill_(0.1)
    assert (kernel.poles().real > 0).all()


def test_best_bounds_the_gradient():
    """|f'(w)| / f(w)² ≤ 2|w|, the quantity that the paper makes proportional to the weight."""
    kernel = registry.get("stable")(d_model=1, d_state=202, offset=0.1, verbose=False).double()
    w = kernel.A_weight
    w.data = torch.linspace(-5, 5, 101, dtype=torch.float64).unsqueeze(0)
    decay = -kernel.poles().real
    (slope,) = torch.autograd.grad(decay.sum(), w)
    torch.testing.assert_close(slope / decay.square(), -2 * w)


def test_ring():
    """|λ|² uniform on [r_min², r_max²], phases up to max_phase, unit variance of the outputs for white noise."""
    torch.manual_seed(0)
    kernel = registry.get("lru")(d_model=400, d_state=64, r_min=0.6, r_max=0.9, max_phase=1.0, verbose=False).double()
    transition, _ = kernel.discretized()
    square = (transition.real**2 + transition.imaginary**2).detach()
    phase = torch.atan2(transition.imaginary, transition.real).detach()
    assert 0.36 < square.min() < 0.361
    assert 0.809 < square.max() < 0.81
    assert square.mean().item() == pytest.approx((0.36 + 0.81) / 2, abs=0.005)
    assert 0 < phase.min() < 0.01
    assert 0.99 < phase.max() < 1
    torch.testing.assert_close(2 * kernel.gamma_log, torch.log(1 - square), rtol=0, atol=1e-5)
    assert kernel(L=2000)[0].square().sum(-1).mean().item() == pytest.approx(1, rel=0.1)


def test_rtf_without_truncation_wraps_around():
    """The paper's convolution at L roots of unity: Σ_m k_{t+mL}; the exact one has nothing of the tail."""
    torch.manual_seed(3)
    kernel, wrapped = build("rtf"), build("rtf", truncation="none")
    with torch.no_grad():
        kernel.denominator *= 0.5
    wrapped.load_state_dict(kernel.state_dict())
    whole = kernel(L=700)[0].detach()
    aliased = whole.unflatten(-1, (-1, 7)).sum(-2)
    torch.testing.assert_close(wrapped(L=7)[0].detach(), aliased, rtol=0, atol=1e-12)
    torch.testing.assert_close(kernel(L=7)[0].detach(), whole[..., :7], rtol=0, atol=1e-12)
    assert (aliased - whole[..., :7]).abs().max() > 1e-6
    with pytest.raises(NotImplementedError, match="Build the kernel with truncation='exact'"):
        wrapped.default_state(1)


def test_rtf_zero_initialization_trains_from_the_second_step():
    kernel = registry.get("rtf")(d_model=2, d_state=4, init_scale=0, verbose=False)
    assert not kernel(L=9)[0].any()
    optimizer, moved = torch.optim.SGD(kernel.parameters(), lr=0.1), []
    for _ in range(2):
        before = kernel.denominator.detach().clone()
        (kernel(L=9)[0] - torch.linspace(1, 0, 9)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        moved.append(not torch.equal(kernel.denominator, before))
        assert kernel.numerator.all()
    assert moved == [False, True]


def test_rtf_of_unstable_poles_is_exact_too():
    """A pole of 1.2: the tail is larger than the kernel, and nothing of it is in it."""
    kernel = build("rtf", d_state=1)
    kernel.denominator.data.fill_(-1.2)
    k = kernel(L=50)[0].detach()
    exact = kernel.numerator.detach() * 1.2 ** torch.arange(50, dtype=torch.float64)
    torch.testing.assert_close(k, exact, rtol=1e-9, atol=0)


# Bad options


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "dss",
            {"variant": "sofmax"},
            r"variant must be one of 'exp', 'softmax'; got 'sofmax'\. Did you mean 'softmax'",
        ),
        ("dss", {"variant": "softmax"}, r"variant='softmax' needs l_max, .*; got none\. Set model.layer.l_max"),
        ("dss", {"init": "diag-lgs"}, r"init must be one of .*; got 'diag-lgs'\. Did you mean 'diag-legs'"),
        ("stable", {"reparameterization": "bst"}, r"must be one of 'best', .*; got 'bst'\. Did you mean 'best'\?"),
        ("lru", {"r_min": 0.9, "r_max": 0.5}, r"0 <= r_min < r_max <= 1; got r_min=0\.9 and r_max=0\.5\."),
        ("lru", {"r_max": 1.1}, r"0 <= r_min < r_max <= 1; got r_min=0\.9 and r_max=1\.1\."),
        ("lru", {"r_min": -0.1}, r"r_min must be a finite number above 0; got -0\.1"),
        ("lru", {"max_phase": 7}, r"max_phase must be at most 2π; got 7\."),
        ("lru", {"d_state": 3}, "d_state of lru must be even"),
        ("rtf", {"init_scale": -1}, r"init_scale must be a finite number above 0; got -1"),
        ("rtf", {"truncation": "exat"}, r"truncation must be one of .*; got 'exat'\. Did you mean 'exact'\?"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        registry.get(name)(**{"d_model": 2, "d_state": 4} | options)


@pytest.mark.parametrize("name", ["lru", "rtf"])
def test_no_sampling_period(name):
    kernel = registry.get(name)(d_model=2, d_state=4, verbose=False)
    assert kernel.sampling_period is None
    with pytest.raises(ValueError, match=rf"the rate of the {name} kernel must be 1, .*; got 2"):
        kernel(L=5, rate=2)


def test_zero_is_a_radius():
    """r_min = 0, the disk of the paper."""
    kernel = registry.get("lru")(d_model=2, d_state=8, r_min=0, r_max=1, max_phase=2 * math.pi, verbose=False)
    assert torch.isfinite(kernel(L=9)[0]).all()
