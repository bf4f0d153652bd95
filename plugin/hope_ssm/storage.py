"""Files that are there whole or not at all, and locks that end with their process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PARTIAL = ".partial"


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file beside its place, then put it there: a reader finds the old file or the new one, never half of it.

    The content is on the disk before the name changes, so that a power failure leaves one of the two as well.

    Args:
        path: of the file; its folder must be there.

    Raises:
        OSError: no room, no permission; the old file stays, and nothing of the new one.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    _settle(path.parent)


def _settle(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_partial(folder: Path) -> None:
    """Remove what writers that were killed left in a folder; its lock must be held."""
    for partial in folder.glob(f".*{PARTIAL}"):
        if partial.is_file():
            partial.unlink(missing_ok=True)


@contextmanager
def alone(lock: Path, busy: Callable[[], None], patience: float = 1.0) -> Iterator[None]:
    """Hold the lock file ``lock``, which is made and stays; the system releases it when this process ends, however.

    Args:
        lock: of the file; its folder is made.
        busy: called if another process holds it; raises, or returns to wait for it.
        patience: seconds before ``busy`` is called.

    Raises:
        OSError: the file cannot be written.
    """
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=patience)
    except Timeout:
        busy()
        held.acquire()
    try:
        yield
    finally:
        held.release()
