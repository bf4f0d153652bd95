"""What tensors and sizes may carry besides their numbers: tangents, batches of torch.func, traces, symbols."""

from __future__ import annotations

import torch
from torch import Tensor


def forward_mode() -> bool:
    """Whether tensors may carry tangents: in torch.func.jvp, jacfwd and hessian, and in a level of forward_ad."""
    return torch.autograd.forward_ad._current_level >= 0


def transformed() -> bool:
    """Whether a transform of torch.func (grad, vmap, jvp, …) or forward-mode differentiation is at work."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_mode()


def recorded() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace records the operations."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def into_onnx() -> bool:
    """Whether torch.onnx.export records: it knows complex results of FFTs, their sums and products, and little else."""
    return torch.onnx.is_in_onnx_export()


def as_written() -> bool:
    """Whether functions with a backward pass of their own must not be used, but what they compute, as it is written.

    A recorder cannot look into them, and torch loses the second tangent of nested levels of forward mode in them,
    without a word.
    """
    return recorded() or forward_mode()


def largest(length: int, truncated: bool = True) -> int:
    """Return the length, or the largest value of a symbolic one (torch.export), to compute the whole kernel for.

    Args:
        length: L.
        truncated: whether a shorter kernel is the start of a longer one.

    Raises:
        ValueError: a symbolic length without a largest value, or of a kernel that is not truncated.
    """
    if not isinstance(length, torch.SymInt):
        return length
    if not truncated:
        raise ValueError(
            "a dynamic length needs a kernel whose start does not depend on it; got truncation='none'. "
            "Take truncation='exact'."
        )
    bound = length.node.shape_env.bound_sympy(length.node.expr).upper
    if not bound.is_Integer:
        raise ValueError(
            "a dynamic length must have a largest value, for which the kernel is computed; got none. "
            "Export with torch.export.Dim(name, max=…)."
        )
    return int(bound)


def at_least_one(x: Tensor) -> Tensor:
    """x (B, …), or one row of zeros in place of none: FFT libraries refuse an empty batch."""
    if recorded() or len(x) > 0:
        return x
    return x.new_zeros(1, *x.shape[1:])
