"""HopeKernel: its values, its initialization, its optimizer groups and what it says in the log."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
import torch

import reference
from hope_ssm import HopeKernel, convolution_kernel, hankel_singular_values
from hope_ssm.kernels.base import TRANSFORMS, softplus_inverse


def build(**options):
    return HopeKernel(**{"d_model": 6, "d_state": 8, "horizon": 100, "verbose": False} | options)


def messages(caplog):
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="hope_ssm.kernels")
    return caplog


@pytest.mark.parametrize("n_ssm", [None, 6, 3, 2, 1])
@pytest.mark.parametrize("dt_transform", ["exp", "softplus"])
def test_values(n_ssm, dt_transform):
    """Feature h of channel c has its own Markov parameters and sampling period h mod n_ssm."""
    kernel = build(channels=2, n_ssm=n_ssm, dt_transform=dt_transform, dt_min=0.01, dt_max=5.0).double()
    raw = kernel.raw_sampling_period.detach().numpy()
    assert raw.shape == (n_ssm or 6,)
    periods = np.exp(raw) if dt_transform == "exp" else np.log1p(np.exp(raw))
    assert ((periods > 0.00999) & (periods < 5.001)).all()
    h = kernel.markov_parameters.detach().numpy()
    assert h.shape == (2, 6, 8)
    for length in (1, 2, 20, 21):
        k = kernel(L=length)[0].detach().numpy()
        slow = kernel(L=length, rate=3)[0].detach().numpy()
        for c, feature in np.ndindex(2, 6):
            dt = periods[feature % len(periods)]
            exact = reference.long_kernel(h[c, feature], dt, length)
            np.testing.assert_allclose(k[c, feature], exact, rtol=0, atol=1e-12)
            exact = reference.long_kernel(h[c, feature], 3 * dt, length)
            np.testing.assert_allclose(slow[c, feature], exact, rtol=0, atol=1e-12)


def test_truncation_and_backend_reach_the_kernel():
    wrapped = build(truncation="none", dt_min=0.05, dt_max=0.05).double()
    h, dt = wrapped.markov_parameters, wrapped.sampling_period
    expected = convolution_kernel(h, dt, 9, truncation="none")
    torch.testing.assert_close(wrapped(L=9)[0], expected, rtol=0, atol=1e-14)
    assert (expected - convolution_kernel(h, dt, 9)).abs().max() > 1e-2
    dense = build(backend="dense")
    torch.testing.assert_close(
        dense(L=9)[0], convolution_kernel(dense.markov_parameters, dense.sampling_period, 9, backend="dense")
    )


@pytest.mark.parametrize("rate", [1, 0.5, 3])
def test_state_response_at_a_rate(rate, rng):
    """C Aᵗ s of the dense system at r·Δt."""
    kernel = build(d_model=1, dt_min=0.3, dt_max=0.3).double()
    h, state = kernel.markov_parameters.detach().numpy()[0, 0], rng.standard_normal(8)
    response = kernel(L=11, rate=rate, state=torch.tensor(state).reshape(1, 1, 8))[1]
    outputs, _ = reference.hope_recursion(h, rate * kernel.sampling_period.item(), np.zeros(11), state)
    np.testing.assert_allclose(response[0, 0, 0].detach().numpy(), outputs, rtol=0, atol=1e-12)


def test_window_of_memory():
    """At low frequencies the response does not decay inside n / Δt = 320 samples, and then it ends."""
    k = build(d_model=256, d_state=32, dt_min=0.1, dt_max=0.1)(L=1000)[0].detach()
    low_pass = torch.hann_window(100) / 50
    power = torch.nn.functional.conv1d(k.transpose(0, 1), low_pass[None, None])[:, 0].square().mean(0)
    early, late, after = power[20:80].mean(), power[200:260].mean(), power[450:].mean()
    assert 0.6 < late / early < 1.6
    assert after < 1e-8 * early


# Initialization


@pytest.mark.parametrize("init", ["gaussian", "uniform", "rademacher", "flat_spectrum"])
def test_scale(init):
    kernel = build(d_model=400, d_state=32, init=init, init_scale=2.0)
    norms = torch.linalg.vector_norm(kernel.markov_parameters.detach(), dim=-1)
    assert norms.square().mean().sqrt().item() == pytest.approx(2.0, rel=0.05)


def test_deterministic():
    kernel = build(deterministic=True, init_scale=3.0, dt_min=0.01, dt_max=1.0, d_model=3)
    assert torch.equal(kernel.markov_parameters, torch.eye(8)[:1].expand(1, 3, 8) * 3.0)
    torch.testing.assert_close(kernel.sampling_period, torch.tensor([0.01, 0.1, 1.0]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dt_transform", ["exp", "softplus"])
@pytest.mark.parametrize("dt", [1e-6, 1e-3, 0.1, 1.0, 30.0, 100.0])
def test_sampling_periods_survive_their_transform(dt_transform, dt):
    """At every size: the inverse of softplus must not overflow at large Δt nor round to nothing at small."""
    kernel = build(dt_min=dt, dt_max=dt, dt_transform=dt_transform)
    torch.testing.assert_close(kernel.sampling_period, torch.full((6,), dt), rtol=3e-6, atol=0)
    kernel(L=10)[0].sum().backward()
    assert torch.isfinite(kernel.raw_sampling_period.grad).all()


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_are_inverse(name):
    forward, inverse = TRANSFORMS[name]
    dt = torch.logspace(-10, 3, 40, dtype=torch.float64)
    torch.testing.assert_close(forward(inverse(dt)), dt, rtol=1e-10, atol=0)


def test_softplus_inverse_does_not_overflow():
    assert softplus_inverse(torch.tensor(1000.0)).item() == 1000.0


def test_claim_hankel_singular_values_come_from_h_alone():
    """Training Δt cannot lower the rank: the values are a function of h."""
    kernel = build().double()
    before = hankel_singular_values(kernel.markov_parameters)
    kernel.raw_sampling_period.data += 1
    torch.testing.assert_close(hankel_singular_values(kernel.markov_parameters), before, rtol=0, atol=0)


# Optimizer options


@pytest.mark.parametrize(
    ("lr", "wd", "markov", "period"),
    [
        (None, None, {}, {}),
        (None, 0.0, {}, {"weight_decay": 0.0}),
        (0.001, None, {"lr": 0.001}, {"lr": 0.001}),
        (0.001, 0.05, {"lr": 0.001, "weight_decay": 0.05}, {"lr": 0.001, "weight_decay": 0.05}),
        (0.001, 0, {"lr": 0.001}, {"lr": 0.001, "weight_decay": 0.0}),
        (0, 0.0, {}, None),
        ({"dt": 0.001, "A": 0.001, "B": 0.001}, 0.0, {}, {"lr": 0.001, "weight_decay": 0.0}),
        ({"sampling_period": 0.001}, None, {}, {"lr": 0.001}),
        ({"markov_parameters": 0.01}, None, {"lr": 0.01}, {}),
        ({"C": 0.01}, {"C": 0.0}, {"lr": 0.01, "weight_decay": 0.0}, {}),
        ({"C": None, "dt": 0.1}, None, {}, {"lr": 0.1}),
        ({"C": 0}, None, None, {}),
        ({"dt": 0, "markov_parameters": 0}, None, None, None),
        ({"C": 0.1, "markov_parameters": 0.1}, None, {"lr": 0.1}, {}),
    ],
)
def test_groups(lr, wd, markov, period):
    """{} is the global group; None is frozen: a buffer."""
    kernel = build(lr=lr, wd=wd)
    for name, expected in (("markov_parameters", markov), ("raw_sampling_period", period)):
        if expected is None:
            assert name in dict(kernel.named_buffers())
        else:
            assert getattr(dict(kernel.named_parameters())[name], "_optim", {}) == expected


def test_global_group_holds_the_markov_parameters():
    """Under the host's s4.yaml: channels · d_model · n numbers per layer, by the host's own rule for groups."""
    kernel = HopeKernel(
        d_model=5, d_state=64, channels=2, init="legs", rank=1, dt_min=0.001, dt_max=0.1, wd=0.0, n_ssm=1,
        lr={"dt": 0.001, "A": 0.001, "B": 0.001}, verbose=False,
    )  # fmt: skip
    everyone = list(kernel.parameters())
    assert sum(p.numel() for p in everyone if not hasattr(p, "_optim")) == 2 * 5 * 64
    assert [(p.numel(), p._optim) for p in everyone if hasattr(p, "_optim")] == [
        (1, {"lr": 0.001, "weight_decay": 0.0})
    ]


def test_markov_parameters_are_never_tied():
    assert build(n_ssm=1, channels=3).markov_parameters.shape == (3, 6, 8)


# Log


def test_s4_options_are_named_once(log):
    for _ in range(2):
        build(verbose=True, rank=2, measure="legs", disc="zoh", init="legs")
    assert messages(log) == [
        "hope: the options rank=2, measure=legs, disc=zoh, init=legs of other kernels have no effect."
    ]


@pytest.mark.parametrize("init", ["legs", "diag-lin", "diag-inv", "fourier", None])
def test_initializations_of_a_state_matrix_mean_gaussian(init, log):
    torch.manual_seed(1)
    h = build(verbose=True, init=init).markov_parameters
    torch.manual_seed(1)
    assert torch.equal(h, build(init="gaussian").markov_parameters)
    assert len(log.records) == (init is not None)


def test_options_left_unset_are_not_mentioned(log):
    build(verbose=True, measure=None, disc=None)
    assert not log.records


@pytest.mark.parametrize(("known", "steps"), [
    ({"l_max": 40}, 40), ({"l_max": 40, "horizon": 90}, 90), ({"l_max": 40, "horizon": [90, 40]}, 40),
    ({"horizon": 90}, 90),
])  # fmt: skip
def test_windows_follow_the_longest_sequence(known, steps):
    kernel = HopeKernel(d_model=500, d_state=8, verbose=False, **known)
    assert (kernel.dt_min, kernel.dt_max) == pytest.approx((8 / steps / 16, 8 / steps * 2))
    assert kernel.sampling_period.min() >= kernel.dt_min * 0.999
    assert kernel.sampling_period.max() <= kernel.dt_max * 1.001


def test_idle_keys_of_lr_are_named_once(log):
    for _ in range(2):
        build(verbose=True, lr={"A": 0.001, "dt": 0.001})
    assert messages(log) == ["hope: lr.A has no effect, there is no A to train."]


def test_bare_lr_is_explained(log):
    build(verbose=True, lr=0.001)
    build(verbose=True, lr=0)
    warning, note = log.records
    assert warning.levelno == logging.WARNING
    assert "lr=0.001 holds for the Markov parameters too" in warning.getMessage()
    assert "lr={dt: 0.001} leaves them there" in warning.getMessage()
    assert note.getMessage() == ("hope: lr=0 freezes the sampling periods; lr={C: 0} freezes the Markov parameters.")


def test_representation():
    text = repr(build(channels=2, truncation="none"))
    assert text == (
        "HopeKernel(d_model=6, d_state=8, channels=2, n_ssm=6, truncation='none', backend='auto', coefficients='real')"
    )


def test_number_of_parameters():
    assert sum(p.numel() for p in build(d_model=1, d_state=64).parameters()) == 65


@pytest.mark.slow
def test_it_learns_a_delayed_pulse():
    """From h and Δt together; the window n / Δt = 32 covers the pulse at 20."""
    kernel = build(d_model=1, d_state=16, dt_min=0.5, dt_max=0.5)
    target = torch.exp(-((torch.arange(60) - 20) ** 2) / 18.0)
    optimizer = torch.optim.Adam(kernel.parameters(), lr=0.02)
    losses = []
    for _ in range(150):
        loss = (kernel(L=60)[0][0, 0] - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]


@pytest.mark.parametrize("backend", ["naive", "cuda"])
def test_the_hosts_own_backends_mean_auto(backend):
    """``+model.layer.backend=naive``, the host's mend for its S4 kernels, does not stop a sweep that has hope in it."""
    assert build(backend=backend).backend == "auto"


@pytest.mark.parametrize(
    "call",
    [
        lambda kernel: kernel.default_state(2),
        lambda kernel: kernel.step(torch.zeros(2, 6), torch.zeros(2, 6, 8)),
        lambda kernel: kernel.forward_state(torch.zeros(2, 6, 5), torch.zeros(2, 6, 8)),
        lambda kernel: kernel(L=5, state=torch.zeros(2, 6, 8)),
    ],
    ids=["default_state", "step", "forward_state", "state"],
)
def test_a_kernel_that_wraps_around_has_no_recurrent_mode(call):
    """And is refused, not run inexactly; the exact kernel takes its parameters."""
    kernel = build(truncation="none")
    sentence = (
        "a step or a state must have a kernel that does not wrap around; got truncation='none'. "
        "Build the kernel with truncation='exact' for a recurrent mode: it has the same parameters."
    )
    with pytest.raises(NotImplementedError, match=f"^{re.escape(sentence)}$"):
        call(kernel)
    exact = build()
    exact.load_state_dict(kernel.state_dict())
    call(exact)
