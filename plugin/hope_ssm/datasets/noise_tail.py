"""The memory experiment: a signal followed by noise, classified from the outputs over the noise alone.

Whatever is read off there was carried through the noise by the model's memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hope_ssm.checks import check_positive_integer
from hope_ssm.datasets.randomness import RandomDataset


class NoiseTail(RandomDataset):
    """x ↦ [x_1 … x_L, u_1 … u_M],  u_t uniform on [0, 1)^d: fresh in every epoch of training, fixed in evaluation.

    Args:
        signals: data set of pairs (x (L, d), target); if it has ``set_epoch``, that is called too.
        l_noise: M, at least 1.
        seed: of the noise, see ``RandomDataset``.
        split: of the noise, see ``RandomDataset``.
        fixed: of the noise, see ``RandomDataset``.

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
