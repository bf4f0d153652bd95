"""The read-out of the memory experiment: the last steps alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.checks import check_lengths, check_positive_integer


class TailPool(nn.Module):
    """y = W · mean_{t > L} x_t + b: a linear read-out of the mean over the last ``l_tail`` steps.

    Args:
        d_model: features of x.
        d_output: classes, or None for no linear map.
        l_tail: how many steps at the end are averaged; at least 1, at most the sequence length.
    """

    def __init__(self, d_model: int, d_output: int | None = None, *, l_tail: int) -> None:
        super().__init__()
        self.l_tail = check_positive_integer("l_tail", l_tail)
        self.output_transform = nn.Identity() if d_output is None else nn.Linear(d_model, d_output)

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None, **context: Any) -> Tensor:
        """Map (B, L, d_model) to (B, d_output), with ``lengths`` (B,) the tails before the padding.

        ``state`` and ``context`` are the host's and not used.
        """
        shortest = x.shape[-2] if lengths is None else int(check_lengths(lengths, *x.shape[:2]).min())
        if shortest < self.l_tail:
            raise ValueError(f"the sequence must have at least l_tail={self.l_tail} steps; got {shortest}.")
        if lengths is None:
            return self.output_transform(x[..., -self.l_tail :, :].mean(-2))
        steps = lengths.to(x.device).long().unsqueeze(-1) - torch.arange(self.l_tail, 0, -1, device=x.device)
        return self.output_transform(x.take_along_dim(steps.unsqueeze(-1), 1).mean(1))

    def step(self, x: Tensor, state: Any = None) -> Tensor:
        """Read out one step (B, d_model)."""
        return self.output_transform(x)
