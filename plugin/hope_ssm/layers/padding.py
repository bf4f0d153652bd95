"""Padded batches: which steps are a sequence's own. Axes: B batch, L steps, H features.

Padding becomes 0 in three places and nowhere else. Where weights read what came from outside (the linear encoder, the
backbone, ``SharedStateLayer``, an input memory, the gate of a block): a NaN in the padding would reach their gradients,
0 · NaN is NaN. Where steps are mixed (``FFTConvolution``, norms over steps, pools, the decoder):
biases have filled the padding again. And in the outputs of ``HopeLayer`` and of the backbone, which promise it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.checks import check_lengths, check_real


def valid_steps(x: Tensor, lengths: Tensor) -> Tensor:
    """Whether a step is the sequence's own and not padding.

    Args:
        x: (B, L, …).
        lengths: (B,).

    Returns:
        (B, L) bool.
    """
    lengths = check_lengths(lengths, *x.shape[:2]).to(x.device)
    return torch.arange(x.shape[1], device=x.device) < lengths.unsqueeze(-1)


def without_padding(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x (B, L, H) with zeros from the lengths (B,) on, whatever stood there; x itself without lengths."""
    return x if lengths is None else x.masked_fill(~valid_steps(x, lengths).unsqueeze(-1), 0)


def check_input(x: Tensor, *shape: str | int) -> None:
    """Raise unless x is real and has as many axes as ``shape``, none but the batch empty, and its last of features."""
    check_real("the layer's input", x)
    if x.ndim != len(shape) or x.shape[-1] != shape[-1] or 0 in x.shape[1:]:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"the layer's input must have shape ({wanted}); got {tuple(x.shape)}.")


def with_its_length(x: Tensor) -> Tensor:
    """x (B, L, H); in torch.jit.trace so that the trace refuses another length: what is traced holds for this one."""
    return x.reshape(x.shape[0], int(x.shape[1]), x.shape[2]) if torch.jit.is_tracing() else x


def reversed_steps(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x (B, L, H) with the steps of each sequence in the opposite order; padding stays behind the lengths (B,)."""
    if lengths is None:
        return x.flip(1)
    step = torch.arange(x.shape[1], device=x.device)
    last = check_lengths(lengths, *x.shape[:2]).to(x.device).long().unsqueeze(-1) - 1
    return x.take_along_dim(torch.where(step <= last, last - step, step).unsqueeze(-1), dim=1)
