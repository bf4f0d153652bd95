"""Functions in processes of their own, forked from a server that has imported the large packages once."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing import forkserver
from pathlib import Path

import torch

# Not hope_ssm.cli: which of its modules a command imports is the command's own affair.
IMPORTED = ["torch", "scipy.stats", "scipy.signal", "sklearn.datasets", "pytorch_lightning", "hydra", "hope_ssm"]
IMPORTED += ["hope_ssm.workbench.training", "torch.utils.tensorboard", "torch._dynamo"]
HOPE = str(Path(sys.executable).with_name("hope"))


def start_server() -> multiprocessing.context.BaseContext:
    """One per pytest process, with one thread: what it forks may then compute."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
    return context


def _begin(function, arguments, directory, environment, outputs):
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    sys.argv = [HOPE, *arguments]
    sys.modules["__main__"].__spec__ = None  # not pytest's: Lightning starts further ranks as sys.argv says
    try:
        status = function(*arguments)
    finally:
        atexit._run_exitfuncs()  # as at the end of an interpreter: joblib's workers end by one of them
    sys.exit(status)


def in_a_process(
    function: Callable[..., int | None],
    *arguments: str,
    directory: Path,
    environment: Mapping[str, str] | None = None,
    timeout: float = 600,
) -> subprocess.CompletedProcess:
    """Call a function of a helper module in a forked process and directory; return its exit status and output."""
    clean = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR" and not k.startswith("PYTEST_")}
    clean |= {"OMP_NUM_THREADS": "1", **(environment or {})}
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / name for name in ("stdout", "stderr")]
        for path in outputs:
            path.touch()
        process = start_server().Process(target=_begin, args=(function, arguments, directory, clean, outputs))
        process.start()
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout)
        texts = [path.read_text(encoding="utf-8") for path in outputs]
        return subprocess.CompletedProcess(arguments, process.exitcode, *texts)


def hope(*arguments: str) -> int:
    """The command."""
    from hope_ssm.cli.main import main

    return main(list(arguments))
