"""What the four experiments share, and the list of them."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

CLAIMS = ("rank", "training", "perturbation", "memory")
COLORS = ("#0000a7", "#008176", "#b58900", "#7b3294", "#888888")
HOPE_COLOR = "#c1272d"


def claim(name: str) -> ModuleType:
    """Return the experiment: CLAIM, SEEDS, measure(seeds), rows(result), verdict(result), draw(result, axes)."""
    return importlib.import_module(f"hope_ssm.figures.{name}")


def spread(values: Sequence[float] | np.ndarray, digits: int = 2) -> str:
    """Mean ± standard deviation over seeds, as text."""
    return f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=len(values) > 1):.{digits}f}"


def exponents(sizes: Sequence[int], values: np.ndarray) -> np.ndarray:
    """β of the least-squares line  log y = β log x + c.  Args: sizes (K,); values (seeds, K).  Returns: (seeds,)."""
    return np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-300)).T, 1)[0]


def band(axes: Any, x: Sequence[float] | np.ndarray, values: np.ndarray, **style: Any) -> None:
    """Draw mean ± standard deviation over seeds.  Args: x (K,); values (seeds, K)."""
    mean, deviation = values.mean(0), values.std(0, ddof=len(values) > 1)
    (line,) = axes.plot(x, mean, **style)
    below = np.maximum(mean - deviation, 1e-3 * np.abs(mean))  # for logarithmic axes
    axes.fill_between(x, below, mean + deviation, color=line.get_color(), alpha=0.15, lw=0)


def run(name: str, seeds: int | None, out: Path) -> str:
    """Measure one claim, write NAME.png and NAME.json to ``out``, and return its part of the page, in Markdown."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    experiment = claim(name)
    count = experiment.SEEDS if seeds is None else seeds
    start = time.perf_counter()
    result = experiment.measure(range(count))
    seconds = time.perf_counter() - start
    confirmed, why = experiment.verdict(result)
    verdict = f"{'Confirmed' if confirmed else 'Not confirmed'}: {why}"
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    experiment.draw(result, axes)
    figure.savefig(out / f"{name}.png", dpi=90)
    pyplot.close(figure)
    saved = {"claim": experiment.CLAIM, "confirmed": confirmed, "verdict": verdict, "seconds": seconds, "seeds": count}
    (out / f"{name}.json").write_text(json.dumps({**saved, **result}, indent=1) + "\n", encoding="utf-8")
    head, *rows = experiment.rows(result)
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    title = f"## {experiment.CLAIM}\n\n**{verdict}**\n\n![{name}]({name}.png)\n\n"
    return title + "\n".join(lines) + f"\n\n({count} seeds, mean ± standard deviation; {seconds:.0f} s.)\n"
