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
import protocol_tasks
from protocol_runs import ROOT, Record, stored
from protocol_statistics import MOVED, budget, compared, results
from protocol_tasks import Task

PAGE, README = ROOT / "docs" / "results.md", ROOT / "README.md"
IN_README = "short-tail"
ALL = "all tasks"  # the table of all tables
README_ROWS = (
    "hope", "s4d", "s4", "s4-hippo", "lru", "s4d-real", "hope, d_state 192", "conv, whole length", "conv, 64 taps",
    "probe, hope",
)  # fmt: skip


def units(task: Task) -> tuple[int, str, str]:
    """Return (factor, format, unit) in which results of a task are written."""
    return (100, ".1f", "%") if task.metric == "accuracy" else (1, ".4f", "error")


def replaced(name: str) -> bool:
    """Whether a task with more epochs has all its rows, so that of this one the trials alone count."""
    tasks = protocol_tasks.TASKS.items()
    return any(task.trials_of == name and not results(task, stored(longer))[1] for longer, task in tasks)


def table(name: str) -> str:
    """Return a task's table as Markdown, with what is still open; the trials alone of one that is replaced."""
    task, records = protocol_tasks.TASKS[name], stored(name)
    rows, open_rows = ([], []) if replaced(name) else compared(task, records)
    first, epochs_of_all = next(iter(task.rows)), budget(records)
    scale, form, unit = units(task)
    lines = [
        f"| row | settings | kernel parameters | test {unit} | against {first} | p, Holm | verdict "
        f"| epochs to 90 % | epochs against {first} | p of the epochs | moved at the end |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        gap, epochs, step = row.difference, row.epochs, row.moved
        cells = [row.name, row.runs[0]["settings"], f"{row.parameters:,}"]
        cells.append(f"{scale * row.mean:{form}} ± {scale * row.half:{form}}")
        cells += [f"{scale * gap.mean:+{form}} ± {scale * gap.half:{form}}", f"{gap.p:.2g}"] if gap else ["–", "–"]
        cells += [row.verdict(task), f"{row.epochs_to_90:g}"]
        cells += [f"{epochs.mean:+.1f} ± {epochs.half:.1f}", f"{epochs.p:.2g}"] if epochs else ["–", "–"]
        still = " (still moving)" if task.metric == "accuracy" and abs(step) >= MOVED else ""
        short = sum(int(run["epochs"]) < epochs_of_all for run in row.runs)
        short_of = f", {short} of {len(row.runs)} diverged" if short else ""
        lines.append(f"| {' | '.join([*cells, f'{scale * step:+{form}}{still}{short_of}'])} |")
    text = "\n".join(lines) if rows else "No row is complete yet." if open_rows else "The table has twice the epochs."
    if open_rows:
        text += f"\n\nNot complete yet, so not in the table: {'; '.join(open_rows)}."
    trials = [r for r in records if r["stage"] == "choice"]
    if task.trials_of:
        text += f"\n\nThe settings are those chosen for {task.trials_of}, with half of the epochs."
    elif trials:
        text += "\n\n" + choices(task, trials, epochs_of_all)
    if rows:
        text += f"\n\n![Validation of every run over the epochs](results/{name}/curves.png)"
    return text


def overview() -> str:
    """Return all tables in one as Markdown: a line per row, a column per task, what is shown against its first row.

    Epochs are compared where results are not shown to differ: elsewhere they lead to different places.
    """
    tasks, cells = {}, defaultdict(dict)
    for name, task in protocol_tasks.TASKS.items():
        if replaced(name):
            continue
        rows = compared(task, stored(name))[0]
        scale, form, unit = units(task)
        for row in rows:
            cell, epochs = f"{scale * row.mean:{form}}", f"{row.epochs_to_90:g}"
            if row.difference and row.difference.shown:
                cell += f" {row.verdict(task)}"
            elif row.epochs and row.epochs.shown:
                epochs += ", later" if row.epochs.mean > 0 else ", sooner"
            cells[row.name][name] = f"{cell} ({epochs})"
        if rows:
            tasks[name] = f"{name}, {unit}"
    order = list(dict.fromkeys(row for task in protocol_tasks.TASKS.values() for row in task.rows))
    lines = [f"| row | {' | '.join(tasks.values())} |", "| --- " * (1 + len(tasks)) + "|"]
    lines += [f"| {row} | {' | '.join(cells[row].get(name, '–') for name in tasks)} |" for row in order if row in cells]
    return "\n".join(lines)


def summary(name: str) -> str:
    """Return the README's part of a table: some rows, with parameters, test, verdict, epochs to 90 % and p of these."""
    task = protocol_tasks.TASKS[name]
    if not results(task, stored(name))[0]:
        return "No row is complete yet."
    heading, dashes, *rows = [line.split(" | ") for line in table(name).split("\n\n")[0].splitlines()]
    chosen_rows = [row for row in rows if row[0].removeprefix("| ") in README_ROWS]
    kept = [[line[0], *line[2:4], line[6], line[7], line[9]] for line in (heading, dashes, *chosen_rows)]
    return "\n".join(" | ".join(cells) + " |" for cells in kept)


def choices(task: Task, trials: list[Record], epochs: int) -> str:
    """Return the trials for choosing settings as Markdown: best validation of each seed."""
    scale, form, _ = units(task)
    found: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for trial in trials:
        end = ", diverged" if int(trial["epochs"]) < epochs else ""
        cell = f"{scale * float(trial['validation']):{form}}{end}"
        found[trial["row"], trial["settings"]][int(trial["seed"])] = cell
    seeds = [f"seed {seed}" for seed in task.choosing]
    lines = [f"| trial | settings | {' | '.join(seeds)} |", "| --- " * (2 + len(seeds)) + "|"]
    for row, (_, settings) in task.rows.items():
        for one in settings:
            if (row, one) in found:
                cells = [found[row, one].get(seed, "–") for seed in task.choosing]
                lines.append(f"| {' | '.join([row, one, *cells])} |")
    return "Best validation of the trials from which the settings are chosen:\n\n" + "\n".join(lines)


def picture(name: str) -> None:
    """Draw the validation curves of every run in the table; remove what was drawn of one that is replaced."""
    from hope_ssm.reporting.plots import kernel_color, pyplot

    task = protocol_tasks.TASKS[name]
    complete, _ = results(task, stored(name))
    path = protocol_runs.STORE / name / "curves.png"
    if not complete or replaced(name):
        path.unlink(missing_ok=True)
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
    figure.savefig(path, dpi=80)


def memory_picture(rows: tuple[str, ...] = ("hope", "s4d", "s4"), gap: int = 160) -> None:
    """Draw README's picture from the models in the table ``IN_README``; store its numbers at ``gap`` beside the runs.

    It needs their run directories, which are not part of the repository, and says so where one is missing.
    """
    from hope_ssm.figures.memory_experiment import HOP, Setting, energy_to_come
    from hope_ssm.figures.memory_picture import draw
    from hope_ssm.workbench.evaluation import load

    name, settings, lines = IN_README, [], ["row,band,mean,deviation"]
    complete, _ = results(protocol_tasks.TASKS[name], stored(name))
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


def page(text: str, table: Callable[[str], str]) -> str:
    """Return the page with every table between its two markers made from the stored runs."""
    for name in (*protocol_tasks.TASKS, ALL):
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
    for name in protocol_tasks.TASKS:
        if stored(name) and not all(f"<!-- {words} {name} -->" in text for words in ("results of", "end of")):
            raise ValueError(f"{PAGE.name} must have a place for docs/results/{name}/runs.csv; add its two markers.")
    whole = page(text, lambda name: overview() if name == ALL else table(name))
    return {PAGE: whole, README: page(README.read_text(encoding="utf-8"), summary)}
