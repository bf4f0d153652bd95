"""Whether tensors carry more than their numbers: tangents of forward-mode differentiation, or a batch of torch.func."""

from __future__ import annotations

import torch


def forward_mode() -> bool:
    """Whether tensors may carry tangents: in torch.func.jvp, jacfwd and hessian, and in a level of forward_ad.

    Functions with a backward pass of their own must not be used there: torch loses the second tangent of a nested
    level of forward mode in them, without a word. So what they compute is differentiated as it is written.
    """
    return torch.autograd.forward_ad._current_level >= 0


def transformed() -> bool:
    """Whether a transform of torch.func (grad, vmap, jvp, …) or forward-mode differentiation is at work."""
    return torch._C._functorch.peek_interpreter_stack() is not None or forward_mode()
