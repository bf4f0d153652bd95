"""Decoders one stretch at a time: what each read out so far, carried as a state. Axes: B batch, L steps, H features.

A read-out gives the prediction for everything heard up to each step: after all L steps that is the decoder's own.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.layers.tail_pool import TailPool
from hope_ssm.workbench.models.coders import RetrievalDecoder, SequenceDecoder


class Readout:
    """y_t = W z_t + b of a decoder, from what it read out of x_1 … x_t.

    This one, of ``mode="last"`` and of the first steps of many, has z_t = x_t and carries nothing.

    Args:
        decoder: whose map of z to a prediction is taken; a retrieval decoder compares the z of two sequences.
    """

    size = 0

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder

    def __call__(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Map the next L steps (B, L, H) to predictions (B, L, d_output), and the state to the next one."""
        z, state = self.read(x, state)
        return self.decoder.compare(z) if hasattr(self.decoder, "compare") else self.decoder.output_transform(z), state

    def default_state(self, like: Tensor) -> list[Tensor]:
        """Return the state before the first step, ``size`` tensors (B, …); ``like`` is (B, H)."""
        return []

    def read(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """(x (B, L, H), state) ↦ (z (B, L, H), state)."""
        return x, []


class Counting(Readout):
    """A read-out that carries the number of steps so far, (B,) whole, beside something else."""

    size = 2

    def default_state(self, like: Tensor) -> list[Tensor]:
        """Return what is carried before the first step, and 0."""
        return [self.empty(like), torch.zeros(len(like), dtype=torch.int64, device=like.device)]

    def empty(self, like: Tensor) -> Tensor:
        """Return what is carried before the first step."""
        return torch.zeros_like(like)

    def read(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Count, and read out."""
        carried, count = state
        steps = count.unsqueeze(-1) + torch.arange(1, x.shape[1] + 1, device=x.device)
        z, carried = self.counted(x, carried, steps.unsqueeze(-1))
        return z, [carried, count + x.shape[1]]

    @abstractmethod
    def counted(self, x: Tensor, carried: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """z_t and what is carried on; ``steps`` t (B, L, 1) counts from 1."""


class First(Counting):
    """z_t = x_1."""

    def counted(self, x: Tensor, carried: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the first step."""
        first = torch.where(steps[:, 0] == 1, x[:, 0], carried)
        return first.unsqueeze(1).expand_as(x), first


class Mean(Counting):
    """z_t = m_t = m_{t-1} + (x_t - m_{t-1}) / t, the mean of x_1 … x_t; it neither grows nor loses digits with t."""

    def counted(self, x: Tensor, carried: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Average."""
        mean = carried.unsqueeze(1)
        mean = mean + (x - mean).cumsum(1) / steps
        return mean, mean[:, -1]


class Sum(Readout):
    """z_t = x_1 + … + x_t."""

    size = 1

    def default_state(self, like: Tensor) -> list[Tensor]:
        """Return 0."""
        return [torch.zeros_like(like)]

    def read(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Add up."""
        sums = state[0].unsqueeze(1) + x.cumsum(1)
        return sums, [sums[:, -1]]


class Tail(Counting):
    """z_t = mean of x_{t-l+1} … x_t for l = ``l_tail``, of all steps while there are fewer; the last l are carried."""

    def empty(self, like: Tensor) -> Tensor:
        """Return l zeros, (B, l, H)."""
        return like.new_zeros(len(like), self.decoder.l_tail, like.shape[-1])

    def counted(self, x: Tensor, carried: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """Average over the window."""
        heard = torch.cat([carried, x], dim=1)
        sums = heard[:, 1:].unfold(1, self.decoder.l_tail, 1).sum(-1)
        return sums / steps.clamp(max=self.decoder.l_tail), heard[:, x.shape[1] :]


def make_readout(decoder: nn.Module) -> Readout:
    """Return how a decoder reads out the steps so far.

    Raises:
        NotImplementedError: a decoder of another kind.
    """
    if isinstance(decoder, TailPool):
        return Tail(decoder)
    inner = decoder.feature if isinstance(decoder, RetrievalDecoder) else decoder
    if not isinstance(inner, SequenceDecoder):
        raise NotImplementedError(
            f"a step must have a decoder with a running form (sequence, tail_pool, retrieval); got "
            f"{type(decoder).__name__}. Take the backbone alone: model.model.step."
        )
    modes = {"pool": Mean, "sum": Sum, "first": First if inner.l_output == 0 else Readout, "last": Readout}
    return modes[inner.mode](decoder)
