"""coefficients="complex_noncausal": complex Markov parameters on the half circle, against a direct DFT."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import reference
from hope_ssm import HopeKernel
from hope_ssm.layers.fftconv import FFTConvolution


def build(**options):
    standard = {"d_model": 3, "d_state": 7, "dt_min": 0.05, "dt_max": 5.0, "verbose": False}
    return HopeKernel(coefficients="complex_noncausal", **standard | {"truncation": "none"} | options)


def direct(h, dt, length):
    """The inverse DFT, term by term, of g on angles 0 … π and of its conjugate on the others."""
    half = reference.hope_transfer(h, dt, length)[: length // 2 + 1]
    half[0] = half[0].real
    if length % 2 == 0:
        half[-1] = half[-1].real
    g = np.concatenate([half, half[1 : (length + 1) // 2][::-1].conj()])
    j = np.arange(length)
    kernel = np.exp(2j * np.pi * (np.outer(j, j) % length) / length) @ g / length
    assert abs(kernel.imag).max() < 1e-12
    return kernel.real


@pytest.mark.parametrize("backend", ["blocked", "dense"])
@pytest.mark.parametrize("options", [{}, {"channels": 2, "n_ssm": 1}, {"d_state": 1}])
def test_values(backend, options):
    kernel = build(backend=backend, **options).double()
    h = torch.view_as_complex(kernel.markov_parameters.detach()).numpy()
    assert h.shape == (options.get("channels", 1), 3, options.get("d_state", 7))
    dt = kernel.sampling_period.tolist()
    for length in (1, 2, 3, 20, 21):
        k = kernel(L=length, rate=2)[0].detach().numpy()
        assert k.shape == (*h.shape[:2], length)
        for c, feature in np.ndindex(h.shape[:2]):
            np.testing.assert_allclose(k[c, feature], direct(h[c, feature], 2 * dt[feature], length), atol=1e-12)


def test_float32_is_as_close_as_for_real_parameters():
    kernel = build(dt_min=1e-3, dt_max=10.0, d_state=64)
    k = kernel(L=1000)[0].detach()
    exact = kernel.double()(L=1000)[0].detach()
    assert (k - exact).abs().max() < 1e-5 * exact.abs().max()


def test_without_imaginary_parts_it_is_algorithm_1():
    kernel = build(deterministic=True).double()
    assert torch.equal(kernel.markov_parameters[..., 1], torch.zeros(1, 3, 7))
    real = HopeKernel(d_model=3, d_state=7, dt_min=0.05, dt_max=5.0, truncation="none", deterministic=True).double()
    torch.testing.assert_close(kernel(L=15)[0], real(L=15)[0], rtol=0, atol=1e-15)


def test_it_is_not_causal():
    """Long after the window n / Δt = 7 the response to lags -1, -2, … is in the kernel's end; a real one has none."""
    end = build(dt_min=1.0, dt_max=1.0).double()(L=400)[0][..., -20:].abs().max()
    causal = HopeKernel(d_model=3, d_state=7, dt_min=1.0, dt_max=1.0, truncation="none").double()(L=400)[0]
    assert end > 1e-3
    assert causal[..., -20:].abs().max() < 1e-14


def test_parameters_are_doubled_and_both_parts_learn():
    torch.manual_seed(0)
    kernel = build(d_model=300, init_scale=3.0)
    h = kernel.markov_parameters
    assert h.shape == (1, 300, 7, 2)
    assert not h.is_complex()
    assert h.detach().square().sum((-1, -2)).mean().sqrt().item() == pytest.approx(3.0, rel=0.05)
    assert h[..., 0].var().item() == pytest.approx(h[..., 1].var().item(), rel=0.1)
    kernel(L=12)[0].square().sum().backward()
    for part in h.grad.unbind(-1):
        assert (part.abs().amax(-1) > 1e-6).all()
    assert kernel.raw_sampling_period.grad.abs().min() > 0


def test_gradients():
    kernel = build(d_model=1, d_state=3).double()

    def of(h, raw):
        return torch.func.functional_call(kernel, {"markov_parameters": h, "raw_sampling_period": raw}, (9,))[0]

    parameters = (kernel.markov_parameters, kernel.raw_sampling_period)
    assert torch.autograd.gradcheck(of, parameters)
    assert torch.autograd.gradgradcheck(of, parameters)


def test_in_half_precision_and_in_a_layer():
    kernel = build().bfloat16()
    assert kernel(L=9)[0].dtype == torch.float32
    torch.testing.assert_close(kernel(L=9)[0], kernel.float()(L=9)[0], rtol=0, atol=0)
    layer = FFTConvolution(3, "hope", coefficients="complex_noncausal", truncation="none", bidirectional=True)
    assert layer(torch.randn(2, 9, 3))[0].shape == (2, 9, 3)


SENTENCE = (
    "a step or a state must have a causal kernel; got coefficients='complex_noncausal'. "
    "Train with coefficients='real' for a recurrent mode."
)


@pytest.mark.parametrize(
    "call",
    [
        lambda kernel: kernel.default_state(2),
        lambda kernel: kernel.step(torch.zeros(2, 3), torch.zeros(2, 3, 7)),
        lambda kernel: kernel.forward_state(torch.zeros(2, 3, 5), torch.zeros(2, 3, 7)),
        lambda kernel: kernel(L=5, state=torch.zeros(2, 3, 7)),
    ],
    ids=["default_state", "step", "forward_state", "state"],
)
def test_no_recurrent_mode(call):
    with pytest.raises(NotImplementedError, match=f"^{re.escape(SENTENCE)}$"):
        call(build())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"coefficients": "complex", "truncation": "none"},
            "coefficients must be one of 'real', 'complex_noncausal'; got 'complex'. Did you mean 'complex_noncausal'?",
        ),
        ({"coefficients": None}, "coefficients must be one of 'real', 'complex_noncausal'; got None."),
        (
            {"coefficients": "complex_noncausal"},
            "truncation must be 'none' with coefficients='complex_noncausal', whose kernel does not end; got 'exact'.",
        ),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        HopeKernel(d_model=2, **options)
