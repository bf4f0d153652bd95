"""Words about the machine, the software and the state of the code that a figure depends on."""

from __future__ import annotations

import logging
import platform
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def machine(device: str = "cpu") -> str:
    """Return processor (or GPU), threads, and the versions of torch and Python."""
    import torch

    name = platform.processor() or platform.machine()
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    elif Path("/proc/cpuinfo").exists():
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        name = models[0].split(":")[1].strip() if models else name
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def git_state(directory: Path) -> tuple[str, bool] | None:
    """Return the commit of the checkout that holds ``directory``, and whether tracked files are modified.

    Returns:
        None where git is absent or does not know the directory.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=directory, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return None if commit is None else (commit, bool(git("status", "--porcelain", "--untracked-files=no")))


@contextmanager
def silence(*names: str) -> Iterator[None]:
    """Keep all warnings, and what these loggers say below an error, off the screen for the time of a ``with``."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def quieten_lightning() -> None:
    """Keep what Lightning and this package log below a warning off the screen, and Lightning's own warnings too."""
    for name in ("pytorch_lightning", "lightning.pytorch", "hope_ssm"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
