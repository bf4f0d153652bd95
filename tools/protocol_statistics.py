"""The statistics behind the tables of docs/results.md: intervals over seeds, differences, Holm's correction."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field

from protocol_runs import Record, chosen
from protocol_tasks import TABLE, Task

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


def moved(runs: list[Record], epochs: int) -> float:
    """How far the median over seeds of the validation metric moved over the last quarter of the epochs.

    A run that diverged stays where it ended.
    """
    curves = [[float(value) for value in run["curve"].split()] for run in runs]
    curves = [curve + curve[-1:] * (epochs - len(curve)) for curve in curves]
    middle = [statistics.median(curve[epoch] for curve in curves) for epoch in (epochs * 3 // 4 - 1, epochs - 1)]
    return middle[1] - middle[0]


def budget(records: list[Record]) -> int:
    """Return the epochs of a task: those of every run that did not diverge."""
    return max((int(record["epochs"]) for record in records), default=0)


def wins(difference: float, task: Task) -> bool:
    """Whether a difference of the task's metric is for the better."""
    return (difference > 0) == (task.metric == "accuracy")


@dataclass
class Difference:
    """A row against the first one of its table, paired by seed.

    Attributes:
        mean: of the differences.
        half: half of their 95 % interval.
        p: of the mean 0, after Holm's correction over the rows of the table.
    """

    mean: float
    half: float
    p: float

    @property
    def shown(self) -> bool:
        """Whether there is one, at 5 %."""
        return self.p < 0.05


@dataclass
class Row:
    """A complete row of a table.

    Attributes:
        name: the row.
        runs: those of the seeds of the table.
        mean: of the test results.
        half: half of its 95 % interval.
        moved: its validation over the last quarter of the epochs.
        difference: of the test results; None in the first row.
        epochs: of the epochs to 90 %; None in the first row.
    """

    name: str
    runs: list[Record] = field(repr=False)
    mean: float
    half: float
    moved: float
    difference: Difference | None = None
    epochs: Difference | None = None

    @property
    def parameters(self) -> int:
        """Of the kernels."""
        return int(self.runs[0]["kernel_parameters"])

    @property
    def epochs_to_90(self) -> float:
        """The median over seeds."""
        return statistics.median(int(run["epochs_to_90"]) for run in self.runs)

    def verdict(self, task: Task) -> str:
        """Return what Holm's correction leaves of the difference in test results; "–" in the first row."""
        if self.difference is None:
            return "–"
        if not self.difference.shown:
            return "no difference shown"
        if wins(self.difference.mean, task):
            return "better"
        return "worse so far" if task.metric == "accuracy" and self.moved >= MOVED else "worse"


def compared(task: Task, records: list[Record]) -> tuple[list[Row], list[str]]:
    """Return the complete rows, each compared with the task's first one if that is complete, and the open rows."""
    complete, open_rows = results(task, records)
    rows = []
    for name, runs in complete.items():
        tests = [float(run["test"]) for run in runs]
        mean, half, *_ = interval(tests, sampling_variance(task, statistics.fmean(tests)))
        rows.append(Row(name, runs, mean, half, moved(runs, budget(records))))
    if not rows or rows[0].name != next(iter(task.rows)):
        return rows, open_rows
    first, *others = rows
    for key, column, sampled in (("difference", "test", True), ("epochs", "epochs_to_90", False)):
        found = []
        for row in others:
            pairs = zip(row.runs, first.runs, strict=True)
            values = [float(one[column]) - float(other[column]) for one, other in pairs]
            found.append(interval(values, sampling_variance(task, row.mean, first.mean) if sampled else 0.0))
        for row, (mean, half, _), p in zip(others, found, holm([p for *_, p in found]), strict=True):
            setattr(row, key, Difference(mean, half, p))
    return rows, open_rows
