"""Tables, statistics and pictures of docs/results.md and README from the stored runs of the protocol."""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import protocol_runs
from protocol_runs import ROOT, TABLE, Record, Task, chosen, stored

PAGE, README = ROOT / "docs" / "results.md", ROOT / "README.md"
IN_README = "short-tail"
README_ROWS = (
    "hope", "s4d", "s4", "s4-hippo", "lru", "s4d-real", "hope, d_state 192", "conv, whole length", "conv, 64 taps",
    "probe, hope",
)  # fmt: skip
MOVED = 0.005  # of an accuracy: what the median may still move over the last quarter of the epochs


def holm(p: list[float]) -> list[float]:
    """Holm's step-down adjustment: p_(i) ← max over j ≤ i of (m - j + 1) p_(j), at most 1.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    order = sorted(range(len(p)), key=p.__getitem__)
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, (len(p) - rank) * p[index])
        adjusted[index] = min(1.0, largest)
    return adjusted


def interval(values: list[float], sampling: float) -> tuple[float, float, float]:
    """Return (mean, half a 95 % interval, p of the mean 0) by Student's t over seeds.

    The variance of one seed is at least ``sampling``, that of the test set's choice.
    """
    from scipy.stats import t

    n = len(values)
    mean = statistics.fmean(values)
    error = math.sqrt(max(statistics.variance(values), sampling) / n)
    half = float(t.ppf(0.975, n - 1)) * error
    return mean, half, float(2 * t.sf(abs(mean) / error, n - 1)) if error else float(mean == 0)


def sampling_variance(task: Task, *means: float) -> float:
    """p (1 - p) / m of an accuracy in m test samples, added up over rows as if their errors were independent."""
    return sum(mean * (1 - mean) for mean in means) / task.tests if task.tests else 0.0


def results(task: Task, records: list[Record]) -> tuple[dict[str, list[Record]], list[str]]:
    """Return the runs of the complete rows (all seeds at the chosen settings), and the rows that are not complete."""
    complete, open_rows = {}, []
    for row in task.rows:
        settings = chosen(task, records, row)
        own = {
            int(r["seed"]): r
            for r in records
            if r["stage"] == "table" and r["row"] == row and r["settings"] == settings
        }
        if settings is not None and set(TABLE) <= set(own):
            complete[row] = [own[seed] for seed in TABLE]
        else:
            open_rows.append(row)
    return complete, open_rows


def moved(runs: list[Record]) -> float:
    """How far the median over seeds of the validation metric moved over the last quarter of the epochs."""
    curves = [[float(value) for value in run["curve"].split()] for run in runs]
    last = min(map(len, curves))
    middle = [statistics.median(curve[epoch] for curve in curves) for epoch in (last * 3 // 4 - 1, last - 1)]
    return middle[1] - middle[0]


def table(name: str) -> str:
    """Return a task's table as Markdown, with what is still open."""
    task, records = protocol_runs.TASKS[name], stored(name)
    complete, open_rows = results(task, records)
    percent = task.metric == "accuracy"
    scale, form = (100, ".1f") if percent else (1, ".4f")
    first = next(iter(task.rows))
    compared = [row for row in complete if row != first] if first in complete else []
    differences, raw, sooner = {}, [], {}
    for row in compared:
        epochs = [[int(run["epochs_to_90"]) for run in complete[one]] for one in (row, first)]
        sooner[row] = interval([a - b for a, b in zip(*epochs, strict=True)], 0.0)
        values = [float(a["test"]) - float(b["test"]) for a, b in zip(complete[row], complete[first], strict=True)]
        means = [statistics.fmean(float(run["test"]) for run in complete[one]) for one in (row, first)]
        differences[row] = interval(values, sampling_variance(task, *means))
        raw.append(differences[row][2])
    adjusted = dict(zip(compared, holm(raw), strict=True))
    adjusted_epochs = dict(zip(compared, holm([sooner[row][2] for row in compared]), strict=True))
    unit = "%" if percent else "error"
    lines = [
        f"| row | settings | kernel parameters | test {unit} | against {first} | p, Holm | verdict "
        f"| epochs to 90 % | epochs against {first} | p of the epochs | moved at the end |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row, runs in complete.items():
        tests = [float(run["test"]) for run in runs]
        mean, half, _ = interval(tests, sampling_variance(task, statistics.fmean(tests)))
        cells = [row, runs[0]["settings"], f"{int(runs[0]['kernel_parameters']):,}"]
        cells.append(f"{scale * mean:{form}} ± {scale * half:{form}}")
        if row in adjusted:
            gap, width, _ = differences[row]
            sure = adjusted[row] < 0.05
            better = (gap > 0) == percent
            cells += [f"{scale * gap:+{form}} ± {scale * width:{form}}", f"{adjusted[row]:.2g}"]
            cells.append(("better" if better else "worse") if sure else "no difference shown")
        else:
            cells += ["–", "–", "–"]
        cells.append(f"{statistics.median(int(run['epochs_to_90']) for run in runs):g}")
        if row in adjusted:
            cells += [f"{sooner[row][0]:+.1f} ± {sooner[row][1]:.1f}", f"{adjusted_epochs[row]:.2g}"]
        else:
            cells += ["–", "–"]
        step = moved(runs)
        still = " (still moving)" if percent and abs(step) >= MOVED else ""
        lines.append(f"| {' | '.join([*cells, f'{scale * step:+{form}}{still}'])} |")
    text = "\n".join(lines) if complete else "No row is complete yet."
    if open_rows:
        text += f"\n\nNot complete yet, so not in the table: {'; '.join(open_rows)}."
    trials = [r for r in records if r["stage"] == "choice"]
    if trials:
        text += "\n\n" + choices(task, trials)
    if complete:
        text += f"\n\n![Validation of every run over the epochs](results/{name}/curves.png)"
    return text


def summary(name: str) -> str:
    """Return the README's part of a table: some rows, with parameters, test, verdict, epochs to 90 % and p of these."""
    task = protocol_runs.TASKS[name]
    if not results(task, stored(name))[0]:
        return "No row is complete yet."
    heading, dashes, *rows = [line.split(" | ") for line in table(name).split("\n\n")[0].splitlines()]
    chosen_rows = [row for row in rows if row[0].removeprefix("| ") in README_ROWS]
    kept = [[line[0], *line[2:4], line[6], line[7], line[9]] for line in (heading, dashes, *chosen_rows)]
    return "\n".join(" | ".join(cells) + " |" for cells in kept)


def choices(task: Task, trials: list[Record]) -> str:
    """Return the trials for choosing settings as Markdown: best validation of each seed."""
    percent = task.metric == "accuracy"
    scale, form = (100, ".1f") if percent else (1, ".4f")
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for trial in trials:
        found[trial["row"], trial["settings"]][int(trial["seed"])] = float(trial["validation"])
    seeds = [f"seed {seed}" for seed in task.choosing]
    lines = [f"| trial | settings | {' | '.join(seeds)} |", "| --- " * (2 + len(seeds)) + "|"]
    for row, (_, settings) in task.rows.items():
        for one in settings:
            if (row, one) in found:
                cells = [f"{scale * found[row, one][s]:{form}}" if s in found[row, one] else "–" for s in task.choosing]
                lines.append(f"| {' | '.join([row, one, *cells])} |")
    return "Best validation of the trials from which the settings are chosen:\n\n" + "\n".join(lines)


def picture(name: str) -> None:
    """Draw the validation curves of every run in the table."""
    from hope_ssm.reporting.plots import kernel_color, pyplot

    task = protocol_runs.TASKS[name]
    complete, _ = results(task, stored(name))
    if not complete:
        return
    columns = min(4, len(complete))
    shape = (math.ceil(len(complete) / columns), columns)
    figure, axes = pyplot().subplots(
        *shape, figsize=(3 * shape[1], 2.2 * shape[0]), squeeze=False, sharex=True, sharey=True
    )
    for axis, (row, runs) in zip(axes.flat, complete.items(), strict=False):
        for one in runs:
            curve = [float(value) for value in one["curve"].split()]
            axis.plot(range(1, len(curve) + 1), curve, linewidth=0.8, color=kernel_color(row.split(",")[0]), alpha=0.6)
        axis.set_title(row, fontsize=9)
        axis.set_yscale("linear" if task.metric == "accuracy" else "log")
    for axis in axes.flat[len(complete) :]:
        axis.set_axis_off()
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel(f"validation {task.metric}", fontsize=9)
    figure.tight_layout()
    figure.savefig(protocol_runs.STORE / name / "curves.png", dpi=80)


def memory_picture(rows: tuple[str, ...] = ("hope", "s4d", "s4"), gap: int = 160) -> None:
    """Draw README's picture from the models in the table ``IN_README``; store its numbers at ``gap`` beside the runs.

    It needs their run directories, which are not part of the repository, and says so where one is missing.
    """
    from hope_ssm.figures.memory_experiment import HOP, Setting, energy_to_come
    from hope_ssm.figures.memory_picture import draw
    from hope_ssm.workbench.evaluation import load

    name, settings, lines = IN_README, [], ["row,band,mean,deviation"]
    complete, _ = results(protocol_runs.TASKS[name], stored(name))
    for row in rows:
        runs = complete.get(row, [])
        places = [protocol_runs.directory_of(name, "table", row, run["settings"], int(run["seed"])) for run in runs]
        if not places or not all(place.is_dir() for place in places):
            print(f"README's picture stays as it is: it needs the run directories of {row} in runs/protocol/{name}.")
            return
        models = [load(place).model for place in places]
        energy = [energy_to_come([block.layer.layer.kernel for block in m.layers], 512) for m in models]
        for band in energy[0]:
            shares = [one[band][gap // HOP] for one in energy]
            lines.append(f"{row},{band},{statistics.fmean(shares):.4f},{statistics.stdev(shares):.4f}")
        curves = [[float(value) for value in run["curve"].split()] for run in runs]
        settings.append(Setting(row, [], curves=curves, energy=energy))
    (protocol_runs.STORE / name / "energy.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        draw(settings, gap, Path(folder) / "memory.png")
        shutil.copyfile(Path(folder) / "memory.png", README.with_name("docs") / "memory-experiment.png")


def page(text: str, table: Callable[[str], str] = table) -> str:
    """Return the page with every table between its two markers made from the stored runs."""
    for name in protocol_runs.TASKS:
        start, end = f"<!-- results of {name} -->", f"<!-- end of {name} -->"
        if start in text and end in text:
            before, rest = text.split(start)
            text = f"{before}{start}\n\n{table(name)}\n\n{end}{rest.split(end)[1]}"
    return text


def made() -> dict[Path, str]:
    """Return both pages as they must be: all of every table in PAGE, its main columns where README has its markers.

    Raises:
        ValueError: a stored sweep has no place on PAGE.
    """
    text = PAGE.read_text(encoding="utf-8")
    for name in protocol_runs.TASKS:
        if stored(name) and not all(f"<!-- {words} {name} -->" in text for words in ("results of", "end of")):
            raise ValueError(f"{PAGE.name} must have a place for docs/results/{name}/runs.csv; add its two markers.")
    return {PAGE: page(text), README: page(README.read_text(encoding="utf-8"), summary)}
