"""Claim 4: at one and the same Δt, the memory of S4D decays and that of HOPE does not inside its window of n/Δt steps.

Kernels as initialized, n = 64, Δt = 0.1, 64 features. The root mean square of k_t over features, t ≥ 1, over its
largest value; and the energy Σ_{s ≥ t} k_s² that is still to come.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from hope_ssm import registry
from hope_ssm.hankel import memory_length
from hope_ssm.reporting.plots import band, kernel_styles
from hope_ssm.reporting.tables import mean_and_deviation

CLAIM = "At equal sampling periods the memory of S4D decays, that of HOPE lasts for its window n/Δt"
SEEDS = 5
N, DT, FEATURES = 64, 0.1, 64
WINDOW = round(N / DT)
LENGTH = 3 * WINDOW // 2
KERNELS = {
    "hope": ("hope", {}),
    "s4d lin": ("s4d", {"init": "diag-lin"}),
    "s4d inv": ("s4d", {"init": "diag-inv"}),
    "s4d legs": ("s4d", {"init": "diag-legs"}),
}


@torch.no_grad()
def measure(seeds: Iterable[int]) -> dict[str, Any]:
    """Return envelopes (seeds, t ≥ 1) and mean memory lengths by kernel."""
    envelopes: dict[str, list[list[float]]] = {name: [] for name in KERNELS}
    memory: dict[str, list[float]] = {name: [] for name in KERNELS}
    for seed in seeds:
        for name, (kernel, options) in KERNELS.items():
            torch.manual_seed(seed)
            made = registry.get(kernel)(d_model=FEATURES, d_state=N, dt_min=DT, dt_max=DT, verbose=False, **options)
            response = made.double()(L=LENGTH)[0][0]
            envelope = response[:, 1:].square().mean(0).sqrt()
            envelopes[name].append([float(f"{value:.4g}") for value in (envelope / envelope.max()).tolist()])
            memory[name].append(float(memory_length(response).double().mean()))
    return {"n": N, "sampling_period": DT, "window": WINDOW, "envelopes": envelopes, "memory_length": memory}


def _at(result: dict[str, Any], name: str, step: int) -> float:
    """The envelope around a step: its root mean square over a tenth of the window."""
    near = np.array(result["envelopes"][name])[:, max(0, step - WINDOW // 20) : step + WINDOW // 20]
    return float(np.sqrt(np.square(near).mean()))


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return headings and a row per kernel."""
    half, late = WINDOW // 2, round(0.9 * WINDOW)
    table = [
        ["kernel", f"envelope at t = {half}", f"at t = {late}", f"at t = {LENGTH - 60}", "99 % of the energy in steps"]
    ]
    for name in result["envelopes"]:
        cells = [f"{_at(result, name, step):.2g}" for step in (half, late, LENGTH - 60)]
        table.append([name, *cells, mean_and_deviation(result["memory_length"][name], 0)])
    return table


def verdict(result: dict[str, Any]) -> tuple[bool, str]:
    """Confirmed if at half of the window hope's envelope is above 1 % of its peak and every S4D's below 0.01 %."""
    half = {name: _at(result, name, WINDOW // 2) for name in result["envelopes"]}
    theirs = max(value for name, value in half.items() if name != "hope")
    memory = {name: np.mean(values) for name, values in result["memory_length"].items()}
    longest = max(value for name, value in memory.items() if name != "hope")
    return bool(half["hope"] > 1e-2 and theirs < 1e-4), (
        f"at half of the window ({WINDOW // 2} steps) hope has {100 * half['hope']:.1f} % of its peak, S4D at most "
        f"{100 * theirs:.1g} %; 99 % of the energy lies in {memory['hope']:.0f} steps for hope, at most {longest:.0f} "
        "for S4D. That of hope falls too, slowly: only low frequencies are delayed by the whole window."
    )


def draw(result: dict[str, Any], axes: Any) -> None:
    """Envelopes, and the energy still to come."""
    steps = np.arange(1, LENGTH)
    styles = kernel_styles(list(result["envelopes"]))
    for (name, curves), style in zip(result["envelopes"].items(), styles, strict=True):
        values = np.array(curves)
        left = np.square(values)[:, ::-1].cumsum(1)[:, ::-1]
        band(axes[0], steps, np.maximum(values, 1e-12), lw=0.8, label=name, **style)
        band(axes[1], steps, np.maximum(left / left[:, :1], 1e-12), lw=1, **style)
    for panel, title in zip(axes, ("root mean square of k_t over its peak", "energy still to come"), strict=True):
        panel.axvline(WINDOW, color="0.5", ls="--", lw=1)
        panel.set(yscale="log", ylim=(1e-8, 2), xlabel=f"t (dashed: window n/Δt = {WINDOW})", ylabel=title)
    axes[0].legend(frameon=False, fontsize=8)
