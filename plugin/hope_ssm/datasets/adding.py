"""Adding: the sum of two marked numbers far apart."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hope_ssm.checks import check_positive_integer
from hope_ssm.datasets.randomness import RandomDataset


class Adding(RandomDataset):
    """y = Σ_t u_t c_t,  x_t = (u_t, c_t):  u_t uniform on [0, 1), c_t one at one step in each half and zero elsewhere.

    Args:
        n: how many samples.
        l_max: steps, at least 2; the first half has ⌊l_max/2⌋.
        seed: see ``RandomDataset``.
        split: see ``RandomDataset``.
        fixed: see ``RandomDataset``.

    Samples: x (l_max, 2), y (1,), float32. Answering 1 always has a mean square error of 1/6.

    Source: S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9 (1997); with one mark in
    each half, arXiv 1511.06464.
    """

    def __init__(self, n: int, seed: int, split: str, fixed: bool | None = None, *, l_max: int = 1000) -> None:
        super().__init__(seed, split, fixed)
        self.n = check_positive_integer("number of samples", n)
        self.l_max = check_positive_integer("l_max", l_max)
        if l_max < 2:
            raise ValueError(f"l_max must be at least 2, one step in each half; got {l_max}.")

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        generator, half = self.generator(index), self.l_max // 2
        x = np.zeros((self.l_max, 2), dtype=np.float32)
        x[:, 0] = generator.random(self.l_max, dtype=np.float32)
        marked = [generator.integers(half), half + generator.integers(self.l_max - half)]
        x[marked, 1] = 1.0
        return torch.from_numpy(x), torch.from_numpy(x[marked, 0].sum(keepdims=True))
