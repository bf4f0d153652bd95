"""Circular convolutions: Algorithm 1 of the paper by its formula, and what has no meaning with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hope_ssm.layers.fftconv import FFTConvolution

H, N = 3, 5


def layer(**options):
    torch.manual_seed(1)
    return FFTConvolution(H, "hope", d_state=N, verbose=False, dt_min=0.1, dt_max=0.7, **options).double()


@pytest.mark.parametrize("length", [1, 2, 3, 16, 33])
def test_is_algorithm_1(length):
    """y = Re iFFT(FFT(u) · g) + D u with g at all L nodes, each by the sum over h."""
    circular = layer(circular=True, truncation="none")
    u = torch.randn(2, length, H, dtype=torch.float64)
    kernel = circular.kernel
    h, dt = kernel.markov_parameters.detach().numpy()[0], kernel.sampling_period.detach().numpy()
    theta = 2 * np.pi * np.arange(length) / length
    warped = 2 * np.arctan2(np.sin(theta / 2), dt[:, None] * np.cos(theta / 2))
    g = np.einsum("hk,hkl->hl", h, np.exp(-1j * np.arange(1, N + 1)[:, None] * warped[:, None]))
    spectrum = np.fft.fft(u.numpy(), axis=1) * g.T
    expected = np.fft.ifft(spectrum, axis=1).real + u.numpy() * circular.D.detach().numpy()
    y = circular(u)[0].detach().numpy()
    np.testing.assert_allclose(y, expected, rtol=0, atol=1e-12 * abs(expected).max())


def test_early_outputs_see_late_inputs():
    u = torch.zeros(1, 8, H, dtype=torch.float64)
    u[:, -1] = 1
    assert layer(circular=True)(u)[0][:, 0].abs().min() > 1e-6
    assert layer()(u)[0][:, 0].abs().max() < 1e-14


def test_gradients():
    circular = layer(circular=True)
    u = torch.randn(2, 6, H, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x: circular(x)[0], (u,))


def test_refusals():
    circular, u = layer(circular=True), torch.randn(2, 6, H, dtype=torch.float64)
    state = circular.default_state(2)
    for call in (
        lambda: circular(u, state),
        lambda: circular(u, lengths=torch.tensor([6, 3])),
        lambda: circular.step(u[:, 0], state),
        lambda: circular.setup_step(),
    ):
        with pytest.raises(ValueError, match=r"a circular layer must .*circular=false"):
            call()
    with pytest.raises(ValueError, match=r"must have one kernel, .*; got bidirectional=true"):
        layer(circular=True, bidirectional=True)
    with pytest.raises(ValueError, match=r"as long as the sequence, 6; got 4 by l_max"):
        layer(circular=True, l_max=4)(u)
