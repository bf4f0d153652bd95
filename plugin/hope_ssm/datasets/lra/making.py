"""Files made in parts, by several processes: complete or absent, and with the same bytes after any interruption."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from hope_ssm import storage
from hope_ssm.checks import check_positive_integer
from hope_ssm.datasets.randomness import check_seed
from hope_ssm.storage import PARTIAL

RECIPE = "hope-data.json"  # in a folder made here: what it holds, and whether it is whole
logger = logging.getLogger(__name__)


def part_generator(seed: int, stream: int, part: int) -> np.random.Generator:
    """Return the random numbers of one part: Philox(key = (seed, stream), counter = (0, 0, 0, part))."""
    return np.random.Generator(np.random.Philox(key=[check_seed(seed), stream], counter=[0, 0, 0, part]))


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears under its name when it is complete; otherwise nothing of it stays.

    Raises:
        OSError: the disk is full.
    """
    try:
        with storage.whole_file(path) as file:
            yield file
    except OSError as error:
        raise explained(error, path.parent) from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Make a folder alone: other processes that want to make or fetch the same wait, and then find it there."""

    def busy() -> None:
        logger.warning("Another process is making %s; waiting for it.", folder)

    with storage.alone(folder.with_name(f".{folder.name}.lock"), busy):
        yield


def one_at_a_time(make: Callable[..., bool]) -> Callable[..., bool]:
    """Let ``make(folder, …)`` run ``alone`` with its folder."""

    @wraps(make)
    def made(folder: Path, *args: Any, **options: Any) -> bool:
        with alone(folder):
            return make(folder, *args, **options)

    return made


def explained(error: OSError, folder: Path) -> OSError:
    """Return an error that says what to do where a disk is full, others as they are."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return error
    return OSError(f"the disk of {folder} is full; the partial file was removed. Free some space and run this again.")


def check_space(folder: Path, needed: int) -> None:
    """Raise unless the disk has room for ``needed`` bytes."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"{folder} must have {needed / 1e9:.1f} GB free; it has {free / 1e9:.1f} GB. Name another disk with --out."
        )


def claim(folder: Path, recipe: dict[str, Any]) -> bool:
    """Take a folder for what ``recipe`` makes; return whether that is there and whole already.

    Raises:
        FileExistsError: it holds something else, or the same of another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / RECIPE
    if note.is_file():
        found = json.loads(note.read_text(encoding="utf-8"))
        if found["recipe"] != recipe and not any(path.is_file() and path != note for path in folder.rglob("*")):
            _write_note(folder, recipe, whole=False)  # nothing was made by the other recipe
            return False
        if found["recipe"] != recipe:
            raise FileExistsError(
                f"{folder} must be empty or hold {_line(recipe)}; it holds {_line(found['recipe'])}. "
                "Name another folder with --out, or delete this one."
            )
        for partial in folder.rglob(f".*{PARTIAL}"):  # of a run that was killed
            shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
        return bool(found["whole"])
    if any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} must be empty or made by hope data; it holds {next(folder.iterdir()).name}. Name another --out."
        )
    _write_note(folder, recipe, whole=False)
    return False


def finish(folder: Path, recipe: dict[str, Any]) -> None:
    """Note that the folder is whole."""
    _write_note(folder, recipe, whole=True)


def _write_note(folder: Path, recipe: dict[str, Any], whole: bool) -> None:
    with whole_file(folder / RECIPE) as file:
        file.write((json.dumps({"recipe": recipe, "whole": whole}, indent=1) + "\n").encode())


def _line(recipe: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in recipe.items())


def make_parts(
    write: Callable[..., int], tasks: Sequence[tuple], processes: int, advance: Callable[[int], None]
) -> None:
    """Call ``write(*task)`` for every task, in ``processes`` processes; ``advance`` hears the numbers it returns.

    Args:
        write: a function at the top level of its module that makes one part and returns how many samples it has.
        tasks: its arguments.
        processes: at least 1; with 1 all is done here.
        advance: called in this process.
    """
    if check_positive_integer("processes", processes) == 1 or len(tasks) < 2:
        for task in tasks:
            advance(write(*task))
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(tasks)), mp_context=context) as pool:
        with _main_module_hidden():  # every process is begun here
            futures = [pool.submit(write, *task) for task in tasks]
        try:
            for future in as_completed(futures):
                advance(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Let the processes that are begun meanwhile not run the user's script again.

    They need nothing of it; and a script that does not ask for ``__name__ == "__main__"`` would make the data set in
    each of them again, where it would wait for the lock that this process holds.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def available_processes() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
