"""A sweep in one table: mean ± standard deviation over the seeds of every configuration, curves, a comparison."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hope_ssm.checks import check_choice
from hope_ssm.reporting.plots import FORMATS
from hope_ssm.reporting.tables import fitting, latex_table, markdown_table, plain_table, write_csv
from hope_ssm.workbench.reports import columns, comparison, curves
from hope_ssm.workbench.reports.rows import Row, rows, sharing
from hope_ssm.workbench.run_directory import DONE, RunDirectory
from hope_ssm.workbench.survey import left_out, survey

Table = list[list[str]]


def remarks(table: Sequence[Row], unfinished: Sequence[RunDirectory], damaged: Mapping[Path, str]) -> str:
    """Return what a reader of the table must know, in paragraphs."""
    text = "\nMean ± standard deviation over seeds; test metrics are those of the best checkpoint, "
    text += "or the last where nothing was validated.\n"
    for row in table:
        text += "".join(f"\n{row.label}: {note}.\n" for note in row.notes)
    text += sharing(table)
    if unfinished:
        listed = ", ".join(f"{run.path} ({run.state})" for run in unfinished)
        text += f"\nLeft out, not finished: {listed}.\n"
    return text + ("\n" + left_out(damaged) if damaged else "")


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


def _narrow(cells: Table, expendable: Sequence[str], width: int) -> str:
    """A table for a terminal, with a line that says which columns it has no room for."""
    shown, gone = fitting(cells, expendable, width)
    text = plain_table(shown, width)
    said = f"(no room here for: {', '.join(gone)}; the files have all)" if gone else ""
    return "\n".join([text, *textwrap.wrap(said, width)])


def write(
    directory: Path,
    out: Path,
    metric: str | None = None,
    baseline: str | None = None,
    asked: str | None = None,
    width: int = 80,
) -> str:
    """Write the report of all runs below a directory into ``out``.

    report.md and report.tex have the table, report.csv a line per configuration and runs.csv a line per run, unrounded;
    comparison.csv and comparison.tex the rows against a baseline; report.png, .pdf and .svg the curves.

    Args:
        directory: with runs below it.
        out: made if absent.
        metric: of the picture, that monitored by default.
        baseline: part of a label, against which the other rows are compared.
        asked: the columns, see ``columns.columns_of``; None for all, of which the text returned has those with room.
        width: of that text, in letters.

    Returns:
        what to print: the tables as plain text, what must be known of them, the files.

    Raises:
        ValueError: no runs, none finished, no such metric, column or baseline.
    """
    runs, damaged = survey(directory)
    finished = [run for run in runs if run.state in DONE and run.results]
    if not finished:
        states = ", ".join([f"{run.path} is {run.state}" for run in runs] + [f"{path} is damaged" for path in damaged])
        raise ValueError(f"the directory must hold finished runs; {states}.")
    table = rows(finished)
    shown = pictured(finished, metric)
    cells = columns.cells(table, columns.columns_of(table, asked))
    notes = remarks(table, [run for run in runs if run not in finished], damaged)
    pairs: list[comparison.Comparison] = []
    alone: list[Row] = []
    compared: Table = []
    if baseline is not None:
        pairs, alone = comparison.compare(table, baseline)
        compared = comparison.cells(pairs, columns.metrics_of(table))

    def text(render: Callable[[Table, Sequence[str]], str]) -> str:
        first = render(cells, () if asked else columns.EXPENDABLE) + "\n" + notes
        if baseline is None:
            return first
        second = render(compared, comparison.EXPENDABLE) + "\n" + comparison.remarks(pairs, alone)
        return f"{first}\n## Against {baseline}\n\n{second}"

    out.mkdir(parents=True, exist_ok=True)
    written = {"report.md": text(lambda found, _: markdown_table(found)), "report.tex": latex_table(cells) + "\n"}
    if len(compared) > 1:
        written["comparison.tex"] = latex_table(compared) + "\n"
    for name, content in written.items():
        (out / name).write_text(content, encoding="utf-8")
    files = [*written, *_write_numbers(table, finished, out)]
    if len(compared) > 1:
        write_csv(out / "comparison.csv", comparison.lines(pairs, columns.metrics_of(table)))
        files.append("comparison.csv")
    if shown is not None:
        curves.draw_curves(table, shown, out / "report.png")
        files += [f"report{ending}" for ending in FORMATS]
    printed = text(lambda found, expendable: _narrow(found, expendable, width))
    return f"{printed}\nWritten to {out}: {', '.join(files)}\n"


def _write_numbers(table: Sequence[Row], finished: Sequence[RunDirectory], out: Path) -> tuple[str, str]:
    """Write report.csv and runs.csv; return their names."""
    names = list(dict.fromkeys(name for run in finished for name in run.results))
    lines = []
    for row in table:
        line: dict[str, Any] = {"configuration": row.label, **row.settings}
        line |= {"seeds": len(row.runs), "d_state": row.d_state}
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
            {
                "configuration": row.label,
                **row.settings,
                "seed": run.config["train"]["seed"],
                "directory": run.path,
                **run.results,
            }
            for row, run in each
        ],
    )
    return "report.csv", "runs.csv"
