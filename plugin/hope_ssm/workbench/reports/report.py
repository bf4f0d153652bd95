"""A sweep in one table: mean ± standard deviation over the seeds of every configuration, curves, a comparison."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hope_ssm.checks import check_choice
from hope_ssm.reporting.tables import markdown_table, mean_and_deviation, write_csv
from hope_ssm.workbench.reports import comparison, curves
from hope_ssm.workbench.reports.rows import Row, rows, sharing
from hope_ssm.workbench.run_directory import DONE, RunDirectory
from hope_ssm.workbench.survey import left_out, survey

_SPEED, _MEMORY = "train/steps_per_second", "train/peak_memory_mib"


def _of_all(row: Row, metric: str, digits: int) -> str:
    """Mean and standard deviation of a metric, and of how many runs where some have none."""
    values = row.values(metric)
    text = mean_and_deviation(values, digits)
    return text if len(values) in (0, len(row.runs)) else f"{text} ({len(values)} of {len(row.runs)})"


def metrics_of(table: Sequence[Row]) -> list[str]:
    """Return the metrics to show: those of the test, or of the validation where nothing was tested."""
    names = dict.fromkeys(name for row in table for run in row.runs for name in run.results)
    return [n for n in names if n.startswith("test/")] or [n for n in names if n.startswith("val/")]


def markdown(table: Sequence[Row], unfinished: Sequence[RunDirectory]) -> str:
    """Return the table as Markdown, with what was left out below it."""
    metrics = metrics_of(table)
    header = [
        "configuration",
        "seeds",
        *metrics,
        "d_state",
        "parameters",
        "kernel parameters",
        "steps / s",
        "peak memory MiB",
    ]
    lines = [header]
    for row in table:
        lines.append(
            [
                row.label,
                str(len(row.runs)),
                *(_of_all(row, name, 4) for name in metrics),
                row.d_state,
                row.count("parameters"),
                row.count("kernel_parameters"),
                _of_all(row, _SPEED, 1),
                _of_all(row, _MEMORY, 0),
            ]
        )
    text = markdown_table(lines) + "\n"
    text += "\nMean ± standard deviation over seeds; test metrics are those of the best checkpoint, "
    text += "or the last where nothing was validated.\n"
    for row in table:
        text += "".join(f"\n{row.label}: {note}.\n" for note in row.notes)
    text += sharing(table)
    if unfinished:
        listed = ", ".join(f"{run.path} ({run.state})" for run in unfinished)
        text += f"\nLeft out, not finished: {listed}.\n"
    return text


def pictured(runs: Sequence[RunDirectory], metric: str | None) -> str | None:
    """Return the metric of the picture: the one asked for, or the first of monitor and losses that all runs have.

    Raises:
        ValueError: a metric that some run has not; the nearest is named.
    """
    known = set.intersection(*({name for line in run.epochs for name in line} for run in runs)) - {"epoch", "step"}
    if metric is not None:
        return check_choice("metric", metric, sorted(known))
    wanted = (runs[0].config["train"]["monitor"], "val/loss", "train/loss")
    return next((name for name in wanted if name in known), None)


def write(directory: Path, out: Path, metric: str | None = None, baseline: str | None = None) -> str:
    """Write report.md, report.csv (a line per configuration), runs.csv (a line per run) and report.png into ``out``.

    Args:
        directory: with runs below it.
        out: made if absent.
        metric: of the picture, that monitored by default.
        baseline: part of a label, against which the other rows are compared, in comparison.csv too.

    Returns:
        the Markdown.

    Raises:
        ValueError: no runs, none finished, no such metric or baseline.
    """
    runs, damaged = survey(directory)
    finished = [run for run in runs if run.state in DONE and run.results]
    if not finished:
        states = ", ".join([f"{run.path} is {run.state}" for run in runs] + [f"{path} is damaged" for path in damaged])
        raise ValueError(f"the directory must hold finished runs; {states}.")
    table = rows(finished)
    shown = pictured(finished, metric)
    text = markdown(table, [run for run in runs if run not in finished])
    text += "\n" + left_out(damaged) if damaged else ""
    compared: list[dict[str, Any]] = []
    if baseline is not None:
        pairs, alone = comparison.compare(table, baseline)
        text += comparison.markdown(pairs, alone, metrics_of(table), baseline)
        compared = comparison.lines(pairs, metrics_of(table))
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(text, encoding="utf-8")
    names = list(dict.fromkeys(name for run in finished for name in run.results))
    lines = []
    for row in table:
        line: dict[str, Any] = {"configuration": row.label, "seeds": len(row.runs), "d_state": row.d_state}
        line |= {name: row.runs[0].info.get(name) for name in ("parameters", "kernel_parameters")}
        for name in names:
            if values := row.values(name):
                line[f"{name} mean"] = statistics.fmean(values)
                line[f"{name} n"] = len(values)
                line[f"{name} sd"] = statistics.stdev(values) if len(values) > 1 else ""
        lines.append(line)
    write_csv(out / "report.csv", lines)
    each = [(row, run) for row in table for run in row.runs]
    write_csv(
        out / "runs.csv",
        [
            {"configuration": row.label, "seed": run.config["train"]["seed"], "directory": run.path, **run.results}
            for row, run in each
        ],
    )
    if compared:
        write_csv(out / "comparison.csv", compared)
    if shown is not None:
        curves.draw_curves(table, shown, out / "report.png")
    files = [
        "report.md",
        "report.csv",
        "runs.csv",
        *(["comparison.csv"] if compared else []),
        *(["report.png"] if shown else []),
    ]
    return f"{text}\nWritten to {out}: {', '.join(files)}\n"
