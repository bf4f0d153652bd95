"""A sweep in one table: runs that differ in their seed alone are one row, mean ± standard deviation over them."""

from __future__ import annotations

import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hope_ssm.checks import check_choice
from hope_ssm.workbench.resuming import flat
from hope_ssm.workbench.run_directory import RunDirectory, find_runs

SEED = "train.seed"
# What may differ between two runs of one row: where and how they ran, not what they computed.
_ASIDE = (SEED, "train.ckpt", "train.tensorboard", "wandb", "loader.num_workers", "trainer.enable_progress_bar")
_SPEED, _MEMORY = "train/steps_per_second", "train/peak_memory_mib"


@dataclass(frozen=True)
class Row:
    """The finished runs of one configuration.

    Attributes: label: what sets it apart from the other rows; runs: one a seed; notes: what a reader must know.
    """

    label: str
    runs: list[RunDirectory]
    notes: list[str]

    def values(self, metric: str) -> list[float]:
        """Return a metric of every run that has it."""
        return [results[metric] for results in (run.results for run in self.runs) if metric in results]

    @property
    def seeds(self) -> list[int]:
        """The seed of every run."""
        return [run.config["train"]["seed"] for run in self.runs]


def spread(values: Sequence[float], digits: int, scale: float = 1.0) -> str:
    """Return "mean ± standard deviation" of the sample; "mean" of a single value; "–" of none."""
    if not values:
        return "–"
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def rows(runs: Sequence[RunDirectory]) -> list[Row]:
    """Return finished runs grouped by configuration, each group labelled by what the groups differ in.

    The label names the overrides that were typed, if they tell the groups apart, and the configuration's keys if not.
    """
    groups: dict[str, list[RunDirectory]] = {}
    for run in runs:
        leaves = {key: value for key, value in flat(run.config) if not key.startswith(_ASIDE)}
        groups.setdefault(json.dumps(leaves, sort_keys=True, default=str), []).append(run)
    members = list(groups.values())
    labels = _distinct([dict(_typed(group[0])) for group in members])
    if len(set(labels)) < len(members):
        labels = _distinct([{k: v for k, v in flat(g[0].config) if not k.startswith(_ASIDE)} for g in members])
    return [Row(label, group, _notes(group)) for label, group in zip(labels, members, strict=True)]


def _typed(run: RunDirectory) -> list[tuple[str, str]]:
    pairs = [override.lstrip("+").split("=", 1) for override in run.info.get("overrides", []) if "=" in override]
    return [(key, value) for key, value in pairs if key not in _ASIDE and not key.startswith("hydra")]


def _distinct(settings: list[dict[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for setting in settings for key in setting)
    differing = [key for key in keys if len({str(setting.get(key)) for setting in settings}) > 1]
    return [" ".join(f"{k}={s[k]}" for k in differing if k in s) or "all runs" for s in settings]


def _notes(group: list[RunDirectory]) -> list[str]:
    notes = []
    seeds = [run.config["train"]["seed"] for run in group]
    if len(set(seeds)) < len(seeds):
        notes.append(f"seeds repeat: {seeds}")
    commits = {json.dumps(run.info.get("git", {}).get("hope-ssm")) for run in group}
    versions = {json.dumps(run.info.get("versions", {}), sort_keys=True) for run in group}
    if len(commits) > 1 or len(versions) > 1:
        notes.append("runs of different versions of the software")
    return notes


def metrics_of(table: Sequence[Row]) -> list[str]:
    """Return the metrics to show: those of the test, or of the validation where nothing was tested."""
    names = dict.fromkeys(name for row in table for run in row.runs for name in run.results)
    return [n for n in names if n.startswith("test/")] or [n for n in names if n.startswith("val/")]


def markdown(table: Sequence[Row], unfinished: Sequence[RunDirectory]) -> str:
    """Return the table as Markdown, with what was left out below it."""
    metrics = metrics_of(table)
    header = ["configuration", "seeds", *metrics, "parameters", "kernel parameters", "steps / s", "peak memory MiB"]
    lines = [header, ["---"] * len(header)]
    for row in table:
        counts = [{str(run.info.get(name, "–")) for run in row.runs} for name in ("parameters", "kernel_parameters")]
        lines.append(
            [
                row.label,
                str(len(row.runs)),
                *(spread(row.values(name), 4) for name in metrics),
                *("/".join(sorted(count)) for count in counts),
                spread(row.values(_SPEED), 1),
                spread(row.values(_MEMORY), 0),
            ]
        )
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"
    text += "\nMean ± standard deviation over seeds; test metrics are those of the best checkpoint, "
    text += "or the last where nothing was validated.\n"
    for row in table:
        text += "".join(f"\n{row.label}: {note}.\n" for note in row.notes)
    if unfinished:
        listed = ", ".join(f"{run.path} ({run.state})" for run in unfinished)
        text += f"\nLeft out, not finished: {listed}.\n"
    return text


def pictured(runs: Sequence[RunDirectory], metric: str | None) -> str | None:
    """Return the metric of the picture: the one asked for, or the first of monitor and losses that all runs have.

    Raises: ValueError: a metric that some run has not; the nearest is named.
    """
    known = set.intersection(*({name for line in run.epochs for name in line} for run in runs)) - {"epoch", "step"}
    if metric is not None:
        return check_choice("metric", metric, sorted(known))
    wanted = (runs[0].config["train"]["monitor"], "val/loss", "train/loss")
    return next((name for name in wanted if name in known), None)


def _write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for line in lines for name in line))
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(lines)


def write(directory: Path, out: Path, metric: str | None = None) -> str:
    """Write report.md, report.csv (a line a configuration), runs.csv (a line a run) and report.png into ``out``.

    Args: directory: with runs below it; out: made if absent; metric: of the picture, that monitored by default.
    Returns: the Markdown.  Raises: ValueError: no runs, none finished, or no such metric.
    """
    runs = find_runs(directory)
    finished = [run for run in runs if run.state == "finished" and run.results]
    if not finished:
        states = ", ".join(f"{run.path} is {run.state}" for run in runs)
        raise ValueError(f"the directory must hold finished runs; {states}.")
    table = rows(finished)
    shown = pictured(finished, metric)
    text = markdown(table, [run for run in runs if run not in finished])
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(text, encoding="utf-8")
    names = list(dict.fromkeys(name for run in finished for name in run.results))
    lines = []
    for row in table:
        line: dict[str, Any] = {"configuration": row.label, "seeds": len(row.runs)}
        line |= {name: row.runs[0].info.get(name) for name in ("parameters", "kernel_parameters")}
        for name in names:
            if values := row.values(name):
                line[f"{name} mean"] = statistics.fmean(values)
                line[f"{name} sd"] = statistics.stdev(values) if len(values) > 1 else ""
        lines.append(line)
    _write_csv(out / "report.csv", lines)
    each = [(row, run) for row in table for run in row.runs]
    _write_csv(
        out / "runs.csv",
        [
            {"configuration": row.label, "seed": run.config["train"]["seed"], "directory": run.path, **run.results}
            for row, run in each
        ],
    )
    from hope_ssm.workbench import pictures

    if shown is not None:
        pictures.draw_curves(table, shown, out / "report.png")
    files = ["report.md", "report.csv", "runs.csv", *(["report.png"] if shown else [])]
    return f"{text}\nWritten to {out}: {', '.join(files)}\n"
