"""The comparisons of docs/results.md that follow its protocol: runs, choices, tables, pictures, the check.

python tools/protocol.py run NAME …   the runs that docs/results/NAME/runs.csv lacks, each appended when it is finished
python tools/protocol.py page         the tables and pictures of docs/results.md, made again from those files
python tools/protocol.py check        exit status 1 where the page differs from them

A run is a subprocess with one thread, in runs/protocol/NAME/…, and goes on where it was stopped. Two calls beside each
other share the work: a run directory that is busy is refused, and the next one is taken. RESULTS_RUNNER is a
command to start it with, "nice -n 10" for example.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
STORE, PAGE = ROOT / "docs" / "results", ROOT / "docs" / "results.md"
CHOOSING, TABLE = (100, 101), (0, 1, 2, 3, 4)  # seeds
MOVED = 0.5  # percent of the scale that the median may still move over the last quarter
COLUMNS = (
    "stage", "row", "settings", "seed", "validation", "test", "epochs", "steps", "epochs_to_90", "kernel_parameters",
    "commit", "curve",
)  # fmt: skip

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
    """

    experiment: str
    rows: dict[str, tuple[str, dict[str, str]]]
    metric: str = "accuracy"
    tests: int | None = None


BOTH = grid(RATES, PERIODS)
# The common range is what S4's and S4D's own already is; their second half of the trials has HOPE's.
HOPES = {"own": "", "hope's": "model.layer.dt_min=0.015625 model.layer.dt_max=0.5"}
OTHER = grid(RATES, HOPES)
KERNELS: dict[str, tuple[str, dict[str, str]]] = {
    "hope": ("kernel=hope", BOTH),
    "s4d": ("kernel=s4d", OTHER),
    "s4": ("kernel=s4", OTHER),
    "s4-hippo": ("kernel=s4-hippo", OTHER),
    "lru": ("kernel=lru", grid(RATES)),
    "s4d-real": ("kernel=s4d-real", OTHER),
    "dss": ("kernel=dss", OTHER),
    "stable": ("kernel=stable", OTHER),
    "rtf": ("kernel=rtf", grid(RATES_OF_RTF, STARTS)),
}
FREE = {
    "conv, whole length": ("kernel=conv", grid({"global": ""})),
    "conv, 64 taps": ("kernel=conv model.layer.l_max=64", grid({"global": ""})),
}
LARGE = {"hope, n = 192": ("kernel=hope model.layer.d_state=192", BOTH)}
# In the delay task the sequences have 512 steps: HOPE's own range is n/(16 L) to 2 n/L.
SLOWER = {"own": "", "hope's": "model.layer.dt_min=0.0078125 model.layer.dt_max=0.25"}


def of_length_512(names: tuple[str, ...]) -> dict[str, tuple[str, dict[str, str]]]:
    """Return rows with the two ranges of Δt at 512 steps."""
    return {n: (KERNELS[n][0], grid(RATES, SLOWER) if KERNELS[n][1] is OTHER else KERNELS[n][1]) for n in names}


TASKS = {
    "short-tail": Task(
        "experiment=hope/noisy-digits decoder.l_tail=32 trainer.max_epochs=60 +model.layer.convolution=plain",
        {**KERNELS, **FREE, **LARGE},
        tests=359,
    ),
    "delay": Task(
        "experiment=hope/delay-small trainer.max_epochs=40",
        {**of_length_512(("hope", "s4d", "s4", "s4-hippo", "lru")), **LARGE},
        metric="loss",
    ),
    "tones": Task(
        "experiment=hope/tones trainer.max_epochs=40",
        {**of_length_512(("hope", "s4d", "s4", "lru")), "hope-bands": ("kernel=hope-bands", grid(RATES))},
        tests=1000,
    ),
}


