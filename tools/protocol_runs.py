"""The runs of the protocol of docs/results.md: those stored, the choice of settings, those to make, and making them."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import protocol_tasks
from protocol_tasks import TABLE, Task

ROOT = Path(__file__).parents[1]
STORE = ROOT / "docs" / "results"
COLUMNS = (
    "stage", "row", "settings", "seed", "validation", "test", "epochs", "steps", "epochs_to_90", "kernel_parameters",
    "commit", "curve",
)  # fmt: skip

NOT_FINITE = "the loss must stay finite"  # in what a run says whose loss does not

Record = dict[str, str]
Run = tuple[str, str, str, int]


def stored(name: str) -> list[Record]:
    """Return the finished runs of a task, in the order in which they ended; before them the trials of another task.

    These have ``Task.trials_of``.
    """
    other = protocol_tasks.TASKS[name].trials_of
    trials = [record for record in stored(other) if record["stage"] == "choice"] if other else []
    path = STORE / name / "runs.csv"
    if not path.is_file():
        return trials
    with path.open(newline="", encoding="utf-8") as file:
        return trials + list(csv.DictReader(file))


def chosen(task: Task, records: list[Record], row: str) -> str | None:
    """Return the settings with the best mean validation over the seeds for choosing; None before all are there."""
    settings = task.rows[row][1]
    if len(settings) == 1:
        return next(iter(settings))
    found: dict[str, dict[int, float]] = {one: {} for one in settings}
    for record in records:
        if record["stage"] == "choice" and record["row"] == row and record["settings"] in settings:
            found[record["settings"]][int(record["seed"])] = float(record["validation"])
    if any(not set(task.choosing) <= set(values) for values in found.values()):
        return None
    best = max if task.metric == "accuracy" else min
    return best(found, key=lambda one: statistics.fmean(found[one][seed] for seed in task.choosing))


def lacking(name: str, rows: Sequence[str] | None = None) -> list[Run]:
    """Return (stage, row, settings, seed) of the runs to make that nothing hinders: choices come before their row's.

    ``rows``: only these; None: all.
    """
    task, records = protocol_tasks.TASKS[name], stored(name)
    wanted = {row: task.rows[row][1] for row in (task.rows if rows is None else rows)}
    done = {(r["stage"], r["row"], r["settings"], int(r["seed"])) for r in records}
    plan = [] if task.trials_of else [
        ("choice", row, one, seed)
        for seed in task.choosing for row, settings in wanted.items() if len(settings) > 1 for one in settings
    ]  # fmt: skip
    ready = {row: chosen(task, records, row) for row in wanted}
    plan += [("table", row, one, seed) for seed in TABLE for row, one in ready.items() if one is not None]
    return [run for run in plan if run not in done]


def run_all(name: str, rows: Sequence[str]) -> None:
    """Make all runs that lack, those that fail once; wait for the last ones of other calls, which others depend on."""
    failed: set[Run] = set()
    while left := [run for run in lacking(name, rows) if run not in failed]:
        for one in left:
            with claimed(name, one) as free:
                if free and one in lacking(name, rows):
                    if not run(name, *one):
                        failed.add(one)
                    break
        else:
            time.sleep(10)


def directory_of(name: str, stage: str, row: str, settings: str, seed: int) -> Path:
    """Return the directory of a run."""
    folder = re.sub(r"[^a-z0-9]+", "-", f"{row} {settings}")
    return ROOT / "runs" / "protocol" / name / stage / folder / str(seed)


@contextlib.contextmanager
def claimed(name: str, run: Run) -> Iterator[bool]:
    """Whether no other call is making this run; it is then this call's until the block ends."""
    path = directory_of(name, *run).with_suffix(".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def run(name: str, stage: str, row: str, settings: str, seed: int) -> bool:
    """Make one run and append it to runs.csv; return whether it finished, or diverged after its first epoch."""
    task, directory = protocol_tasks.TASKS[name], directory_of(name, stage, row, settings, seed)
    overrides = [task.experiment, task.rows[row][0], task.rows[row][1][settings]]
    command = [
        *shlex.split(os.environ.get("RESULTS_RUNNER", "")),
        str(Path(sys.executable).with_name("hope")), "train", *shlex.split(" ".join(overrides)),
        f"train.seed={seed}", f"dataset.seed={seed}", "train.ckpt=auto", f"hydra.run.dir={directory}",
    ]  # fmt: skip
    print(f"{stage}: {row}, {settings}, seed {seed}", flush=True)
    with (report := directory.with_name(f"{seed}.log")).open("w", encoding="utf-8") as log:
        done = subprocess.run(
            command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
        )
    if done.returncode and not diverged(directory, report, task.metric):
        print(f"  did not finish, see {report}; the others go on.", flush=True)
        return False
    append(name, record_of(directory, task, stage, row, settings, seed))
    return True


def diverged(directory: Path, report: Path, metric: str) -> bool:
    """Whether a run that failed has a best epoch before its loss stopped being finite."""
    from hope_ssm.workbench.run_directory import RunDirectory

    found = [epoch.get(f"val/{metric}", math.nan) for epoch in RunDirectory(directory).epochs]
    return any(map(math.isfinite, found)) and NOT_FINITE in report.read_text(encoding="utf-8")


def record_of(directory: Path, task: Task, stage: str, row: str, settings: str, seed: int) -> Record:
    """Return what runs.csv says of a finished run directory, or of one that diverged: its best epoch is tested now."""
    from hope_ssm.workbench.evaluation import evaluate
    from hope_ssm.workbench.run_directory import RunDirectory

    finished = RunDirectory(directory)
    tests = finished.results or evaluate(directory)
    curve = [epoch[f"val/{task.metric}"] for epoch in finished.epochs if f"val/{task.metric}" in epoch]
    finite = filter(math.isfinite, curve)
    best = max(finite) if task.metric == "accuracy" else min(finite)
    info = finished.info
    return {
        "stage": stage, "row": row, "settings": settings, "seed": str(seed), "validation": f"{best:.5f}",
        "test": f"{tests[f'test/{task.metric}']:.5f}", "epochs": str(len(curve)),
        "steps": str(round(finished.epochs[-1]["step"])),
        "epochs_to_90": str(1 + next(i for i, value in enumerate(curve) if reached(value, best, task.metric))),
        "kernel_parameters": str(info["kernel_parameters"]),
        "commit": info["git"]["hope-ssm"]["commit"][:12],
        "curve": " ".join(f"{value:.4f}" for value in curve),
    }  # fmt: skip


def reached(value: float, best: float, metric: str) -> bool:
    """Whether a validation accuracy is 90 % of the best one, or an error at most 1.1 times the least."""
    return value >= 0.9 * best if metric == "accuracy" else value <= 1.1 * best


def append(name: str, record: Record) -> None:
    """Append one run to the stored file."""
    path = STORE / name / "runs.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(record)
