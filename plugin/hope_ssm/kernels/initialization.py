"""Initial Markov parameters and sampling periods."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hope_ssm.checks import SAMPLING_PERIODS, check_choice, check_positive_integer, check_positive_number, check_share

MOST_BANDS = 8  # of a feature, where bands is None


def _gaussian(shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape)


def _uniform(shape: tuple[int, ...]) -> Tensor:
    return (2 * torch.rand(shape) - 1) * math.sqrt(3)


def _rademacher(shape: tuple[int, ...]) -> Tensor:
    return torch.randint(2, shape).to(torch.get_default_dtype()) * 2 - 1


def _flat_spectrum(shape: tuple[int, ...]) -> Tensor:
    n = shape[-1]
    dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)  # half precisions have no FFT everywhere
    phase = 2 * math.pi * torch.rand(*shape[:-1], n // 2 + 1, dtype=dtype)
    spectrum = torch.polar(torch.ones_like(phase), phase)
    real_bins = [0, n // 2] if n % 2 == 0 else [0]
    spectrum[..., real_bins] = torch.sign(spectrum[..., real_bins].real).to(spectrum.dtype)
    return torch.fft.irfft(spectrum, n=n) * math.sqrt(n)


def _delay(shape: tuple[int, ...]) -> Tensor:
    h = torch.zeros(shape)
    h[..., -1:] = _rademacher((*shape[:-1], 1)) * math.sqrt(shape[-1])
    return h


MARKOV_PARAMETERS = {
    "gaussian": _gaussian,
    "uniform": _uniform,
    "rademacher": _rademacher,
    "flat_spectrum": _flat_spectrum,
    "delay": _delay,
}


def markov_parameters(init: str, shape: tuple[int, ...], scale: float) -> Tensor:
    """Random h with E[h_k] = 0 and E‖h‖² = scale² whatever n is; E[h_k²] = scale² / n, except for ``delay``.

    ``gaussian`` normal, ``uniform`` on an interval, ``rademacher`` random signs, ``flat_spectrum`` random phases
    with |Σ_k h_k e^{-ikω}| = scale at all ω = 2πj / n, ``delay`` ±scale at k = n - 1 alone: the only h, but for its
    sign, whose Hankel singular values are all equal (then H Hᵀ = scale², and H has a triangle of zeros).

    Args:
        init: one of ``MARKOV_PARAMETERS``.
        shape: (..., n).
        scale: above 0.

    Returns:
        ``shape``, in torch's default dtype.

    Source: arXiv 2405.13975 initializes h at random with standard deviation between 1/(2√n) and 1/√n.
    """
    check_choice("init", init, MARKOV_PARAMETERS)
    scale = check_positive_number("init_scale", scale)
    return MARKOV_PARAMETERS[init](shape) * (scale / math.sqrt(shape[-1]))


def window_periods(n: int, horizon: int | None) -> tuple[float, float]:
    """Δt of the longest and of the shortest window n/Δt:  16 horizon and horizon / 2 steps.

    A window of 16 times the sequence is not too long: its first sixteenth holds the smooth part of the n functions
    P(z)^{k+1}, and what lies beyond the sequence is cut off exactly (docs/results.md has the measurements).

    Args:
        n: number of Markov parameters.
        horizon: steps of the longest sequence, or None for one of some hundred steps.

    Returns:
        Δt_min, Δt_max; 0.01 and 0.3 without a horizon.
    """
    if horizon is None:
        return 0.01, 0.3
    lowest, highest = SAMPLING_PERIODS
    dt = n / check_positive_integer("horizon", horizon)
    return min(max(dt / 16, lowest), highest), min(max(2 * dt, lowest), highest)


def sampling_periods(count: int, dt_min: float, dt_max: float, *, deterministic: bool = False) -> Tensor:
    """Δt drawn log-uniformly from [dt_min, dt_max]; evenly spaced in the logarithm when ``deterministic``.

    Args:
        count: how many.
        dt_min: least Δt, within ``checks.SAMPLING_PERIODS``.
        dt_max: greatest Δt, within ``checks.SAMPLING_PERIODS``.
        deterministic: no random numbers.

    Returns:
        (count,) float64. One deterministic period is the geometric mean.
    """
    dt_min, dt_max = check_positive_number("dt_min", dt_min), check_positive_number("dt_max", dt_max)
    if dt_min < SAMPLING_PERIODS[0] or dt_max > SAMPLING_PERIODS[1]:
        lowest, highest = SAMPLING_PERIODS
        raise ValueError(f"dt_min and dt_max must be from {lowest:g} to {highest:g}; got {dt_min} and {dt_max}.")
    if dt_min > dt_max:
        raise ValueError(f"dt_min must not be above dt_max; got dt_min={dt_min} and dt_max={dt_max}.")
    if not deterministic:
        position = torch.rand(count, dtype=torch.float64)
    elif count == 1:
        position = torch.full((1,), 0.5, dtype=torch.float64)
    else:
        position = torch.linspace(0, 1, count, dtype=torch.float64)
    return torch.exp(math.log(dt_min) + position * (math.log(dt_max) - math.log(dt_min)))


def check_bands(bands: int | None, n: int) -> int:
    """Return G with 2G dividing n: the most up to 8 if None, 0 for none; otherwise raise."""
    if bands is None:
        fitting = [count for count in range(1, MOST_BANDS + 1) if n % (2 * count) == 0]
        if not fitting:
            raise ValueError(f"d_state must be even for bands of complex states; got {n}. bands=0 takes any.")
        return fitting[-1]
    if bands == 0 and not isinstance(bands, bool):
        return 0
    check_positive_integer("bands", bands)
    if n % (2 * bands):
        raise ValueError(
            f"d_state must be a multiple of 2·bands, for complex states in a band; got d_state={n} and bands={bands}."
        )
    return int(bands)


def check_centres(centres: Sequence[float], bands: int) -> tuple[float, ...]:
    """Return the frequencies of so many bands if they are from 0 to π; otherwise raise."""
    given = tuple(float(centre) for centre in centres)
    if len(given) != bands or not all(0 <= centre <= math.pi for centre in given):
        raise ValueError(f"centres must be {bands} frequencies from 0 to π; got {list(centres)}.")
    return given


def band_starts(
    count: int,
    bands: int,
    n: int,
    horizon: int | None,
    width: float,
    *,
    scattered: float = 0.0,
    deterministic: bool = False,
) -> tuple[Tensor, Tensor]:
    """ω_g = f + (g + u) s and Δt_g = width · s, with the spacing s = π n / (G T) of G bands that share out a window T.

    The area 2π · n/(2G) of the delays of a band is that of T steps over its strip of width s. It delays the frequency
    at its centre by n/(2G Δt_g) = T/(2π · width) steps. A feature has its T and its u: log T from half the horizon to
    all of it, one at random from each of ``count`` equal parts, so that few features have short and long ones too; u
    uniform on [0, 1]. s is at most π/G, where the bands cover every frequency. f is 0, but in a share of the features
    uniform on [0, π - G s], so that bands lie anywhere.

    Args:
        count: how many features.
        bands: G.
        n: real states per feature, 2G times the stages of a band.
        horizon: steps of the longest sequence, 512 if None.
        width: above 0; 1/(2π) makes the delay at the centre T.
        scattered: that share, from 0 to 1.
        deterministic: log T evenly spaced, u = 1/2, f in the middle.

    Returns:
        ω in [0, π] and Δt, each (count, G) float64.
    """
    horizon = 512 if horizon is None else check_positive_integer("horizon", horizon)
    width = check_positive_number("band_width", width)
    order = torch.arange(count, dtype=torch.float64)
    scattered = check_share("scattered_share", scattered)
    drawn = 3 if scattered else 2  # no more random numbers than needed
    random = torch.full((3, count), 0.5).double() if deterministic else torch.rand(drawn, count, dtype=torch.float64)
    position, offset, place = (order + random[0]) / count, random[1].unsqueeze(-1), random[-1].unsqueeze(-1)
    anywhere = torch.floor((order + 1) * scattered) > torch.floor(order * scattered)
    window = horizon / 2 * 2**position
    spacing = (math.pi * n / (bands * window)).clamp(max=math.pi / bands).unsqueeze(-1)
    first = torch.where(anywhere.unsqueeze(-1), place * (math.pi - bands * spacing), 0)
    centres = first + (torch.arange(bands, dtype=torch.float64) + offset) * spacing
    lowest, highest = SAMPLING_PERIODS
    return centres, (width * spacing).clamp(lowest, highest).expand(count, bands)
