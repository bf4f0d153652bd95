"""The precision in which a result is computed, whatever the precision of its inputs."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def working_dtype(*tensors: Tensor) -> torch.dtype:
    """The precision of the computation: the tensors' common dtype, float32 at least."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def full_precision(device: torch.device) -> AbstractContextManager:
    """Return a context in which autocast leaves matrix products on ``device`` in the precision of their factors."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
