"""What a result depends on beside its configuration: versions, git states, the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import hope_ssm

_DISTRIBUTIONS = ("hope-ssm", "torch", "pytorch-lightning", "hydra-core", "omegaconf", "numpy", "scipy")


def git_state(directory: Path) -> dict[str, Any] | None:
    """Return the commit of the checkout around ``directory`` and whether files differ from it; None outside of one."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=directory, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "changed": bool(git("status", "--porcelain"))}


def surroundings() -> dict[str, Any]:
    """Return the versions, the git states and the machine that a result depends on."""
    versions = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    git = {"working directory": git_state(Path.cwd()), "hope-ssm": git_state(Path(hope_ssm.__file__).parent)}
    machine = {"host": platform.node(), "system": platform.platform(), "cores": os.cpu_count(), "process": os.getpid()}
    machine["threads"] = torch.get_num_threads()
    return {"versions": versions, "git": git, "machine": machine}
