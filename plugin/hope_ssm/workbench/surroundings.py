"""What a result depends on beside its configuration: versions, git states, the machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import hope_ssm
from hope_ssm.reporting.machine import git_state

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
