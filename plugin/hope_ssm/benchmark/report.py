"""The benchmark's table and picture."""

from __future__ import annotations

import math
from pathlib import Path

from hope_ssm.benchmark.measure import Measurement
from hope_ssm.reporting.plots import kernel_styles, pyplot, save
from hope_ssm.reporting.tables import markdown_table
from hope_ssm.reporting.timing import exponents

HEADINGS = ("contender", "forward, ms", "forward + backward, ms", "over {}", "memory, MB", "error, t ≥ 1")


def table(rows: list[Measurement], baseline: str) -> str:
    """Medians with their quartiles; how often the baseline's time and memory go into theirs; notes on the absent."""
    base = next((row for row in rows if row.name == baseline and row.seconds), None)
    lines = [[heading.format(baseline) for heading in HEADINGS]]
    for row in rows:
        if not row.absent:
            total = row.total
            ratio = f"{row.median(total) / base.median('forward+backward'):.2f}" if base else "–"
            both = _milliseconds(row, total) + (" (with the update)" if total == "step" else "")
            wrong = "–" if row.error is None else f"{row.error:.0e}"
            first = _milliseconds(row, "forward") if "forward" in row.seconds else "–"
            memory = f"{row.memory / 1e6:.1f}" if row.memory is not None else "–"
            lines.append([row.name, first, both, ratio, memory, wrong])
    notes = [f"{row.name} {row.absent}." for row in rows if row.absent]
    return markdown_table(lines) + ("\n\n" + "\n".join(notes) if notes else "")


def _milliseconds(row: Measurement, what: str) -> str:
    lower, upper = row.quartiles(what)
    return f"{1e3 * row.median(what):.3g} ({1e3 * lower:.3g}–{1e3 * upper:.3g})"


def curves(found: dict[int, list[Measurement]], quantity: str) -> dict[str, dict[int, float]]:
    """{contender: {size: seconds of forward + backward, or bytes}} of those that were timed."""
    lines: dict[str, dict[int, float]] = {}
    for size, rows in found.items():
        for row in rows:
            if row.seconds:
                value = row.memory if quantity == "memory" else row.median(row.total)
                lines.setdefault(row.name, {})[size] = max(float(value or 0), 1e-9)
    return lines


def growth(found: dict[int, list[Measurement]], symbol: str) -> str:
    """The fitted powers of a sweep, one line per contender."""
    time, memory = curves(found, "time"), curves(found, "memory")
    sizes = ", ".join(map(str, found))
    head = [f"contender, {symbol} = {sizes}", "time grows as", "memory grows as"]
    rows = [[name, *(f"{symbol}^{_exponent(points[name]):.2f}" for points in (time, memory))] for name in time]
    return markdown_table([head, *rows])


def _exponent(points: dict[int, float]) -> float:
    return float(exponents(list(points), list(points.values()))) if len(points) > 1 else math.nan


def _kernel(contender: str) -> str:
    """The kernel that a contender computes, with the rest of its name."""
    return "hope" if contender == "algorithm-1" else contender.removeprefix("host-")


def draw(sweeps: dict[str, dict[int, list[Measurement]]], title: str, path: Path) -> None:
    """Save time and memory of forward + backward against each swept size, log-log, with ticks at the sizes alone."""
    figure, axes = pyplot().subplots(2, len(sweeps), figsize=(6 * len(sweeps), 8), squeeze=False, layout="constrained")
    for column, (symbol, found) in enumerate(sweeps.items()):
        for panel, quantity, unit in ((axes[0][column], "time", "s"), (axes[1][column], "memory", "bytes")):
            lines = curves(found, quantity)
            for (name, points), style in zip(lines.items(), kernel_styles([*map(_kernel, lines)]), strict=True):
                panel.loglog(list(points), list(points.values()), marker="o", label=name, markersize=3, **style)
            panel.set(xlabel=symbol, ylabel=f"{quantity} of forward + backward, {unit}")
            panel.set_xticks(list(found), labels=[f"{size}" for size in found])
            panel.set_xticks([], minor=True)
            panel.grid(alpha=0.3, which="both", lw=0.4)
    axes[0][0].legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=9, wrap=True)
    save(figure, path)
