"""What a run directory holds, written as the run goes and read back later.

config.yaml        the resolved configuration
run.json           state, times, command, versions, git state, machine, numbers of parameters
metrics.csv        one row per epoch
results.json       the last metrics and those of the test
checkpoints/       best.ckpt, last.ckpt and, while the run goes, previous.ckpt
csv/, tensorboard/ what Lightning's loggers wrote
.hydra/            the command line, as Hydra keeps it, where hope train was typed
.lock              held by the process that writes here

Every file appears under its name when it is whole.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from hope_ssm.storage import alone, whole_file
from hope_ssm.workbench.surroundings import surroundings

RUN, CONFIG, RESULTS, METRICS = "run.json", "config.yaml", "results.json", "metrics.csv"
BEST, LAST, PREVIOUS = "checkpoints/best.ckpt", "checkpoints/last.ckpt", "checkpoints/previous.ckpt"
LOCK = ".lock"
HYDRA, HYDRA_NEW = ".hydra", ".hydra.new"  # of the run, and of a command line that has not begun one yet
DONE = ("finished", "stopped")  # the states of a run with results


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader finds the old one or the new one, never half of it."""
    with whole_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, like ``write_text``."""
    write_text(path, json.dumps(content, indent=2) + "\n")


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
        text = path.read_text(encoding="utf-8")
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        found = []
        for row in table:
            if None in row or None in row.values() or not text.endswith("\n"):
                raise ValueError(f"{METRICS} is cut or damaged in line {table.line_num}")
            found.append({name: float(value) for name, value in row.items() if value})
        return found

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        return yaml.safe_load((self.path / CONFIG).read_text(encoding="utf-8"))

    @property
    def state(self) -> str:
        """How the run stands.

        ``running``; ``finished``: at its last epoch or step, or where early stopping ended it; ``stopped``: ended
        before, by trainer.max_time say, with results; ``interrupted``; ``failed``; ``killed``: its process on this
        machine is gone.
        """
        info = self.info
        state, machine = info.get("state", "unknown"), info.get("machine", {})
        if state == "running" and machine.get("host") == platform.node() and not _alive(machine.get("process")):
            return "killed"
        return state

    def _json(self, name: str) -> dict[str, Any]:
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def alone(self) -> AbstractContextManager[None]:
        """Hold the directory's lock, which ends with this process.

        Raises:
            FileExistsError: another process trains in this directory.
        """

        def busy() -> None:
            machine = self.info.get("machine", {})
            who = f", process {machine['process']} on {machine['host']}" if "process" in machine else ""
            raise FileExistsError(
                f"the run directory must be free; another run writes to {str(self.path)!r}{who}. "
                "Wait for its end, or name another by hydra.run.dir=…"
            )

        return alone(self.path / LOCK, busy)

    def begin(self, config: Mapping[str, Any], **more: Any) -> None:
        """Write the configuration and the surroundings; ``more`` goes into ``run.json`` as well."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / CONFIG, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        if (self.path / HYDRA_NEW).is_dir():
            shutil.rmtree(self.path / HYDRA, ignore_errors=True)
            (self.path / HYDRA_NEW).rename(self.path / HYDRA)
        about = {"state": "running", "started": _now(), "command": sys.argv, **more, **surroundings()}
        write_json(self.path / RUN, about)

    def end(self, state: str) -> None:
        """Note how the run ended, and after how many epochs."""
        write_json(self.path / RUN, {**self.info, "state": state, "ended": _now(), "epochs": len(self.epochs)})


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


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
