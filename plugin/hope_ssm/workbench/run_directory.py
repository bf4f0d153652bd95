"""What a run directory holds, written as the run goes and read back later.

config.yaml        the resolved configuration
run.json           state, times, command, versions, git state, machine, numbers of parameters
metrics.csv        one row per epoch
results.json       the last metrics and those of the test
checkpoints/       best.ckpt, last.ckpt
csv/, tensorboard/ what Lightning's loggers wrote
"""

from __future__ import annotations

import csv
import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml

import hope_ssm
from hope_ssm.reporting.machine import git_state

RUN, CONFIG, RESULTS, METRICS = "run.json", "config.yaml", "results.json", "metrics.csv"
BEST, LAST = "checkpoints/best.ckpt", "checkpoints/last.ckpt"
_DISTRIBUTIONS = ("hope-ssm", "torch", "pytorch-lightning", "hydra-core", "omegaconf", "numpy", "scipy")


def surroundings() -> dict[str, Any]:
    """Return the versions, the git states and the machine that a result depends on."""
    versions = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    places = {"working directory": Path.cwd(), "hope-ssm": Path(hope_ssm.__file__).parent}
    states = {name: git_state(place) for name, place in places.items()}
    git = {name: state and {"commit": state[0], "changed": state[1]} for name, state in states.items()}
    machine = {"host": platform.node(), "system": platform.platform(), "cores": os.cpu_count(), "process": os.getpid()}
    machine["threads"] = torch.get_num_threads()
    return {"versions": versions, "git": git, "machine": machine}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` so that a reader finds the old file or the new one, never half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


@dataclass(frozen=True)
class RunDirectory:
    """One run directory."""

    path: Path

    @property
    def info(self) -> dict[str, Any]:
        """What ``run.json`` says, {} without one."""
        return self._json(RUN)

    @property
    def results(self) -> dict[str, float]:
        """The metrics by name, {} before the end."""
        return self._json(RESULTS)

    @property
    def epochs(self) -> list[dict[str, float]]:
        """The metrics of every finished epoch, by name."""
        path = self.path / METRICS
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return yaml.safe_load((self.path / CONFIG).read_text(encoding="utf-8"))

    @property
    def state(self) -> str:
        """``running``, ``finished``, ``interrupted``, ``failed``; ``killed`` if its process on this machine is gone."""
        info = self.info
        state, machine = info.get("state", "unknown"), info.get("machine", {})
        if state == "running" and machine.get("host") == platform.node() and not _alive(machine.get("process")):
            return "killed"
        return state

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def begin(self, config: Mapping[str, Any], **more: Any) -> None:
        """Write the configuration and the surroundings; ``more`` goes into ``run.json`` as well."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        (self.path / CONFIG).write_text(text, encoding="utf-8")
        started = datetime.now().astimezone().isoformat(timespec="seconds")
        about = {"state": "running", "started": started, "command": sys.argv, **more, **surroundings()}
        write_json(self.path / RUN, about)

    def end(self, state: str) -> None:
        """Note how the run ended."""
        ended = datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(self.path / RUN, {**self.info, "state": state, "ended": ended})


def _alive(process: Any) -> bool:
    if not isinstance(process, int):
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def find_runs(directory: str | os.PathLike) -> list[RunDirectory]:
    """Return every run below ``directory`` (or ``directory`` itself), in the order of their starts.

    Raises:
        ValueError: there is none.
    """
    top = Path(directory)
    found = [RunDirectory(path.parent) for path in top.rglob(RUN) if (path.parent / CONFIG).is_file()]
    if not found:
        kind = "holds none" if top.is_dir() else "is no directory"
        raise ValueError(f"the directory must hold runs of hope train; {str(directory)!r} {kind}.")
    return sorted(found, key=lambda run: (run.info.get("started", ""), str(run.path)))


def find_run(directory: str | os.PathLike) -> RunDirectory:
    """Return the run in ``directory``; raise ``ValueError`` if it is none."""
    run = RunDirectory(Path(directory))
    if not (run.path / RUN).is_file():
        raise ValueError(
            f"RUN must be the directory of a run of hope train, with {RUN} in it; got {str(directory)!r}. "
            "hope runs DIR lists those below a directory."
        )
    return run
