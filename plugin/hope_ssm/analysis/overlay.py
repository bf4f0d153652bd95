"""Several inspections in one: the layers at the same place of several models, in one picture each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hope_ssm import registry
from hope_ssm.analysis.inspection import LayerView
from hope_ssm.analysis.pages import scaled_singular_values, table, write_page
from hope_ssm.reporting.plots import kernel_styles, pyplot, save

Models = Mapping[str, Mapping[str, LayerView]]  # {run: {layer: what it remembers}}


def titles(models: Models) -> list[str]:
    """Return what each run is called: by its kernel if that is one run's alone, otherwise with the name of the run."""
    kernels = [registry.title(next(iter(layers.values())).kernel) for layers in models.values()]
    return [
        kernel if kernels.count(kernel) == 1 else f"{kernel}, {run}"
        for kernel, run in zip(kernels, models, strict=True)
    ]


def energy_to_come(layer: LayerView) -> np.ndarray:
    """Σ_{s ≥ t} k_s² / Σ_{s ≥ 1} k_s² for 1 ≤ t < L, the mean over the systems of a layer, (L - 1,)."""
    square = layer.responses.flatten(0, 1)[:, 1:].square()
    left = square.flip(-1).cumsum(-1).flip(-1)
    return (left / left[:, :1].clamp(min=1e-300)).mean(0).numpy()


def draw(layers: Sequence[LayerView], names: Sequence[str], title: str, path: Path) -> None:
    """Save singular values, energy by lag and gains of several layers in three panels, a colour for each kernel.

    Lines are medians over the systems of a layer (energy: the mean), bands are the half of them around the median.
    """
    figure, (values, energy, gains) = pyplot().subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    for layer, name, style in zip(layers, names, kernel_styles([layer.kernel for layer in layers]), strict=True):
        sigma = scaled_singular_values(layer)
        gain = np.maximum(layer.gains.flatten(0, 1).numpy()[:, 1:], 1e-12)
        left = energy_to_come(layer)
        angles = np.linspace(0, np.pi, layer.gains.shape[-1])[1:]
        for panel, x, y in ((values, np.arange(1, sigma.shape[1] + 1), sigma), (gains, angles, gain)):
            panel.plot(x, np.median(y, axis=0), label=name, **style)
            panel.fill_between(x, *np.quantile(y, (0.25, 0.75), axis=0), color=style["color"], alpha=0.15, lw=0)
        energy.plot(np.arange(1, len(left) + 1), np.maximum(left, 1e-12), label=name, **style)
    values.set(yscale="log", title="Hankel singular values", xlabel="k", ylabel="σ_k / σ_1")
    energy.set(
        yscale="log", ylim=(1e-6, 1.5), title="What is still to come", xlabel="lag t, steps",
        ylabel="share of the energy at t or later",
    )  # fmt: skip
    gains.set(xscale="log", yscale="log", title="Transfer functions", xlabel="θ, radians per sample", ylabel="|G|")
    values.legend(frameon=False)
    figure.suptitle(title)
    save(figure, path, dpi=90)


def write_overlay(models: Models, out: Path) -> list[tuple[str, ...]]:
    """Write layer-1.png (.pdf, .svg), layer-2.png, …, index.html and inspection.json to ``out``.

    Args:
        models: in the order in which they are named; the layers at the same place are drawn together.
        out: made if absent.

    Returns:
        the table: headings, and a row for every layer of every run.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = titles(models)
    summaries = {run: {name: layer.summary() for name, layer in layers.items()} for run, layers in models.items()}
    (out / "inspection.json").write_text(json.dumps(summaries) + "\n", encoding="utf-8")
    pictures = {}
    for place in range(max(map(len, models.values()))):
        there = [(name, [*layers.values()]) for name, layers in zip(names, models.values(), strict=True)]
        drawn = [(name, layers[place]) for name, layers in there if place < len(layers)]
        heading, stem = f"Layer {place + 1}", f"layer-{place + 1}"
        draw([layer for _, layer in drawn], [name for name, _ in drawn], heading, out / f"{stem}.png")
        pictures[heading] = stem
    rows: list[tuple[str, ...]] = []
    for name, layers in zip(names, models.values(), strict=True):
        head, *lines = table(layers)
        rows = rows or [("run", *head)]
        rows += [(name, *line) for line in lines]
    write_page(out, f"Inspection of {', '.join(models)}", rows, pictures)
    return rows
