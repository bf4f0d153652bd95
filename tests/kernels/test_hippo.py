"""The HiPPO bases by what defines them: orthogonal functions of the lag, Padé's delay, closed transfer functions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.interpolate
import scipy.linalg
import torch
from numpy.polynomial.laguerre import Laguerre
from numpy.polynomial.legendre import Legendre

import reference
from hope_ssm.kernels.hippo import BASES, fout, lagt, legs, legt, normal_modes, nplr, timescales
from hope_ssm.kernels.s4 import S4Kernel
from hope_ssm.kernels.s4d import S4DKernel

RANKS = {"legs": 1, "legt": 2, "lagt": 1, "fout": 1}
every_basis = pytest.mark.parametrize("basis", BASES)
LAGS = [0.0, 0.3, 1.7, 4.0]


def test_legs_are_warped_legendre_polynomials():
    A, B, _ = legs(9)
    np.testing.assert_allclose(A, reference.legs_matrix(9), rtol=1e-14)
    for t in LAGS:
        exact = [math.sqrt(2 * i + 1) * Legendre.basis(i)(2 * math.exp(-t) - 1) * math.exp(-t) for i in range(9)]
        np.testing.assert_allclose(scipy.linalg.expm(t * A) @ B, exact, rtol=0, atol=1e-11)


def test_lagt_are_laguerre_functions():
    A, B, _ = lagt(9)
    for t in LAGS:
        exact = [Laguerre.basis(i)(t) * math.exp(-t / 2) for i in range(9)]
        np.testing.assert_allclose(scipy.linalg.expm(t * A) @ B, exact, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_legt_read_at_the_far_end_of_its_window_is_pade_s_delay(n):
    A, B, _ = legt(n)
    C = (-1.0) ** np.arange(n) * np.sqrt(2 * np.arange(n) + 1)
    numerator, denominator = scipy.interpolate.pade([(-2.0) ** k / math.factorial(k) for k in range(2 * n)], n, n - 1)
    for s in (0.3, 1 + 2j, 3j):
        value = C @ np.linalg.solve(s * np.eye(n) - A, B)
        assert abs(value - numerator(s) / denominator(s)) < 1e-12


def test_legt_are_legendre_polynomials_on_a_window():
    """The first ones, where their window does not yet show that n is finite."""
    A, B, _ = legt(40)
    for t in (0.2, 1.0, 1.8, 3.0):
        value = scipy.linalg.expm(t * A) @ B
        exact = [math.sqrt(2 * i + 1) * Legendre.basis(i)(1 - t) / 2 * (t < 2) for i in range(3)]
        np.testing.assert_allclose(value[:3], exact, atol=0.06)


def test_fout_windows_a_fourier_series():
    """(sI - A)⁻¹B = φ̂(s) / (1 + 1/s + Σ_k 2s/(s² + π²k²)) → φ̂(s)(1 - e^{-2s})/2, φ̂ of cosines and sines."""
    n = 400
    A, B, _ = fout(n)
    k = np.arange(n // 2)
    for s in (0.4, 1 + 2j, 2 + 5j):
        scale = np.where(k > 0, math.sqrt(2), 1)
        waves = np.stack([scale * s, scale * math.pi * k], -1) / (s**2 + (math.pi * k[:, None]) ** 2)
        total = 1 / s + (2 * s / (s**2 + (math.pi * k[1:]) ** 2)).sum()
        value = np.linalg.solve(s * np.eye(n) - A, B)
        np.testing.assert_allclose(value, waves.ravel() / (1 + total), rtol=0, atol=1e-12)
        np.testing.assert_allclose(value, waves.ravel() * (1 - np.exp(-2 * s)) / 2, rtol=0, atol=4e-3)


@every_basis
@pytest.mark.parametrize("n", [2, 6, 64])
def test_modes_rebuild_the_matrices(basis, n):
    """A = V(Λ - ΣPP*)V⁻¹ and B, from the modes and their conjugates, to 1e-9 relative."""
    A, B, P = BASES[basis](n)
    assert len(P) == RANKS[basis]
    _, modes = normal_modes(A, P)
    V = np.concatenate([modes, modes.conj()]).conj().T
    np.testing.assert_allclose(V.conj().T @ V, np.eye(n), atol=1e-11)
    poles, rows, inputs = nplr(basis, n, RANKS[basis])
    assert (poles.imag >= 0).all()
    assert (poles.real <= 1e-13).all()
    full = [np.concatenate([part, part.conj()], axis=-1) for part in (poles, rows, inputs)]
    rebuilt = V @ (np.diag(full[0]) - full[1].T @ full[1].conj()) @ np.linalg.inv(V)
    np.testing.assert_allclose(rebuilt, A, rtol=0, atol=1e-9 * abs(A).max())
    np.testing.assert_allclose(V @ full[2], B, rtol=0, atol=1e-9 * abs(B).max())


def dense_kernel(basis, kernel, feature, length):
    """The kernel of a feature by the dense bilinear rule on the HiPPO matrix itself."""
    A, B, P = BASES[basis](kernel.n)
    _, modes = normal_modes(A, P)
    C = torch.view_as_complex(kernel.C.detach())[0, feature].numpy()
    real_C = 2 * (C @ modes).real
    A_bar, B_bar = reference.discretize(A, B, kernel.sampling_period[feature].item(), "bilinear")
    return reference.state_space_kernel(A_bar, B_bar, real_C, length)


@every_basis
@pytest.mark.parametrize("length", [1, 33, 200])
def test_kernel_is_that_of_the_dense_matrix(basis, length):
    """But for the least decay of a pole that a logarithm carries, 1e-4 in continuous time: none of legs."""
    torch.set_default_dtype(torch.float64)
    try:
        options = {"rank": RANKS[basis], "B_clip": None, "dt_min": 0.01, "dt_max": 0.3, "verbose": False}
        kernel = S4Kernel(d_model=3, d_state=8, init=basis, **options)
    finally:
        torch.set_default_dtype(torch.float32)
    k = kernel(L=length)[0].detach().numpy()
    for h in range(3):
        exact = dense_kernel(basis, kernel, h, length)
        np.testing.assert_allclose(k[0, h], exact, rtol=0, atol=(1e-11 if basis == "legs" else 2e-3) * abs(exact).max())


@every_basis
def test_steps_chunks_and_gradients(basis, rng):
    kernel = S4Kernel(
        d_model=2, d_state=6, init=basis, rank=RANKS[basis], channels=2, dt_min=0.05, dt_max=0.3, verbose=False
    ).double()
    u = torch.tensor(rng.standard_normal((1, 2, 17)))
    k = kernel(L=17)[0]
    state, steps = kernel.default_state(1), []
    for x in u.unbind(-1):
        y, state = kernel.step(x, state)
        steps.append(y)
    whole = torch.stack(
        [torch.einsum("chs,bhs->bch", k[..., : t + 1].flip(-1), u[..., : t + 1]) for t in range(17)], -1
    )
    torch.testing.assert_close(torch.stack(steps, -1), whole, rtol=0, atol=1e-11)
    torch.testing.assert_close(kernel.forward_state(u, kernel.default_state(1)), state, rtol=0, atol=1e-11)
    whole.square().sum().backward()
    assert all(p.grad.abs().max() > 1e-9 for p in kernel.parameters())


def test_hippo_gives_half_the_copies_to_each_basis():
    kernel = S4Kernel(d_model=8, d_state=6, init="hippo", n_ssm=4, verbose=False)
    for basis, copies in (("legs", slice(0, 2)), ("fout", slice(2, 4))):
        alone = S4Kernel(d_model=8, d_state=6, init=basis, n_ssm=2, verbose=False)
        for name in ("A_real", "A_imag", "B"):
            assert torch.equal(getattr(kernel, name)[copies], getattr(alone, name))
        assert torch.equal(kernel.P[:, copies], alone.P)


def test_names_of_the_host():
    kernels = [S4Kernel(d_model=2, d_state=4, init=init, verbose=False) for init in ("fout", "fourier")]
    assert torch.equal(kernels[0].A_imag, kernels[1].A_imag)
    poles = S4DKernel(d_model=2, d_state=6, init="foud", n_ssm=1, verbose=False)
    np.testing.assert_allclose(poles.A_imag[0].detach(), 2 * np.pi * np.arange(3), rtol=1e-6)
    np.testing.assert_allclose(-poles.A_real[0].detach().exp(), -0.5, rtol=1e-6)


def test_mean_lags_cover_the_sequence():
    assert timescales(None, None, 1000) == pytest.approx((0.001, 0.1))
    assert timescales(0.001, None, None) == pytest.approx((0.001, 0.1))
    assert timescales(0.02, 0.03, None) == (0.02, 0.03)
    kernel = S4Kernel(d_model=200, d_state=2, l_max=500, dt_min=None, dt_max=None, verbose=False)
    lags = 1 / kernel.sampling_period.detach()
    assert 4.9 < lags.min() < 6
    assert 450 < lags.max() < 501


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init": "legt"}, r"rank must be at least 2 for init='legt'; got 1\. Set rank=2\."),
        ({"init": "hippo", "n_ssm": 1}, r"joins 2 bases \(legs, fout\), so n_ssm must be a multiple of 2; got 1\."),
        ({"init": "legss"}, r"init must be one of 'legs', .*, 'hippo'; got 'legss'\. Did you mean 'legs'\?"),
        ({"dt_min": None}, r"dt_min=null means 1 / l_max; got l_max=null"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        S4Kernel(**{"d_model": 4, "d_state": 4} | options)
