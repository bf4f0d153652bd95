"""The kernel hope-bands: HOPE where no feature is banded, dense matrices where they are, options and their errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hope_ssm import registry
from hope_ssm.analysis.inspection import view
from hope_ssm.hankel import hankel_singular_values
from hope_ssm.kernels import initialization
from hope_ssm.kernels.hope_bands import HopeBandsKernel
from hope_ssm.kernels.reduced import reduce_kernel

H, N, L = 5, 12, 40


def build(**options):
    torch.manual_seed(3)
    defaults = {"d_model": H, "d_state": N, "horizon": 20, "channels": 2, "verbose": False}
    return HopeBandsKernel(**defaults | options).double()


def dense_kernel(kernel, length):
    """The banded features' kernel from its parameters, dense in numpy: Re cᵀ Aᵗ B."""
    dt = torch.nn.functional.softplus(kernel.raw_band_sampling_period).detach().numpy()
    c = torch.view_as_complex(kernel.C.detach()).numpy()
    channels, features, bands, m = c.shape
    found = np.zeros((channels, features, length))
    for f, g in np.ndindex(features, bands):
        copy = f % len(dt)
        a, shift = (dt[copy, g] - 1) / (dt[copy, g] + 1), np.eye(m, k=-1)
        inverse = np.linalg.inv(np.eye(m) - a * shift)
        A = np.exp(1j * kernel.frequency[copy, g].item()) * (shift - a * np.eye(m)) @ inverse
        for channel in range(channels):
            state_space = A, math.sqrt(1 - a * a) * inverse[:, 0].astype(complex), c[channel, f, g]
            state = state_space[1]
            for t in range(length):
                found[channel, f, t] += (state_space[2] @ state).real
                state = A @ state
    return found


@pytest.mark.parametrize("options", [{}, {"bands": 1}, {"bands": 2, "n_ssm": 1}, {"banded_share": 1.0}, {"bands": 6}])
def test_both_kinds_of_features(options):
    """The first are hope's kernel of the same parameters, the last are dense matrices; every n + 2G numbers."""
    kernel = build(**options)
    k = kernel(L=L)[0].detach()
    assert kernel.banded == (H if options.get("banded_share") else 3)
    np.testing.assert_allclose(k[:, kernel.plain :], dense_kernel(kernel, L), rtol=0, atol=1e-12)
    if kernel.plain:
        hope = registry.get("hope")(d_model=kernel.plain, d_state=N, channels=2, verbose=False).double()
        with torch.no_grad():
            hope.markov_parameters.copy_(kernel.markov_parameters)
            hope.raw_sampling_period.copy_(kernel.raw_sampling_period.expand(kernel.plain))
        torch.testing.assert_close(k[:, : kernel.plain], hope(L=L)[0], rtol=0, atol=0)
    if "n_ssm" not in options:
        trained = sum(parameter.numel() for parameter in kernel.parameters())
        assert trained == kernel.plain * (2 * N + 1) + kernel.banded * 2 * (N + kernel.bands)


