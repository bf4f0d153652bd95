"""One computation on a device, and the same in float64 on the CPU."""

from __future__ import annotations

import copy

import torch


def worst(got, exact):
    """The largest difference over the largest number; both may be tuples, then the worst of their members."""
    if isinstance(got, (tuple, list)):
        assert len(got) == len(exact)
        return max(worst(a, b) for a, b in zip(got, exact, strict=True))
    assert got.shape == exact.shape
    got, exact = got.detach().cpu().to(exact.dtype), exact.detach()
    if not exact.numel():
        return 0.0
    return float((got - exact).abs().max() / exact.abs().max().clamp(min=1e-30))


def exact_copy(module):
    """The module with the same numbers in float64 on the CPU."""
    return copy.deepcopy(module).cpu().double()


def outputs_and_gradients(call, inputs, parameters):
    """What ``call(*inputs)`` returns, and the gradients of Σ sin(output) by inputs and parameters."""
    found = call(*inputs)
    found = [x for x in (found if isinstance(found, (tuple, list)) else [found]) if x is not None]
    wanted = [x for x in (*inputs, *parameters) if x.requires_grad]
    total = sum((torch.view_as_real(x) if x.is_complex() else x).double().sin().sum() for x in found)
    by = torch.autograd.grad(total, wanted, allow_unused=True)
    return [*found, *(x for x in by if x is not None)]
