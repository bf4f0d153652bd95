"""Independent pieces of one computation on several cores, each piece on one: nothing waits before all are done.

torch divides every single operation among its threads, which wait for each other after each. Pieces that stay in one
core's cache through many operations have less to wait for, and lose less where other programs use the cores too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from torch.autograd import forward_ad

Piece = TypeVar("Piece")

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}  # by process, for threads do not survive a fork, and by size
_lock = threading.Lock()


def for_each(function: Callable[[Piece], None], pieces: Sequence[Piece]) -> None:
    """Call ``function`` with every piece, on as many threads as torch has here; without gradients and tangents.

    Args:
        function: writes its result somewhere; pieces must not write to the same place.
        pieces: with one piece, or one thread, all is done by the caller itself.

    The first error of ``function`` is raised.
    """
    inference = torch.is_inference_mode_enabled()  # like the other two, a state of the thread

    def call(piece: Piece) -> None:
        with torch.inference_mode(inference), torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
            function(piece)

    threads = torch.get_num_threads()
    if threads == 1 or len(pieces) <= 1:
        for piece in pieces:
            call(piece)
    else:
        list(_pool(threads).map(call, pieces))


def _pool(threads: int) -> ThreadPoolExecutor:
    key = (os.getpid(), threads)
    with _lock:
        if key not in _pools:
            started = threading.Barrier(threads)
            pool = ThreadPoolExecutor(threads, "hope_ssm", initializer=_one_thread)
            list(pool.map(lambda _: started.wait(), range(threads)))
            torch.set_num_threads(threads)  # what threads begun later inherit; the pool's are set apart
            _pools[key] = pool
        return _pools[key]


def _one_thread() -> None:
    torch.get_num_threads()  # at its first use a thread takes the number that all have; after that it has its own
    torch.set_num_threads(1)
