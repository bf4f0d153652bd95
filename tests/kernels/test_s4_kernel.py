"""S4 against a dense real float64 HiPPO-LegS state space, discretized by the bilinear rule and run as a recursion."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import reference
from hope_ssm.kernels.hippo import nplr
from hope_ssm.kernels.s4 import S4Kernel

H, N = 3, 8


def build(**options):
    return S4Kernel(**{"d_model": H, "d_state": N, "dt_min": 0.01, "dt_max": 1.0, "verbose": False} | options).double()


@pytest.mark.parametrize("n", [2, 8, 64])
def test_legs_is_unitarily_equivalent_to_hippo(n):
    poles, P, B = nplr("legs", n, 1)
    A = np.diag(np.concatenate([poles, poles.conj()]))
    column = np.concatenate([P[0], P[0].conj()])
    A = A - np.outer(column, column.conj())
    expected = np.sort_complex(np.linalg.eigvals(reference.legs_matrix(n)))
    if n <= 8:  # larger ones are too non-normal for their eigenvalues to be known to many digits
        np.testing.assert_allclose(np.sort(expected.real), np.sort(np.linalg.eigvals(A).real), rtol=1e-5)
    inputs = np.concatenate([B, B.conj()])
    root = np.sqrt(2 * np.arange(n) + 1)
    # Markov parameters root' Aᵏ root of both realizations: independent of the basis.
    for k in range(4):
        original = root @ np.linalg.matrix_power(reference.legs_matrix(n), k) @ root
        modal = inputs.conj() @ np.linalg.matrix_power(A, k) @ inputs
        np.testing.assert_allclose(modal.real, original, rtol=1e-9)
        assert abs(modal.imag) < 1e-9 * abs(original)


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("length", [1, 2, 7, 64, 129])
@pytest.mark.parametrize("rate", [1.0, 2.0])
def test_kernel_equals_the_dense_recursion(rank, length, rate):
    torch.manual_seed(rank)
    kernel = build(rank=rank, channels=2)
    with torch.no_grad():
        k, _ = kernel(L=length, rate=rate)
        dt = kernel.sampling_period.numpy() * rate
        poles = np.concatenate([-torch.exp(kernel.A_real) + sign * 1j * kernel.A_imag for sign in (1, -1)], axis=-1)
        P, B, C = (torch.view_as_complex(part).numpy() for part in (kernel.P, kernel.B, kernel.C))
        P, B, C = (np.concatenate([part, part.conj()], axis=-1) for part in (P, B, C))
    for h in range(H):
        A = np.diag(poles[h]) - P[:, h].T @ P[:, h].conj()
        implicit = np.eye(N) - dt[h] / 2 * A
        step = np.linalg.solve(implicit, np.eye(N) + dt[h] / 2 * A)
        state = np.linalg.solve(implicit, dt[h] * B[h])
        for t in range(length):
            np.testing.assert_allclose(k[:, h, t], (C[:, h] @ state).real, rtol=0, atol=1e-11)
            state = step @ state


def test_gradients():
    kernel = build(d_model=2, d_state=4, n_ssm=1, rank=2)
    names = [name for name, _ in kernel.named_parameters()]
    assert set(names) == {"raw_sampling_period", "A_real", "A_imag", "P", "B", "C"}

    def function(*values):
        return torch.func.functional_call(kernel, dict(zip(names, values, strict=True)), kwargs={"L": 5})[0]

    values = [p.detach().clone().requires_grad_() for p in kernel.parameters()]
    assert torch.autograd.gradcheck(function, values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_state": 7}, "d_state of s4 must be even, .*; got 7"),
        ({"rank": 0}, "rank must be a whole number of at least 1; got 0"),
        ({"init": "lags"}, "init must be one of 'legs', .*; got 'lags'. Did you mean 'legs'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)