@pytest.mark.parametrize(
    "options", [{"banded_share": 0}, {"bands": 0}, {"banded_share": 0.05}, {"bands": 0, "n_ssm": 1}]
)
def test_without_a_banded_feature_it_is_hope(options, rng):
    """Parameters, kernel, rate, state response, step and forward_state of the same random numbers."""
    kernel = build(**options)
    torch.manual_seed(3)
    tied = {"n_ssm": options.get("n_ssm")}
    hope = registry.get("hope")(d_model=H, d_state=N, horizon=20, channels=2, verbose=False, **tied).double()
    assert dict(kernel.named_parameters()).keys() == dict(hope.named_parameters()).keys()
    hope.load_state_dict(kernel.state_dict())
    u, state = torch.tensor(rng.standard_normal((2, H, L))), torch.tensor(rng.standard_normal((2, H, N)))
    for ours, theirs in zip(kernel(L=L, rate=2.5, state=state), hope(L=L, rate=2.5, state=state), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for ours, theirs in zip(kernel.step(u[..., 0], state), hope.step(u[..., 0], state), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(kernel.forward_state(u, state), hope.forward_state(u, state), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rate", [0.5, 2, 3.0])
def test_a_rate_hears_the_same_frequency(rate):
    """A wave sampled every r-th time comes out of a narrow band as large as it did: the sum of the kernel at ω."""
    kernel = build(banded_share=1.0, bands=1, d_state=4, centres=[0.3], band_width=0.1, horizon=400)
    gains = []
    for r in (1, rate):
        k = kernel(L=20000, rate=r)[0].detach()
        wave = torch.polar(torch.ones(20000).double(), -0.3 * r * torch.arange(20000).double())
        gains.append((k * wave).sum(-1).abs())
    assert (gains[1] - gains[0]).abs().max() < 0.02 * gains[0].max()


@pytest.mark.slow
def test_inspection_and_reduction():
    """Hankel singular values by Gramians are those of the response; a reduced kernel is within its certificate."""
    kernel = build(d_model=2, horizon=10, band_width=0.5, dt_min=0.3, dt_max=0.9)
    seen = view(kernel, 500)
    sampled = hankel_singular_values(kernel(L=500)[0][..., 1:])[..., :N].detach()
    assert (seen.singular_values - sampled).abs().max() < 1e-6 * sampled.max()
    small, found = reduce_kernel(kernel, d_state=7)
    assert (found.measured <= found.certificate + 1e-9).all()
    difference = torch.fft.rfft(small.double()(L=500)[0] - kernel(L=500)[0], n=4096).abs().amax(-1)
    assert (difference <= found.certificate * (1 + 1e-6) + 1e-5).all()


def test_starts():
    """Windows from half the horizon to all of it, bands side by side from 0, narrow ones; a horizon or l_max."""
    centres, periods = initialization.band_starts(500, 8, 64, 512, 0.1)
    spacing = centres[:, 1:] - centres[:, :-1]
    torch.testing.assert_close(spacing, spacing[:, :1].expand_as(spacing))
    windows = math.pi * 64 / (8 * spacing[:, 0])
    assert 256 <= windows.min() < 257
    assert 511 < windows.max() <= 512
    assert (centres[:, 0] >= 0).all()
    assert (centres[:, 0] <= spacing[:, 0]).all()
    torch.testing.assert_close(periods, 0.1 * spacing[:, :1].expand_as(periods))
    scattered, _ = initialization.band_starts(400, 8, 64, 512, 0.1, scattered=0.25)
    below, above = scattered[:, 0] <= spacing.max(), scattered[:, 0] > math.pi / 2
    assert below.sum() >= 300
    assert 30 < above.sum() < 70
    assert scattered.max() <= math.pi
    assert initialization.band_starts(100, 8, 64, 4, 0.1)[0].max() <= math.pi
    torch.testing.assert_close(build(horizon=None, l_max=20).frequency, build().frequency)
    assert build(bands=None, d_state=64).bands == 8
    assert build(bands=None, d_state=22).bands == 1
    given = build(centres=[0, 1, 3.1], bands=3)
    torch.testing.assert_close(given.frequency[1], torch.tensor([0, 1, 3.1], dtype=torch.float64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": 5}, "d_state must be a multiple of 2·bands, .* got d_state=12 and bands=5."),
        ({"d_state": 7}, "d_state must be even for bands of complex states; got 7. bands=0 takes any."),
        ({"bands": -1}, "bands must be a whole number of at least 1; got -1."),
        ({"banded_share": 1.5}, "banded_share must be a number from 0 to 1; got 1.5."),
        ({"banded_share": -0.1}, "banded_share must be a number from 0 to 1; got -0.1."),
        ({"banded_share": "half"}, "banded_share must be a number from 0 to 1; got 'half'."),
        ({"scattered_share": 2}, "scattered_share must be a number from 0 to 1; got 2."),
        ({"band_width": 0}, "band_width must be a finite number above 0; got 0."),
        ({"band_scale": -1}, "band_scale must be a finite number above 0; got -1."),
        ({"centres": [0.1, 4.0], "bands": 2}, r"centres must be 2 frequencies from 0 to π; got \[0.1, 4.0\]."),
        ({"centres": [-0.1, 1.0], "bands": 2}, r"centres must be 2 frequencies from 0 to π; got \[-0.1, 1.0\]."),
        ({"centres": [0.1], "bands": 2}, r"centres must be 2 frequencies from 0 to π; got \[0.1\]."),
        ({"lr": {"frequency": 0.1, "A": 0.2}}, "the keys frequency, A name one parameter; got different values"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize("rate", [0, -1.0, math.inf])
def test_bad_rates(rate):
    with pytest.raises(ValueError, match=f"rate must be a finite number above 0; got {rate}"):
        build()(L=5, rate=rate)


def test_learning_rates_by_name():
    kernel = build(lr={"C": 0.2, "dt": 0.003, "frequency": 0}, wd=0.0)
    found = {name: parameter._optim["lr"] for name, parameter in kernel.named_parameters()}
    periods = {"raw_sampling_period": 0.003, "raw_band_sampling_period": 0.003}
    assert found == {"markov_parameters": 0.2, "C": 0.2} | periods
    assert "frequency" in dict(kernel.named_buffers())
    assert build(lr={"A": 0.004}).frequency._optim["lr"] == 0.004
