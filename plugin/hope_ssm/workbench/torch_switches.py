"""Switches of the whole process that Lightning sets for one training."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def torch_switches_kept() -> Iterator[None]:
    """Have torch's switches afterwards as they were before.

    Lightning's trainer turns on deterministic algorithms and cuDNN's benchmark as its options say, and never back. The
    next training of the same process, in a sweep or a notebook, would take the options of this one.
    """
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    workspace = os.environ.get(_WORKSPACE)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)
        else:
            os.environ[_WORKSPACE] = workspace
