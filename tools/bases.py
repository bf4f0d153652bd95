"""Which functions can a layer make of n states? Least squares of a delay, for docs/bands.md: python tools/bases.py.

The target is e^{-iTθ} for 0 < θ ≤ W, T = 256, W = 0.63; the taps of eight features with n = 64 states each at their
usual starts are combined by small coefficients: the minimum of the mean |error|² + 1e-4 |c|². Bands and cascade have
the same poles; a cascade (Takenaka and Malmquist) passes each section's all-pass output on to the next.
"""

from __future__ import annotations

import math

import numpy as np

N, FEATURES, HORIZON, DELAY, HIGHEST, POINTS, RIDGE = 64, 8, 512, 256, 0.63, 150, 1e-4
THETA = np.linspace(HIGHEST / POINTS, HIGHEST, POINTS)
Z = np.exp(1j * THETA)


def laguerre(z: np.ndarray, dt: float, m: int) -> list[np.ndarray]:
    """√(1 - a²) P(z)ᵏ / (1 + a z⁻¹), k < m."""
    a = (dt - 1) / (dt + 1)
    allpass = (1 / z + a) / (1 + a / z)
    return [2 * math.sqrt(dt) / (1 + dt) / (1 + a / z) * allpass**k for k in range(m)]


def hope(place: float, shift: float) -> list[np.ndarray]:
    """A window n/Δt from half the horizon to sixteen times it."""
    return laguerre(Z, 2 * N / HORIZON * 32**-place, N)


def s4d_lin(place: float, shift: float) -> list[np.ndarray]:
    """Δt from 0.001 to 0.1."""
    found, dt = [], 0.001 * 100**place
    for k in range(N // 2):
        pole = -0.5 + 1j * math.pi * k
        parts = [(np.exp(dt * p) - 1) / p / (1 - np.exp(dt * p) / Z) for p in (pole, pole.conjugate())]
        found += [parts[0] + parts[1], (parts[0] - parts[1]) / 1j]
    return found


def starts(place: float, shift: float, bands: int, width: float, longest: float) -> tuple[np.ndarray, float]:
    """Centres and Δt of bands of a window from half the horizon to ``longest`` times it."""
    spacing = math.pi * N / (bands * HORIZON / 2 * (2 * longest) ** place)
    return (np.arange(bands) + shift) * spacing, width * spacing


def banded(place: float, shift: float, *start: float) -> list[np.ndarray]:
    """Real and imaginary parts of every tap of every band."""
    found, (centres, dt) = [], starts(place, shift, *start)
    for omega in centres:
        turned = [laguerre(Z * np.exp(sign * 1j * omega), dt, N // (2 * len(centres))) for sign in (-1, 1)]
        for one, other in zip(*turned, strict=True):
            found += [(one + other) / 2, (one - other) / 2j]
    return found


def cascade(place: float, shift: float, *start: float) -> list[np.ndarray]:
    """Sections of two orthonormal taps (1 ± z⁻¹) / D(z) behind the product of z⁻²D(z⁻¹)/D(z) of those before."""
    centres, dt = starts(place, shift, *start)
    circle, found, before = np.exp(2j * math.pi * np.arange(1 << 15) / (1 << 15)), [], np.ones_like(Z)
    for omega in np.tile(centres, N // (2 * len(centres))):
        pole = (1 - dt) / (1 + dt) * np.exp(1j * omega)
        first, second = -2 * pole.real, abs(pole) ** 2

        def denominator(z: np.ndarray, first: float = first, second: float = second) -> np.ndarray:
            return 1 + first / z + second / z**2

        for sign in (1, -1):
            norm = math.sqrt(np.mean(np.abs((1 + sign / circle) / denominator(circle)) ** 2))
            found.append(before * (1 + sign / Z) / denominator(Z) / norm)
        before = before * (second + first / Z + 1 / Z**2) / denominator(Z)
    return found


def residual(taps: list[np.ndarray]) -> tuple[float, float]:
    """Relative error and norm of the coefficients."""
    stacked = np.concatenate([np.real(taps), np.imag(taps)], axis=1).T
    target = np.exp(-1j * DELAY * THETA)
    wanted = np.concatenate([target.real, target.imag])
    left, values, right = np.linalg.svd(stacked, full_matrices=False)
    c = right.T @ (values / (values**2 + RIDGE * POINTS) * (left.T @ wanted))
    return float(np.linalg.norm(stacked @ c - wanted) / np.linalg.norm(wanted)), float(np.linalg.norm(c))


def main() -> None:
    """Print the mean over three draws of the starts."""
    rows = {"HOPE": (hope,), "S4D-Lin": (s4d_lin,)}
    for longest in (4, 1):
        for bands, width in ((4, 0.1), (8, 0.1), (8, 0.15), (8, 0.3), (16, 0.15), (32, 0.15), (32, 0.3)):
            start = f"G = {bands}, width {width}, windows to {longest} horizons"
            rows[f"bands, {start}"] = (banded, bands, width, longest)
            rows[f"cascade, {start}"] = (cascade, bands, width, longest)
    for name, (kind, *start) in rows.items():
        found = []
        for seed in range(3):
            rng = np.random.default_rng(seed)
            places, shifts = (np.arange(FEATURES) + rng.random(FEATURES)) / FEATURES, rng.random(FEATURES)
            taps = [tap for place, shift in zip(places, shifts, strict=True) for tap in kind(place, shift, *start)]
            found.append(residual(taps))
        print(f"{name:<52} error {np.mean(found, axis=0)[0]:.4f}   |c| {np.mean(found, axis=0)[1]:.1f}", flush=True)


if __name__ == "__main__":
    main()
