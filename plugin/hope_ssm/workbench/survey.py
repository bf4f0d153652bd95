"""Runs below a directory: those that are sound, and what is the matter with the others."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path

import yaml

from hope_ssm.workbench.run_directory import CONFIG, DONE, METRICS, RESULTS, RUN, RunDirectory


def damage(run: RunDirectory) -> str | None:
    """Return what of a run cannot be read or is incomplete, in a few words; None if it is sound."""
    try:
        _check(run)
    except Exception as error:  # whatever a damaged file makes a reader raise
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _check(run: RunDirectory) -> None:
    for name, wanted in (
        (RUN, {"state": str, "started": str, "machine": dict}),
        (CONFIG, {"train": dict, "dataset": dict, "model": dict, "trainer": dict}),
        (RESULTS, {}),
    ):
        if name != RESULTS and not (run.path / name).is_file():
            raise ValueError(f"{name} is missing")
        try:
            content = {RUN: lambda: run.info, CONFIG: lambda: run.config, RESULTS: lambda: run.results}[name]()
        except (ValueError, yaml.YAMLError, RecursionError) as error:
            raise ValueError(f"{name} cannot be read ({type(error).__name__})") from None
        if not isinstance(content, dict):
            raise ValueError(f"{name} holds no mapping")
        for key, kind in wanted.items():
            if not isinstance(content.get(key), kind):
                raise ValueError(f"{name} has no {key}")
    train = run.config["train"]
    if not isinstance(train.get("seed"), int) or not isinstance(train.get("monitor"), str):
        raise ValueError(f"{CONFIG} has no train.seed or train.monitor")
    for name, value in run.results.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{RESULTS} has no number for {name}")
    try:
        epochs = run.epochs
    except UnicodeDecodeError:
        raise ValueError(f"{METRICS} cannot be read") from None
    except (csv.Error, ValueError) as error:
        raise ValueError(str(error) if METRICS in str(error) else f"{METRICS} is damaged ({error})") from None
    if any(not {"epoch", "step"} <= set(row) for row in epochs):
        raise ValueError(f"{METRICS} has rows without epoch or step")
    if run.info["state"] in DONE:
        if (expected := run.info.get("epochs", len(epochs))) != len(epochs):
            raise ValueError(f"{METRICS} has {len(epochs)} of {expected} epochs")
        if not (run.path / RESULTS).is_file():
            raise ValueError(f"{RESULTS} is missing")


def survey(directory: str | os.PathLike) -> tuple[list[RunDirectory], dict[Path, str]]:
    """Return the sound runs below ``directory`` (or itself) in the order of their starts, and {path: what is damaged}.

    Raises:
        ValueError: there is neither.
    """
    top = Path(directory)
    sound: list[RunDirectory] = []
    damaged: dict[Path, str] = {}
    for path in sorted(top.rglob(RUN)):
        run = RunDirectory(path.parent)
        if (found := damage(run)) is None:
            sound.append(run)
        else:
            damaged[run.path] = found
    if not sound and not damaged:
        kind = "holds none" if top.is_dir() else "is no directory"
        raise ValueError(f"the directory must hold runs of hope train; {str(directory)!r} {kind}.")
    return sorted(sound, key=lambda run: (run.info["started"], str(run.path))), damaged


def left_out(damaged: Mapping[Path, str]) -> str:
    """Return a line that names the damaged runs, "" without any."""
    listed = "; ".join(f"{path} ({found})" for path, found in damaged.items())
    return f"Left out, damaged: {listed}.\n" if damaged else ""


def find_runs(directory: str | os.PathLike) -> list[RunDirectory]:
    """Return every sound run below ``directory``, see ``survey``."""
    return survey(directory)[0]


def find_run(directory: str | os.PathLike) -> RunDirectory:
    """Return the run in ``directory``; raise ``ValueError`` if it is none."""
    run = RunDirectory(Path(directory))
    if not (run.path / RUN).is_file():
        raise ValueError(
            f"RUN must be the directory of a run of hope train, with {RUN} in it; got {str(directory)!r}. "
            "hope runs DIR lists those below a directory."
        )
    return run
