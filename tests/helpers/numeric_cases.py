"""Every kernel of this distribution, small, and all that it computes, for the tests of precisions and compilers."""

from __future__ import annotations

import torch

from hope_ssm.workbench.models.backbone import SequenceModel
from kernel_cases import ENTRIES

H, N, L = 3, 64, 21


def build(name, **options):
    torch.manual_seed(0)
    known = {"horizon": L} if name.startswith("hope") else {}  # the windows do not wait for the first sequence
    return ENTRIES[name].load()(**{"d_model": H, "d_state": N, "channels": 2, "verbose": False} | known | options)


def sequence_model(name, **options):
    torch.manual_seed(0)
    known = {"horizon": L} if name.startswith("hope") else {}  # what is compiled does not wait for a length
    return SequenceModel(4, {"_name_": "s4", "mode": name, "d_state": 6, **known}, **options)


def every_call(kernel, u, state):
    """What a kernel computes: the kernel, the state response, the next state, a step's output and state."""
    k, response = kernel(L=L, state=state)
    return k, response, kernel.forward_state(u, state), *kernel.step(u[..., 0], state)


def some_state(kernel, batch=2):
    like = kernel.default_state(batch)
    return torch.randn(like.shape, dtype=like.dtype, generator=torch.Generator().manual_seed(1))
