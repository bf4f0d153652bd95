"""What the four experiments share, and the list of them."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from types import ModuleType

from hope_ssm.reporting.plots import pyplot, save
from hope_ssm.reporting.tables import markdown_table

CLAIMS = ("rank", "training", "perturbation", "memory")


def claim(name: str) -> ModuleType:
    """Return the experiment: CLAIM, SEEDS, measure(seeds), rows(result), verdict(result), draw(result, axes)."""
    return importlib.import_module(f"hope_ssm.figures.{name}")


def run(name: str, seeds: int | None, out: Path) -> str:
    """Measure one claim, write NAME.png and NAME.json to ``out``, and return its part of the page, in Markdown."""
    experiment = claim(name)
    count = experiment.SEEDS if seeds is None else seeds
    start = time.perf_counter()
    result = experiment.measure(range(count))
    seconds = time.perf_counter() - start
    confirmed, why = experiment.verdict(result)
    verdict = f"{'Confirmed' if confirmed else 'Not confirmed'}: {why}"
    figure, axes = pyplot().subplots(1, 2, figsize=(11, 4), layout="constrained")
    experiment.draw(result, axes)
    save(figure, out / f"{name}.png", dpi=90)
    saved = {"claim": experiment.CLAIM, "confirmed": confirmed, "verdict": verdict, "seconds": seconds, "seeds": count}
    (out / f"{name}.json").write_text(json.dumps({**saved, **result}, indent=1) + "\n", encoding="utf-8")
    title = f"## {experiment.CLAIM}\n\n**{verdict}**\n\n![{name}]({name}.png)\n\n"
    return (
        title
        + markdown_table(experiment.rows(result))
        + f"\n\n({count} seeds, mean ± standard deviation; {seconds:.0f} s.)\n"
    )
