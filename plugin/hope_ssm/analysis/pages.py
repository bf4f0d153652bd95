"""An inspection as pictures and as one page: a picture per layer, a self-contained HTML, a JSON."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from hope_ssm.analysis.inspection import EPSILONS, LayerView
from hope_ssm.hankel import numerical_rank
from hope_ssm.reporting.plots import kernel_color, pyplot, save

STYLE = (
    "body{font:16px sans-serif;max-width:75em;margin:2em auto}img{width:100%}td,th{padding:.2em 1em;text-align:left}"
)


def scaled_singular_values(layer: LayerView) -> np.ndarray:
    """σ_k / σ_1 of all systems of a layer, (C H, n), 1e-17 at least."""
    sigma = layer.singular_values.flatten(0, 1).numpy()
    return np.maximum(sigma / np.maximum(sigma[:, :1], 1e-300), 1e-17)


def draw_layer(name: str, layer: LayerView, path: Path) -> None:
    """Save six panels of one layer: singular values, ranks, responses, gains, memory, sampling periods."""
    figure, ((values, ranks, memory), (responses, gains, periods)) = pyplot().subplots(
        2, 3, figsize=(15, 8), layout="constrained"
    )
    color = kernel_color(layer.kernel)
    sigma = scaled_singular_values(layer)
    order = np.arange(1, sigma.shape[1] + 1)
    values.fill_between(order, sigma.min(0), sigma.max(0), color=color, alpha=0.12, lw=0, label="all systems")
    values.fill_between(order, *np.quantile(sigma, (0.25, 0.75), axis=0), color=color, alpha=0.3, lw=0, label="half")
    values.semilogy(order, np.median(sigma, axis=0), color=color, label="median")
    values.set(title=f"Hankel singular values, from {layer.method}", xlabel="k", ylabel="σ_k / σ_1")
    values.legend(frameon=False)
    shown = [numerical_rank(layer.singular_values, epsilon).flatten().numpy() for epsilon in EPSILONS]
    ranks.boxplot(shown)
    ranks.set_xticks(range(1, 1 + len(EPSILONS)), [f"{epsilon:g}" for epsilon in EPSILONS])
    ranks.set(title="ε-rank: how many σ_k > ε σ_1", xlabel="ε", ylim=(0, sigma.shape[1] + 1))
    steps = layer.memory.flatten().numpy()
    length = layer.responses.shape[-1]
    memory.hist(steps, bins=min(30, len(steps)), color=color)
    memory.set(title="Memory: steps with 99 % of the energy", xlabel=f"steps, of {length}")
    chosen = [int(np.argsort(steps)[round(q * (len(steps) - 1))]) for q in (0, 0.5, 1)]
    for place, label in zip(chosen, ("shortest", "median", "longest"), strict=True):
        response = layer.responses.flatten(0, 1)[place].numpy()[1:]
        peak = np.abs(response).max(initial=1e-300)
        (line,) = responses.plot(np.arange(1, len(response) + 1), response / peak, lw=0.8, label=f"{label} memory")
        if layer.windows is not None:
            window = float(layer.windows[place % len(layer.windows)])
            if window < length:
                responses.axvline(window, color=line.get_color(), ls="--", lw=1)
        gain = layer.gains.flatten(0, 1)[place].numpy()
        gains.loglog(np.linspace(0, np.pi, len(gain))[1:], np.maximum(gain[1:], 1e-12), lw=0.8)
    dashed = "" if layer.windows is None else " (dashed: window n/Δt)"
    responses.set(title=f"Impulse responses, scaled, t ≥ 1{dashed}", xlabel="steps")
    responses.legend(frameon=False)
    gains.set(title="Transfer functions of the same", xlabel="θ, radians per sample", ylabel="|G|")
    if layer.sampling_periods is None:
        periods.set_axis_off()
    else:
        periods.hist(np.log10(layer.sampling_periods.numpy()), bins=30, color=color)
        periods.set(title="Sampling periods", xlabel="log₁₀ Δt")
    figure.suptitle(f"{name} ({layer.kernel})")
    save(figure, path, dpi=90)


def table(layers: Mapping[str, LayerView]) -> list[tuple[str, ...]]:
    """Return headings and one row per layer: medians over its systems."""
    ranks = tuple(f"rank, ε={epsilon:g}" for epsilon in EPSILONS)
    rows: list[tuple[str, ...]] = [("layer", "kernel", "d_state", *ranks, "largest σ", "memory", "Δt")]
    for name, layer in layers.items():
        sigma = layer.singular_values
        middle = (f"{numerical_rank(sigma, epsilon).double().median():g}" for epsilon in EPSILONS)
        periods = layer.sampling_periods
        dt = "–" if periods is None else f"{periods.min():.2g} … {periods.max():.2g}"
        largest, memory = f"{sigma.max():.3g}", f"{layer.memory.double().median():g}"
        rows.append((name, layer.kernel, str(sigma.shape[-1]), *middle, largest, memory, dt))
    return rows


def slug(name: str, taken: Collection[str]) -> str:
    """Return a file name of letters, digits, dots, dashes and underscores for a layer, not one of ``taken``."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip(".")[:100] or "layer"
    found, number = plain, 1
    while found.lower() in {other.lower() for other in taken}:
        number += 1
        found = f"{plain}-{number}"
    return found


def write_pages(layers: Mapping[str, LayerView], out: Path, title: str) -> None:
    """Write a picture per layer (see ``slug``), index.html with all of them inside, and inspection.json to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    summaries = {name: layer.summary() for name, layer in layers.items()}
    (out / "inspection.json").write_text(json.dumps(summaries) + "\n", encoding="utf-8")
    slugs: dict[str, str] = {}
    for name, layer in layers.items():
        slugs[name] = slug(name, slugs.values())
        draw_layer(name, layer, out / f"{slugs[name]}.png")
    write_page(out, title, table(layers), slugs)


def write_page(out: Path, title: str, rows: Sequence[Sequence[str]], pictures: Mapping[str, str]) -> None:
    """Write index.html: a table, and pictures inside the page.

    Args:
        out: where the pictures are.
        title: of the page.
        rows: of the table, the headings first.
        pictures: {heading: name of the PNG without its ending}.
    """
    head, *lines = rows
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in lines)
    parts = [f"<table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{cells}</table>"]
    for name, stem in pictures.items():
        data = base64.b64encode((out / f"{stem}.png").read_bytes()).decode()
        parts.append(f'<h2>{html.escape(name)}</h2><img alt="{html.escape(name)}" src="data:image/png;base64,{data}">')
    title = html.escape(title)
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1>{''.join(parts)}</html>\n"
    )
    (out / "index.html").write_text(page, encoding="utf-8")
