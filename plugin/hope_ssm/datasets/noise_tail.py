"""The memory experiment: a signal followed by noise, classified from the outputs over the noise alone.

Whatever is read off there was carried through the noise by the model's memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from hope_ssm.checks import check_lengths, check_positive_integer
from hope_ssm.datasets.randomness import RandomDataset


class NoiseTail(RandomDataset):
    """x ↦ [x_1 … x_L, u_1 … u_M],  u_t uniform on [0, 1)^d: fresh in every epoch of training, fixed in evaluation.

    Args:
        signals: data set of pairs (x (L, d), target); if it has ``set_epoch``, it is told the epoch too.
        l_noise: M, at least 1.
        seed, split, fixed: of the noise, see :class:`~hope_ssm.datasets.randomness.RandomDataset`.

    Source: arXiv 2405.13975, the noise-padded sequential CIFAR-10 experiment.
    """

    stream = 1

    def __init__(self, signals: Dataset, l_noise: int, seed: int, split: str, fixed: bool | None = None) -> None:
        super().__init__(seed, split, fixed)
        self.signals = signals
        self.l_noise = check_positive_integer("l_noise", l_noise)

    def __len__(self) -> int:
        return len(self.signals)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        x, target = self.signals[index][:2]
        noise = self.generator(index).random((self.l_noise, x.shape[-1]), dtype=np.float32)
        return torch.cat([x, torch.from_numpy(noise).to(x.dtype)]), target

    def set_epoch(self, epoch: int) -> None:
        """Give the noise, and the signals, of this epoch from now on."""
        super().set_epoch(epoch)
        if hasattr(self.signals, "set_epoch"):
            self.signals.set_epoch(epoch)


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
