"""Initial Markov parameters and sampling periods."""

from __future__ import annotations

import math

import pytest
import torch

from hope_ssm import HopeKernel, checks, hankel_singular_values
from hope_ssm.kernels import initialization


@pytest.mark.parametrize("init", sorted({*initialization.MARKOV_PARAMETERS} - {"delay"}))
@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 64])
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_mean_and_variance(init, n, scale):
    """E[h_k] = 0 and E[h_k²] = scale² / n for every k: within five standard errors of 4000 draws."""
    h = initialization.markov_parameters(init, (4000, n), scale)
    assert h.shape == (4000, n)
    deviation = scale / math.sqrt(n)
    assert h.mean(0).abs().max() < 5 * deviation / math.sqrt(4000)
    assert (h.square().mean(0) / deviation**2 - 1).abs().max() < 5 * math.sqrt(2 / 4000)


def test_each_name_is_its_distribution():
    draw = {name: initialization.markov_parameters(name, (50, 16), 4.0) for name in initialization.MARKOV_PARAMETERS}
    assert draw["gaussian"].abs().max() > 2.5
    assert 1.5 < draw["uniform"].abs().max() <= math.sqrt(3) * (1 + 1e-6)
    assert (draw["rademacher"].abs() == 1).all()
    assert set(draw["rademacher"].unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("n", [1, 2, 3, 16, 17])
def test_flat_spectrum_is_flat(n):
    h = initialization.markov_parameters("flat_spectrum", (10, n), 3.0)
    torch.testing.assert_close(torch.fft.fft(h).abs(), torch.full((10, n), 3.0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 9])
def test_a_delay_has_equal_singular_values(n):
    h = initialization.markov_parameters("delay", (40, n), 3.0)
    torch.testing.assert_close(hankel_singular_values(h.double()), torch.full((40, n), 3.0).double(), rtol=1e-6, atol=0)
    assert {-3.0, 3.0} == {round(x, 4) for x in h[:, -1].tolist()}


@pytest.mark.parametrize("init", initialization.MARKOV_PARAMETERS)
def test_random_markov_parameters_have_high_hankel_rank(init):
    """Claim of the paper: rank Ω(n) almost surely; here at least half of the values above 1 % of the largest."""
    h = initialization.markov_parameters(init, (20, 64), 1.0).double()
    values = hankel_singular_values(h)
    assert ((values > 0.01 * values[:, :1]).sum(-1) >= 32).all()


def test_the_seed_decides():
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(
            (initialization.markov_parameters("gaussian", (3, 4), 1.0), initialization.sampling_periods(5, 0.1, 1))
        )
    assert all(torch.equal(a, b) for a, b in zip(draws[0], draws[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(draws[0], draws[2], strict=True))


def test_sampling_periods_are_log_uniform():
    dt = initialization.sampling_periods(20_000, 1e-3, 10.0)
    assert dt.dtype == torch.float64
    assert dt.min() >= 1e-3 * (1 - 1e-12)
    assert dt.max() <= 10.0 * (1 + 1e-12)
    position = (dt.log() - math.log(1e-3)) / math.log(1e4)
    quantiles = torch.quantile(position, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    torch.testing.assert_close(quantiles, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64), rtol=0, atol=0.02)


def test_deterministic_sampling_periods():
    torch.testing.assert_close(
        initialization.sampling_periods(3, 0.01, 1.0, deterministic=True),
        torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64),
    )
    torch.testing.assert_close(
        initialization.sampling_periods(1, 0.01, 1.0, deterministic=True), torch.tensor([0.1], dtype=torch.float64)
    )


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_single_period_may_be_asked_for(deterministic):
    dt = initialization.sampling_periods(4, 0.1, 0.1, deterministic=deterministic)
    torch.testing.assert_close(dt, torch.full((4,), 0.1, dtype=torch.float64))


@pytest.mark.parametrize(("n", "horizon"), [(64, 128), (64, 512), (16, 100_000), (1, 3)])
def test_windows_suit_the_horizon(n, horizon):
    """n/Δt goes from half the horizon to 16 horizons."""
    dt_min, dt_max = initialization.window_periods(n, horizon)
    assert n / dt_min == pytest.approx(16 * horizon)
    assert n / dt_max == pytest.approx(horizon / 2)


def test_a_horizon_beyond_the_range_of_sampling_periods_is_cut():
    assert initialization.window_periods(1, 10**9)[0] == checks.SAMPLING_PERIODS[0]
    with pytest.raises(ValueError, match="horizon"):
        initialization.window_periods(64, 0)


def test_numbers_come_before_the_horizon():
    def periods(**options):
        return HopeKernel(d_model=256, d_state=64, **options).sampling_period

    by_horizon = periods(horizon=512)
    assert 64 / 512 / 16 * 0.999 <= by_horizon.min() < 0.01
    assert 0.2 < by_horizon.max() <= 64 / 256 * 1.001
    given = periods(dt_min=0.1, dt_max=0.1, horizon=512)
    torch.testing.assert_close(given, torch.full((256,), 0.1))
    half = periods(dt_max=0.02, horizon=512)
    assert half.max() <= 0.02 * 1.001
    assert periods().min() >= 0.01 * 0.999
    assert periods().max() <= 0.3 * 1.001
