"""S4DKernel: its poles, and its values against a dense float64 state space."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import reference
from hope_ssm.kernels.s4d import S4DKernel


def build(**options):
    return S4DKernel(**{"d_model": 4, "d_state": 8, "verbose": False} | options)


def poles(**options):
    kernel = build(n_ssm=1, **options).double()
    return (-torch.exp(kernel.A_real) + 1j * kernel.A_imag)[0].detach().numpy()


def sorted_by_frequency(values):
    return values[np.argsort(values.imag)]


@pytest.mark.parametrize("n", [2, 4, 8, 64])
def test_lin(n):
    expected = np.array([-0.5 + 1j * np.pi * k for k in range(n // 2)])
    np.testing.assert_allclose(poles(d_state=n, init="diag-lin"), expected, rtol=1e-6)


@pytest.mark.parametrize("n", [2, 4, 8, 64])
def test_inv(n):
    expected = np.array([-0.5 + 1j * n / np.pi * (n / (2 * k + 1) - 1) for k in range(n // 2)])
    np.testing.assert_allclose(poles(d_state=n, init="diag-inv"), expected, rtol=1e-6)


@pytest.mark.parametrize("n", [2, 4, 8, 64])
def test_legs(n):
    """The upper half of the eigenvalues of HiPPO-LegS + P Pᵀ, dense."""
    exact = np.linalg.eigvals(reference.legs_normal_part(n))
    np.testing.assert_allclose(exact.real, -0.5, atol=1e-9)
    expected = sorted_by_frequency(exact[exact.imag > 0])
    assert len(expected) == n // 2
    value = sorted_by_frequency(poles(d_state=n, init="diag-legs"))
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n", [2, 8, 64])
def test_random_poles(n):
    """Within their ranges, with the medians of their distributions, new with every draw and repeatable by the seed."""
    many = {init: np.stack([poles(d_state=n, init=init) for _ in range(400)]) for init in ("diag-rand", "diag-uniform")}
    for drawn in many.values():
        assert len(np.unique(drawn, axis=0)) == 400
    rand, uniform = many.values()
    np.testing.assert_allclose(rand.real, -0.5, rtol=1e-6)
    log = np.log(rand.imag)
    error = 5 / np.sqrt(log.size)  # five standard errors
    assert abs(log.mean()) < error
    assert abs(log.std() - 1) < error
    decay = np.log(-uniform.real) / np.log(n)
    frequency = uniform.imag / (np.pi * n / 2)
    for unit in ((decay + 1) / 2, frequency):
        assert 0 <= unit.min() <= unit.max() <= 1 + 1e-6
        assert abs(unit.mean() - 0.5) < error
    torch.manual_seed(3)
    first = poles(d_state=n, init="diag-rand")
    torch.manual_seed(3)
    np.testing.assert_array_equal(first, poles(d_state=n, init="diag-rand"))


@pytest.mark.parametrize(
    ("short", "full"), [("lin", "diag-lin"), ("inv", "diag-inv"), ("legs", "diag-legs"), (None, "diag-lin")]
)
def test_short_names(short, full):
    np.testing.assert_array_equal(poles(init=short), poles(init=full))


@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
@pytest.mark.parametrize("init", ["diag-lin", "diag-inv", "diag-legs", "diag-uniform"])
@pytest.mark.parametrize("n_ssm", [1, 2, 4])
def test_values(disc, init, n_ssm, rng):
    """C̄ Āᵗ B̄ with n real states, discretized by a dense matrix exponential or by the dense bilinear rule."""
    kernel = build(disc=disc, init=init, n_ssm=n_ssm, channels=2, dt_min=0.01, dt_max=1.0).double()
    with torch.no_grad():
        for parameter in (kernel.B, kernel.A_real, kernel.A_imag):
            parameter += torch.tensor(0.1 * rng.standard_normal(parameter.shape))
        periods = torch.nn.functional.softplus(kernel.raw_sampling_period).numpy()
        A = (-torch.exp(kernel.A_real) + 1j * kernel.A_imag).numpy()
        B, C = (torch.view_as_complex(x).numpy() for x in (kernel.B, kernel.C))
        kernels = {rate: kernel(L=50, rate=rate)[0].numpy() for rate in (1, 2)}
    assert A.shape == (n_ssm, 4)
    for (c, h), (rate, k) in ((index, item) for index in np.ndindex(2, 4) for item in kernels.items()):
        dense = reference.dense_from_modes(A[h % n_ssm], B[h % n_ssm], C[c, h])
        A_bar, B_bar = reference.discretize(*dense[:2], periods[h] * rate, disc)
        exact = reference.state_space_kernel(A_bar, B_bar, dense[2], 50)
        np.testing.assert_allclose(k[c, h], exact, rtol=0, atol=1e-10 * abs(exact).max())


@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
@pytest.mark.parametrize("dt", [1e-4, 1e-2, 1.0])
def test_float32_error_at_small_periods(disc, dt):
    """(exp x - 1) and log (1 + x)/(1 - x) formed as written lose 1 / |ΔtA| of the digits."""
    kernel = build(d_state=64, disc=disc, dt_min=dt, dt_max=dt)
    value, exact = kernel(L=500)[0].double(), copy.deepcopy(kernel).double()(L=500)[0]
    error = (value - exact).abs().amax(-1) / exact.abs().amax(-1)
    assert error.max() < (4e-6 if dt < 1e-3 else 3e-5)


@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
def test_gradients(disc):
    kernel = build(d_model=2, d_state=4, disc=disc, dt_min=0.1, dt_max=1.0).double()
    names, values = zip(*((name, p.detach().requires_grad_()) for name, p in kernel.named_parameters()), strict=True)

    def values_of(*tensors):
        return torch.func.functional_call(kernel, dict(zip(names, tensors, strict=True)), (5,))[0]

    assert torch.autograd.gradcheck(values_of, values)


@pytest.mark.parametrize(
    ("lr", "frozen", "own"),
    [
        (None, set(), {}),
        (0.001, set(), dict.fromkeys(("raw_sampling_period", "A_real", "A_imag", "B"), 0.001)),
        (0, {"raw_sampling_period", "A_real", "A_imag", "B"}, {}),
        ({"A": 0.1}, set(), {"A_real": 0.1, "A_imag": 0.1}),
        ({"A": 0, "dt": 0.2}, {"A_real", "A_imag"}, {"raw_sampling_period": 0.2}),
        ({"B": 0, "C": 0.3}, {"B"}, {"C": 0.3}),
        ({"C": 0}, {"C"}, {}),
    ],
)
def test_learning_rates(lr, frozen, own):
    """As in the host: a bare number rules Δt, A and B, and never C."""
    kernel = build(lr=lr, wd=None)
    assert set(dict(kernel.named_buffers())) == frozen
    assert {name: p._optim["lr"] for name, p in kernel.named_parameters() if hasattr(p, "_optim")} == own


def test_shared_parts():
    """A and B are shared by n_ssm; C and Δt are not."""
    kernel = build(n_ssm=2, channels=3)
    assert kernel.A_real.shape == kernel.A_imag.shape == (2, 4)
    assert kernel.B.shape == (2, 4, 2)
    assert kernel.C.shape == (3, 4, 4, 2)
    assert kernel.raw_sampling_period.shape == (4,)


def test_scale_of_c():
    """E|C_j|² = 1."""
    kernel = build(d_model=200, d_state=64)
    assert kernel.C.square().sum(-1).mean().item() == pytest.approx(1.0, rel=0.05)
