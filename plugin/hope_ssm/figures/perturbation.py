"""Claim 3: what a perturbation of size ε does to the transfer function: bounded for h, without bound for A.

Discrete systems with ‖G‖_∞ = 1 and n = 32: S4D-Lin by zero-order hold at Δt = 0.1 with all Re λ set to one value, and
‖B‖ = ‖C‖; HOPE with Gaussian h. One of A, B, C, h moves by a random vector of norm ε = 1e-6; every H∞ norm is proved.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from hope_ssm.hankel import (
    StateSpace,
    h_infinity_norm,
    markov_perturbation_bound,
    state_space_perturbation_bound,
)
from hope_ssm.reporting.plots import band, kernel_color, kernel_styles
from hope_ssm.reporting.timing import exponents

CLAIM = "A perturbation of h moves the transfer function by at most √n ‖δh‖, one of A without bound"
SEEDS = 5
N, DT, SIZE, TOLERANCE = 32, 0.1, 1e-6, 1e-3
REAL_PARTS = (0.5, 0.1, 0.02, 0.005, 0.001, 0.0002)


def _paired(half: torch.Tensor) -> torch.Tensor:
    return torch.cat([half, half.conj()])


def _direction(n: int) -> torch.Tensor:
    step = torch.randn(n, dtype=torch.complex128)
    return step / (2**0.5 * step.norm())  # of norm 1 with the conjugates


def diagonal_system(real_part: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(λ, B, C) of half of the modes, with ‖G‖_∞ = 1 and ‖B‖ = ‖C‖."""
    frequencies = torch.pi * torch.arange(N // 2, dtype=torch.float64)
    poles = torch.exp(DT * torch.complex(torch.full_like(frequencies, -real_part), frequencies))
    B, C = torch.randn(2, N // 2, dtype=torch.complex128)
    scale = float(h_infinity_norm(_system(poles, B, C), TOLERANCE)) ** -0.5
    balance = float(C.norm() / B.norm()) ** 0.5
    return poles, scale * balance * B, scale / balance * C


def _system(poles: torch.Tensor, B: torch.Tensor, C: torch.Tensor) -> StateSpace:
    return StateSpace.from_modes(_paired(poles), _paired(B), _paired(C)[None], torch.zeros(1))


def measure(seeds: Iterable[int]) -> dict[str, Any]:
    """Return movements and bounds, (seeds, real parts) for A, B, C, one number per seed for h."""
    moved: dict[str, list[list[float]]] = {name: [] for name in "ABC"}
    bounds: dict[str, list[list[float]]] = {name: [] for name in "ABC"}
    of_h, bound_of_h = [], []
    for seed in seeds:
        torch.manual_seed(seed)
        h = torch.randn(1, N, dtype=torch.float64)
        h = h / h_infinity_norm(StateSpace.from_markov_parameters(h), TOLERANCE)
        step = torch.randn(1, N, dtype=torch.float64)
        step = SIZE * step / step.norm()
        of_h.append(float(h_infinity_norm(StateSpace.from_markov_parameters(step), TOLERANCE)))
        bound_of_h.append(float(markov_perturbation_bound(step)[0]))
        found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in "ABC"}
        for real_part in REAL_PARTS:
            parts = diagonal_system(real_part)
            whole = _system(*parts)
            for place, name in enumerate("ABC"):
                changed = [part + SIZE * _direction(N // 2) * (place == i) for i, part in enumerate(parts)]
                other = _system(*changed)
                found[name][0].append(float(h_infinity_norm(whole - other, TOLERANCE)))
                found[name][1].append(float(state_space_perturbation_bound(whole, other)))
        for name, (movement, bound) in found.items():
            moved[name].append(movement)
            bounds[name].append(bound)
    margins = [1 - float(np.exp(-DT * part)) for part in REAL_PARTS]
    return {
        "size": SIZE, "real_parts": REAL_PARTS, "margins": margins, "moved": moved, "bounds": bounds, "h": of_h,
        "bound_of_h": bound_of_h,
    }  # fmt: skip


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return headings and a row for h and for each distance of the poles from the circle."""
    table = [["system", "moved", "‖ΔG‖ / ε, mean", "largest", "bound / ε, mean"]]
    movement = np.array(result["h"]) / SIZE
    table.append(["hope", "h", f"{movement.mean():.3g}", f"{movement.max():.3g}", f"{N**0.5:.3g} = √n"])
    for name in "ABC":
        for place in (0, len(REAL_PARTS) // 2, len(REAL_PARTS) - 1):
            movement, bound = (np.array(result[key][name])[:, place] / SIZE for key in ("moved", "bounds"))
            where = f"s4d, Re λ = -{REAL_PARTS[place]:g}"
            table.append([where, name, f"{movement.mean():.3g}", f"{movement.max():.3g}", f"{bound.mean():.3g}"])
    return table


def verdict(result: dict[str, Any]) -> tuple[bool, str]:
    """Confirmed if no movement exceeds its bound and that of A grows as margin^-0.8 or faster."""
    over = sum(m > b * (1 + TOLERANCE) for m, b in zip(result["h"], result["bound_of_h"], strict=True))
    over_abc = sum(
        int((np.array(result["moved"][name]) > np.array(result["bounds"][name]) * (1 + TOLERANCE)).sum())
        for name in "ABC"
    )
    slope = exponents(result["margins"], np.array(result["moved"]["A"])).mean()
    ends = np.array(result["moved"]["A"]).mean(0)[[0, -1]] / SIZE
    worst = max(result["h"]) / SIZE
    return bool(over == 0 and over_abc == 0 and slope <= -0.8), (
        f"h moves G by at most {worst:.2g} ε (√n ε = {N**0.5:.2g} ε); A by {ends[0]:.2g} ε to {ends[1]:.2g} ε as its "
        f"poles approach the circle, as margin^{slope:.2f}; {over + over_abc} movements exceed their bound."
    )


def draw(result: dict[str, Any], axes: Any) -> None:
    """Movement against the distance to the circle with bounds, and movement over bound."""
    margins = np.array(result["margins"])
    hope = kernel_color("hope")
    for name, style in zip("ABC", kernel_styles(["s4d"] * 3), strict=True):
        color = style["color"]
        moved, bounds = (np.array(result[key][name]) / SIZE for key in ("moved", "bounds"))
        band(axes[0], margins, moved, color=color, marker="o", ms=3, label=f"{name} of S4D")
        finite = np.where(np.isfinite(bounds), bounds, np.nan)
        axes[0].plot(margins, finite.mean(0), color=color, ls="--", lw=1)
        band(axes[1], margins, moved / bounds, color=color, marker="o", ms=3)
    h = np.array(result["h"])[:, None].repeat(len(margins), 1) / SIZE
    band(axes[0], margins, h, color=hope, label="h of HOPE")
    axes[0].axhline(N**0.5, color=hope, ls="--", lw=1)
    band(axes[1], margins, h / N**0.5, color=hope)
    axes[0].set(xscale="log", yscale="log", xlabel="1 - |λ|", ylabel="‖ΔG‖_∞ / ε (dashed: bounds)")
    axes[0].legend(frameon=False, fontsize=8)
    axes[1].set(xscale="log", yscale="log", xlabel="1 - |λ|", ylabel="movement / bound")
