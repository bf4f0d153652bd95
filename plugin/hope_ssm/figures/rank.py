"""Claim 1: random state spaces have few Hankel singular values that matter, random Markov parameters have n.

Poles are drawn with P(|λ| > r) = (1 - r)^p, B and C are Gaussian. Poles within δ of the circle are about n δ^p; all
others together decay in log(1/ε)/δ steps; so the ε-rank is at most about n^β with β = 1/(p + 1), up to logarithms.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from hope_ssm.hankel import diagonal_singular_values, hankel_singular_values, numerical_rank
from hope_ssm.kernels.initialization import markov_parameters
from hope_ssm.reporting.plots import band as draw_band
from hope_ssm.reporting.plots import kernel_styles
from hope_ssm.reporting.tables import mean_and_deviation
from hope_ssm.reporting.timing import exponents

CLAIM = "Random state spaces have low numerical Hankel rank, random Markov parameters have not"
SEEDS = 20
SIZES = (16, 32, 64, 128, 256)
TAILS = (0.5, 1.0, 2.0)
EPSILON = 1e-2
LOW, FULL = 0.9, 0.95  # β below, and β above: far wider apart than a least-squares fit rounds


def random_modes(n: int, tail: float) -> tuple[torch.Tensor, ...]:
    """(λ, B, C) of n poles in conjugate pairs, |λ| = 1 - U^{1/p}, and Gaussian B and C, complex (n,)."""
    radius = 1 - torch.rand(n // 2, dtype=torch.float64).clamp(min=1e-12) ** (1 / tail)
    poles = torch.polar(radius, 2 * torch.pi * torch.rand(n // 2, dtype=torch.float64))
    half = (poles, *torch.randn(2, n // 2, dtype=torch.complex128))
    return tuple(torch.cat([part, part.conj()]) for part in half)


def measure(seeds: Iterable[int]) -> dict[str, Any]:
    """Return ε-ranks (seeds, sizes) of each distribution."""
    ranks: dict[str, list[list[int]]] = {name: [] for name in ("h", *(f"{tail:g}" for tail in TAILS))}
    for seed in seeds:
        torch.manual_seed(seed)
        h = [hankel_singular_values(markov_parameters("gaussian", (n,), 1.0).double()) for n in SIZES]
        ranks["h"].append([int(numerical_rank(values, EPSILON)) for values in h])
        for tail in TAILS:
            values = [diagonal_singular_values(*random_modes(n, tail)) for n in SIZES]
            ranks[f"{tail:g}"].append([int(numerical_rank(sigma, EPSILON)) for sigma in values])
    return {"sizes": SIZES, "epsilon": EPSILON, "ranks": ranks}


def _exponents(result: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: exponents(result["sizes"], np.array(ranks)) for name, ranks in result["ranks"].items()}


def _label(name: str) -> str:
    return "random h" if name == "h" else f"random (A, B, C), p = {name}"


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return headings and a row a distribution."""
    last = result["sizes"][-1]
    table = [["distribution", f"rank at n = {last}, ε = {EPSILON:g}", "fitted β of n^β", "theory"]]
    for name, beta in _exponents(result).items():
        expected = 1.0 if name == "h" else 1 / (1 + float(name))
        ranks = [row[-1] for row in result["ranks"][name]]
        table.append(
            [
                _label(name),
                mean_and_deviation(ranks, 1),
                mean_and_deviation(beta),
                f"{expected:.2f}" if name == "h" else f"at most {expected:.2f}",
            ]
        )
    return table


def verdict(result: dict[str, Any]) -> tuple[bool, str]:
    """Confirmed if every β of (A, B, C) is two standard errors below 0.9, and h keeps half of n with β above 0.95."""
    beta = _exponents(result)
    share = min(row[-1] for row in result["ranks"]["h"]) / result["sizes"][-1]
    low = all(b.mean() + 2 * b.std() / len(b) ** 0.5 < LOW for name, b in beta.items() if name != "h")
    text = ", ".join(f"{b.mean():.2f} at p = {name}" for name, b in beta.items() if name != "h")
    return bool(low and beta["h"].mean() > FULL and share > 0.5), (
        f"the ε-rank grows as n^β with β = {text}; for random h β = {beta['h'].mean():.2f}, never below "
        f"{100 * share:.0f} % of n = {result['sizes'][-1]}."
    )


def draw(result: dict[str, Any], axes: Any) -> None:
    """Ranks against n, and over n."""
    styles = kernel_styles(["hope" if name == "h" else "s4d" for name in result["ranks"]])
    for (name, ranks), style in zip(result["ranks"].items(), styles, strict=True):
        values = np.array(ranks, dtype=float)
        draw_band(axes[0], result["sizes"], values, marker="o", ms=3, label=_label(name), **style)
        draw_band(axes[1], result["sizes"], values / np.array(result["sizes"]), marker="o", ms=3, **style)
    axes[0].set(xscale="log", yscale="log", xlabel="n", ylabel=f"ε-rank, ε = {EPSILON:g}")
    axes[0].legend(frameon=False, fontsize=8)
    axes[1].set(xscale="log", ylim=(0, 1.05), xlabel="n", ylabel="share of n")
    for panel in axes:
        panel.set_xticks(result["sizes"], labels=result["sizes"], minor=False)
        panel.set_xticks([], minor=True)
