"""The tasks of the protocol of docs/results.md, their stored runs, the choice of settings, and the runs themselves."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import itertools
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
STORE = ROOT / "docs" / "results"
TABLE = (0, 1, 2, 3, 4)  # seeds
COLUMNS = (
    "stage", "row", "settings", "seed", "validation", "test", "epochs", "steps", "epochs_to_90", "kernel_parameters",
    "commit", "curve",
)  # fmt: skip

NOT_FINITE = "the loss must stay finite"  # in what a run says whose loss does not

RATES = {"published": "", "global": " ".join(f"++model.layer.lr.{key}=null" for key in ("dt", "A", "B", "C"))}
# One range of Δt for everybody, that of S4 and S4D in their papers. HOPE's own follows from the sequences' length.
PERIODS = {"own": "", "common": "model.layer.dt_min=0.001 model.layer.dt_max=0.1"}
RATES_OF_RTF = {"published": "++model.layer.lr.A=0.001 ++model.layer.lr.C=0.001", "global": ""}
STARTS = {"zeros": "", "xavier": "model.layer.start=xavier"}


def grid(*axes: dict[str, str]) -> dict[str, str]:
    """Return {settings: overrides} of all combinations."""
    return {
        ", ".join(choice): " ".join(filter(None, (axis[name] for axis, name in zip(axes, choice, strict=True))))
        for choice in itertools.product(*axes)
    }


@dataclass(frozen=True)
class Task:
    """One table.

    Attributes:
        experiment: overrides of all rows.
        rows: {row: (overrides, {settings: overrides} to choose from)}; the first is what the others are compared with.
        metric: of validation and test.
        tests: samples of the test set where the metric is an accuracy, for its sampling error.
        choosing: the seeds of the trials from which settings are chosen.
    """

    experiment: str
    rows: dict[str, tuple[str, dict[str, str]]]
    metric: str = "accuracy"
    tests: int | None = None
    choosing: tuple[int, ...] = (100, 101)


BOTH = grid(RATES, PERIODS)


def kernels(length: int) -> dict[str, tuple[str, dict[str, str]]]:
    """Return {kernel: (overrides, settings)} for sequences of ``length`` steps.

    The common range of Δt is what S4's and S4D's own already is, so the second half of their trials has HOPE's own,
    n/(16 L) to 2 n/L with n = 64.
    """
    hopes = f"model.layer.dt_min={4 / length!r} model.layer.dt_max={128 / length!r}"
    other = grid(RATES, {"own": "", "hope's": hopes})
    return {
        "hope": ("kernel=hope", BOTH),
        "s4d": ("kernel=s4d", other),
        "s4": ("kernel=s4", other),
        "s4-hippo": ("kernel=s4-hippo", other),
        "lru": ("kernel=lru", grid(RATES)),
        "s4d-real": ("kernel=s4d-real", other),
        "dss": ("kernel=dss", other),
        "stable": ("kernel=stable", other),
        "rtf": ("kernel=rtf", grid(RATES_OF_RTF, STARTS)),
    }


DIGITS = kernels(256)
FREE = {
    "conv, whole length": ("kernel=conv", grid({"global": ""})),
    "conv, 64 taps": ("kernel=conv model.layer.l_max=64", grid({"global": ""})),
}
# HOPE at S4D's number of parameters: 3n + 1 of a feature, and 4n + 1 where HOPE has 2n + 1, in both directions.
LARGE, TWO_WAYS = ({f"hope, d_state {n}": (f"kernel=hope model.layer.d_state={n}", BOTH)} for n in (192, 128))
# Bands: frequencies have a learning rate of their own; they begin side by side from 0, or half of them anywhere.
RATES_OF_BANDS = {name: f"{text} ++model.layer.lr.frequency=null" if text else "" for name, text in RATES.items()}
BANDS = {
    "hope-bands": (
        "kernel=hope-bands",
        grid(RATES_OF_BANDS, {"from 0": "", "half scattered": "model.layer.scattered_share=0.5"}),
    )
}
# What a linear readout finds in the outputs of layers that stay as they began.
PROBES = {
    f"probe, {name}": (f"{({**DIGITS, **FREE})[name][0]} train.frozen=[encoder,model]", grid({"untrained": ""}))
    for name in ("hope", "s4d", "conv, 64 taps")
}
# Other layers of the family; with the filter the initial frequencies may be α times as high.
FILTER, MEMORY = "+model.layer.frequency_filter.exponent=0", "+model.layer.input_memory.size=4"
SCALES = {f"α = {scale}": f"+model.layer.imag_scale={scale}" for scale in (1, 3, 5)}
HEADS = {f"{heads} heads": f"model.layer.heads={heads} model.layer.d_state={128 // heads}" for heads in (4, 16)}
LAYERS = {
    "s4d with filter": (f"kernel=s4d {FILTER}", SCALES),
    "hope with filter": (f"kernel=hope {FILTER}", BOTH),
    "s4d with memory": (f"kernel=s4d {MEMORY}", DIGITS["s4d"][1]),
    "hope with memory": (f"kernel=hope {MEMORY}", BOTH),
    "essm": ("model/layer=essm", HEADS),
}
TASKS = {
    "short-tail": Task(
        "experiment=hope/noisy-digits decoder.l_tail=32 trainer.max_epochs=60",
        {**DIGITS, **FREE, **LARGE, **PROBES, **BANDS, **LAYERS},
        tests=359,
    ),
    "mnist": Task(
        "experiment=hope/noisy-mnist-small decoder.l_tail=32 dataset.l_noise=188 model.d_model=16 "
        "trainer.max_epochs=40",
        {**kernels(384), **FREE, **LARGE, **BANDS},
        tests=1000,
        choosing=(100,),
    ),
    "listops": Task(
        "experiment=hope/lra-listops-small dataset.size=12500 dataset.val_split=0.08 dataset.test_split=0.16 "
        "trainer.max_epochs=10",
        {**kernels(128), "conv, whole length": FREE["conv, whole length"], **LARGE, **BANDS},
        tests=2000,
        choosing=(100,),
    ),
    "pathfinder": Task(
        "experiment=hope/lra-pathfinder-small model.layer.bidirectional=true dataset.size=24000 model.d_model=16 "
        "trainer.max_epochs=16",
        {**kernels(256), "conv, whole length": FREE["conv, whole length"], **TWO_WAYS, **BANDS},
        tests=2400,
        choosing=(100,),
    ),
    "delay": Task(
        "experiment=hope/delay-small trainer.max_epochs=40",
        {**kernels(512), "conv, whole length": FREE["conv, whole length"], **LARGE, **BANDS},
        metric="loss",
    ),
    "tones": Task(
        "experiment=hope/tones trainer.max_epochs=40",
        {**{name: kernels(512)[name] for name in ("hope", "s4d", "s4", "lru")}, **LARGE, **BANDS},
        tests=1000,
    ),
}


Record = dict[str, str]
Run = tuple[str, str, str, int]


def stored(name: str) -> list[Record]:
    """Return the finished runs of a task, in the order in which they ended."""
    path = STORE / name / "runs.csv"
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
    task, records = TASKS[name], stored(name)
    wanted = {row: task.rows[row][1] for row in (task.rows if rows is None else rows)}
    done = {(r["stage"], r["row"], r["settings"], int(r["seed"])) for r in records}
    plan = [
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
    task, directory = TASKS[name], directory_of(name, stage, row, settings, seed)
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
    if done.returncode and not diverged(directory, report):
        print(f"  did not finish, see {report}; the others go on.", flush=True)
        return False
    append(name, record_of(directory, task, stage, row, settings, seed))
    return True


def diverged(directory: Path, report: Path) -> bool:
    """Whether a run that failed has a best epoch before its loss stopped being finite."""
    from hope_ssm.workbench.run_directory import BEST

    return (directory / BEST).is_file() and NOT_FINITE in report.read_text(encoding="utf-8")


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