Record = dict[str, str]


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
    found = defaultdict(list)
    for record in records:
        if record["stage"] == "choice" and record["row"] == row and record["settings"] in settings:
            found[record["settings"]].append(float(record["validation"]))
    if set(found) != set(settings) or any(len(values) < len(CHOOSING) for values in found.values()):
        return None
    best = max if task.metric == "accuracy" else min
    return best(found, key=lambda one: statistics.fmean(found[one]))


def lacking(name: str) -> Iterator[tuple[str, str, str, int]]:
    """Yield (stage, row, settings, seed) of the runs to make, and look again after each: choices depend on them."""
    task, failed = TASKS[name], set()
    while True:
        records = stored(name)
        done = {(r["stage"], r["row"], r["settings"], int(r["seed"])) for r in records} | failed
        plan = [
            ("choice", row, one, seed)
            for seed in CHOOSING for row, (_, settings) in task.rows.items() if len(settings) > 1 for one in settings
        ]  # fmt: skip
        ready = {row: chosen(task, records, row) for row in task.rows}
        plan += [("table", row, one, seed) for seed in TABLE for row, one in ready.items() if one is not None]
        left = [run for run in plan if run not in done]
        if not left:
            return
        failed.add(left[0])  # once each in one call
        yield left[0]


def run(name: str, stage: str, row: str, settings: str, seed: int) -> None:
    """Make one run and append it to runs.csv."""
    task = TASKS[name]
    folder = re.sub(r"[^a-z0-9]+", "-", f"{row} {settings}")
    directory = ROOT / "runs" / "protocol" / name / stage / folder / str(seed)
    overrides = [task.experiment, task.rows[row][0], task.rows[row][1][settings]]
    command = [
        *shlex.split(os.environ.get("RESULTS_RUNNER", "")),
        str(Path(sys.executable).with_name("hope")), "train", *shlex.split(" ".join(overrides)),
        f"train.seed={seed}", f"dataset.seed={seed}", "train.ckpt=auto", f"hydra.run.dir={directory}",
    ]  # fmt: skip
    print(f"{stage}: {row}, {settings}, seed {seed}", flush=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (report := directory.with_name(f"{seed}.log")).open("w", encoding="utf-8") as log:
        done = subprocess.run(
            command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False
        )
    if done.returncode:
        print(f"  did not finish, see {report}; the others go on.", flush=True)
        return
    append(name, record_of(directory, task, stage, row, settings, seed))


def record_of(directory: Path, task: Task, stage: str, row: str, settings: str, seed: int) -> Record:
    """Return what runs.csv says of a finished run directory."""
    from hope_ssm.workbench.run_directory import RunDirectory

    finished = RunDirectory(directory)
    curve = [epoch[f"val/{task.metric}"] for epoch in finished.epochs if f"val/{task.metric}" in epoch]
    best = max(curve) if task.metric == "accuracy" else min(curve)
    info = finished.info
    return {
        "stage": stage, "row": row, "settings": settings, "seed": str(seed), "validation": f"{best:.5f}",
        "test": f"{finished.results[f'test/{task.metric}']:.5f}", "epochs": str(len(curve)),
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
    new = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(record)


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
    task, records = TASKS[name], stored(name)
    complete, open_rows = results(task, records)
    percent = task.metric == "accuracy"
    scale, form = (100, ".1f") if percent else (1, ".4f")
    first = next(iter(task.rows))
    compared = [row for row in complete if row != first] if first in complete else []
    differences, raw = {}, []
    for row in compared:
        values = [float(a["test"]) - float(b["test"]) for a, b in zip(complete[row], complete[first], strict=True)]
        means = [statistics.fmean(float(run["test"]) for run in complete[one]) for one in (row, first)]
        differences[row] = interval(values, sampling_variance(task, *means))
        raw.append(differences[row][2])
    adjusted = dict(zip(compared, holm(raw), strict=True))
    unit = "%" if percent else "error"
    lines = [
        f"| row | settings | kernel parameters | test {unit} | against {first} | p, Holm | verdict "
        "| epochs to 90 % | moved at the end |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
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
        lines.append(f"| {' | '.join([*cells, f'{scale * moved(runs):+{form}}'])} |")
    text = "\n".join(lines) if complete else "No row is complete yet."
    if open_rows:
        text += f"\n\nNot complete yet, so not in the table: {', '.join(open_rows)}."
    trials = [r for r in records if r["stage"] == "choice"]
    if trials:
        text += "\n\n" + choices(task, trials)
    if complete:
        text += f"\n\n![Validation of every run over the epochs](results/{name}/curves.png)"
    return text


def choices(task: Task, trials: list[Record]) -> str:
    """Return the trials for choosing settings as Markdown: best validation of each seed."""
    percent = task.metric == "accuracy"
    scale, form = (100, ".1f") if percent else (1, ".4f")
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for trial in trials:
        found[trial["row"], trial["settings"]][int(trial["seed"])] = float(trial["validation"])
    seeds = [f"seed {seed}" for seed in CHOOSING]
    lines = [f"| trial | settings | {' | '.join(seeds)} |", "| --- " * (2 + len(seeds)) + "|"]
    for row, (_, settings) in task.rows.items():
        for one in settings:
            if (row, one) in found:
                cells = [f"{scale * found[row, one][s]:{form}}" if s in found[row, one] else "–" for s in CHOOSING]
                lines.append(f"| {' | '.join([row, one, *cells])} |")
    return "Best validation of the trials from which the settings are chosen:\n\n" + "\n".join(lines)


def picture(name: str) -> None:
    """Draw the validation curves of every run in the table."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    task = TASKS[name]
    complete, _ = results(task, stored(name))
    if not complete:
        return
    columns = min(4, len(complete))
    shape = (math.ceil(len(complete) / columns), columns)
    figure, axes = plt.subplots(*shape, figsize=(3 * shape[1], 2.2 * shape[0]), squeeze=False, sharex=True, sharey=True)
    for axis, (row, runs) in zip(axes.flat, complete.items(), strict=False):
        for one in runs:
            curve = [float(value) for value in one["curve"].split()]
            axis.plot(range(1, len(curve) + 1), curve, linewidth=0.8)
        axis.set_title(row, fontsize=9)
        axis.set_yscale("linear" if task.metric == "accuracy" else "log")
    for axis in axes.flat[len(complete) :]:
        axis.set_axis_off()
    figure.supxlabel("epoch", fontsize=9)
    figure.supylabel(f"validation {task.metric}", fontsize=9)
    figure.tight_layout()
    figure.savefig(STORE / name / "curves.png", dpi=80)


def page(text: str) -> str:
    """Return the page with every table between its two markers made from the stored runs.

    Raises:
        ValueError: a stored sweep has no place on the page.
    """
    for name in TASKS:
        start, end = f"<!-- results of {name} -->", f"<!-- end of {name} -->"
        if start not in text or end not in text:
            if stored(name):
                raise ValueError(f"the page must have {start} and {end} for docs/results/{name}/runs.csv; add them.")
            continue
        before, rest = text.split(start)
        text = f"{before}{start}\n\n{table(name)}\n\n{end}{rest.split(end)[1]}"
    return text


def main(arguments: list[str]) -> int:
    """Run one of the three commands of the module's docstring."""
    command, *names = arguments or ["help"]
    if command == "run":
        for name in names:
            for one in lacking(name):
                run(name, *one)
    elif command == "page":
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        for name in TASKS:
            picture(name)
    elif command == "check":
        if page(text := PAGE.read_text(encoding="utf-8")) != text:
            print("docs/results.md must say what docs/results/*/runs.csv say; it differs. Run tools/results --page.")
            return 1
    elif command == "names":
        print(*TASKS)
    else:
        print(json.dumps({"commands": ["run", "page", "check", "names"], "names": list(TASKS)}), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
