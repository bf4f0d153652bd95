"""The free convolution kernel: its samples, its length, its learning rates, and what it refuses."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

import reference
from hope_ssm import HopeKernel
from hope_ssm.kernels.conv import ConvolutionKernel
from hope_ssm.layers.fftconv import FFTConvolution

H, LONGEST = 3, 9


def build(**options):
    return ConvolutionKernel(**{"d_model": H, "l_max": LONGEST, "verbose": False} | options)


@pytest.mark.parametrize("length", [1, 5, 9, 10, 23])
def test_the_parameters_are_the_samples_and_zeros_follow(length):
    kernel = build(channels=2)
    k, response = kernel(L=length)
    assert response is None
    assert k.shape == (2, H, length)
    shared = min(length, LONGEST)
    assert torch.equal(k[..., :shared], kernel.samples[..., :shared])
    assert not k[..., shared:].any()
    assert torch.equal(kernel()[0], kernel.samples)


def test_white_noise_comes_out_as_strong_as_it_goes_in():
    """E Σ k² = 1 per system, whatever its length; over 4000 systems the mean spreads by √(2/4000) = 0.02 at most."""
    for l_max in (1, 25):
        energy = build(d_model=4000, l_max=l_max).samples.square().sum(-1)
        assert energy.mean().item() == pytest.approx(1, abs=0.1)
    assert not build(deterministic=True).samples.any()


@pytest.mark.parametrize("length", [4, 9, 14])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_layer_is_the_double_loop_in_numpy(length, channels, rng):
    layer = FFTConvolution(H, "conv", l_max=LONGEST, channels=channels).double()
    u = rng.standard_normal((length, H))
    with torch.no_grad():
        y = layer(torch.tensor(u)[None])[0][0].unflatten(-1, (channels, H)).numpy()
    samples, D = layer.kernel.samples.detach().numpy(), layer.D.detach().numpy()
    for c, h in np.ndindex(channels, H):
        k = np.zeros(length)
        k[: min(length, LONGEST)] = samples[c, h, :length]
        expected = reference.causal_convolution(k, u[:, h]) + D[c, h] * u[:, h]
        np.testing.assert_allclose(y[:, c, h], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, {"weight_decay": 0.0}),
        ({"wd": None}, {}),
        ({"lr": 0.01, "wd": 0.1}, {"lr": 0.01, "weight_decay": 0.1}),
        ({"lr": {"K": 0.01, "dt": 0.5}, "wd": None}, {"lr": 0.01}),
        ({"lr": {"dt": 0, "A": 0.1}, "wd": {"K": 0.2}}, {"weight_decay": 0.2}),
    ],
)
def test_learning_rate_and_weight_decay(options, said):
    assert getattr(build(**options).samples, "_optim", {}) == said


def test_frozen():
    for lr in ({"K": 0}, 0):
        kernel = build(lr=lr)
        assert not list(kernel.parameters())
        assert set(kernel.state_dict()) == {"samples"}


def test_half_precision_computes_in_float32():
    assert build().bfloat16()(L=3)[0].dtype == torch.float32


NO_STEPS = "the conv kernel has no recurrent mode, because its samples come from no state space;"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: build(l_max=None), ValueError, "the conv kernel needs l_max, the number of its samples; got none."),
        (lambda: build(l_max=0), ValueError, "l_max must be a whole number of at least 1; got 0."),
        (lambda: build(l_mx=4), TypeError, "the conv kernel has no option 'l_mx'; valid are"),
        (lambda: build(lr={"k": 1}), ValueError, "lr has no key 'k'; valid are K, samples, dt, A, B, C."),
        (lambda: build()(L=0), ValueError, "L must be a whole number of at least 1; got 0."),
        (lambda: build()(L=3, rate=2), ValueError, "the rate of the conv kernel must be 1, because it has no sampling"),
        (lambda: build()(L=3, rate=-1), ValueError, "rate must be a finite number above 0; got -1."),
        (lambda: build()(state=torch.zeros(1, H, 4)), NotImplementedError, NO_STEPS),
        (lambda: build().default_state(1), NotImplementedError, NO_STEPS),
        (lambda: build().step(torch.zeros(1, H), None), NotImplementedError, NO_STEPS),
        (lambda: build().forward_state(torch.zeros(1, H, 2), None), NotImplementedError, NO_STEPS),
        (lambda: build()._setup_step(), NotImplementedError, NO_STEPS),
    ],
)
def test_one_sentence(call, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        call()


def test_checkpoints_of_other_kernels_are_refused():
    hope = HopeKernel(d_model=H, d_state=4, verbose=False)
    with pytest.raises(RuntimeError, match=r'Missing key.* "samples"'):
        build().load_state_dict(hope.state_dict())
    with pytest.raises(RuntimeError, match=r'Unexpected key.* "samples"'):
        hope.load_state_dict(build().state_dict())
    with pytest.raises(RuntimeError, match="size mismatch for samples"):
        build(l_max=LONGEST + 1).load_state_dict(build().state_dict())
