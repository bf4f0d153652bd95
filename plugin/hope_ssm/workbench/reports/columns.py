"""The columns of a report: which there are, which are shown, and which go first where the room is short."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hope_ssm.checks import nearest
from hope_ssm.reporting.tables import mean_and_deviation
from hope_ssm.workbench.reports.names import heading, scale
from hope_ssm.workbench.reports.rows import Row

ALL = "all"
# Those that go where the room is short, the first first.
EXPENDABLE = ("peak memory, MiB", "steps / s", "d_state", "kernel parameters", "parameters", "seeds")


@dataclass(frozen=True)
class Column:
    """A heading, and the cell of a row below it."""

    heading: str
    cell: Callable[[Row], str]


def _of_all(row: Row, metric: str, digits: int, factor: float = 1.0) -> str:
    """Mean and standard deviation of a metric, and of how many runs where some have none."""
    values = row.values(metric)
    text = mean_and_deviation(values, digits, factor)
    return text if len(values) in (0, len(row.runs)) else f"{text} ({len(values)} of {len(row.runs)})"


def _metric(name: str) -> Column:
    factor, digits = scale(name)
    return Column(heading(name), lambda row: _of_all(row, name, digits, factor))


SIZES = {
    "seeds": Column("seeds", lambda row: str(len(row.runs))),
    "d_state": Column("d_state", lambda row: row.d_state),
    "parameters": Column("parameters", lambda row: row.count("parameters")),
    "kernel_parameters": Column("kernel parameters", lambda row: row.count("kernel_parameters")),
    "steps_per_second": Column("steps / s", lambda row: _of_all(row, "train/steps_per_second", 1)),
    "peak_memory_mib": Column("peak memory, MiB", lambda row: _of_all(row, "train/peak_memory_mib", 0)),
}


def metrics_of(table: Sequence[Row]) -> list[str]:
    """Return the metrics to show: those of the test, or of the validation where nothing was tested."""
    names = _results(table)
    return [n for n in names if n.startswith("test/")] or [n for n in names if n.startswith("val/")]


def _results(table: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in table for run in row.runs for name in run.results))


def columns_of(table: Sequence[Row], asked: str | None = None) -> list[Column]:
    """Return the columns that are asked for, after that of the configuration.

    Args:
        table: the rows.
        asked: names, separated by commas: ``seeds``, ``d_state``, ``parameters``, …, or metrics, with or without their
            ``test/``; ``"all"`` or None: all of these that are
            known, with the metrics of the test.

    Raises:
        ValueError: a column that there is not; the nearest is named.
    """
    first = Column("configuration", lambda row: row.label)
    metrics = metrics_of(table)
    known = {**SIZES, **{name: _metric(name) for name in _results(table)}}
    known |= {name.split("/")[-1]: known[name] for name in metrics}
    if asked is None or asked == ALL:
        sizes = [name for name, column in SIZES.items() if any(column.cell(row) != "–" for row in table)]
        names = [sizes[0], *metrics, *sizes[1:]]
        return [first, *(known[name] for name in names)]
    chosen = [name.strip() for name in asked.split(",") if name.strip()]
    for name in chosen:
        if name not in known:
            listed = ", ".join(known)
            raise ValueError(f"--columns must be names of {listed}; got {name!r}.{nearest(name, known)}")
    return [first, *(known[name] for name in dict.fromkeys(chosen))]


def cells(table: Sequence[Row], columns: Sequence[Column]) -> list[list[str]]:
    """Return the headings, and a line for every row."""
    return [[column.heading for column in columns], *([column.cell(row) for column in columns] for row in table)]
