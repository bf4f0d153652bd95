"""Tones: which two frequencies sounded at the start of a sequence of noise."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from hope_ssm.checks import check_positive_integer, check_positive_number
from hope_ssm.datasets.randomness import RandomDataset

FREQUENCIES = tuple(0.05 * 50 ** (i / 4) for i in range(5))  # radians per step: 0.05, 0.13, 0.35, 0.94, 2.5
PAIRS = tuple(combinations(range(len(FREQUENCIES)), 2))


class Tones(RandomDataset):
    """x_t = [t < l_tone] (sin(θ_i t + φ) + sin(θ_j t + ψ)) + noise · ξ_t,  y = number of the pair (i, j), one of ten.

    The five frequencies θ go from 0.05 to 2.5 radians per step in equal ratios; φ and ψ are uniform on [0, 2π), ξ is
    standard normal. To tell the pair at the end, waves of all these frequencies must be kept through the noise.

    Args:
        n: how many samples.
        l_seq: steps, at least l_tone.
        l_tone: steps that the tones sound.
        noise: standard deviation, above 0.
        seed: see :class:`~hope_ssm.datasets.randomness.RandomDataset`.
        split: see there.
        fixed: see there.

    Samples: x (l_seq, 1), float32, and the class.
    """

    def __init__(
        self,
        n: int,
        seed: int,
        split: str,
        fixed: bool | None = None,
        *,
        l_seq: int = 512,
        l_tone: int = 64,
        noise: float = 1.0,
    ) -> None:
        super().__init__(seed, split, fixed)
        self.n = check_positive_integer("number of samples", n)
        self.l_seq = check_positive_integer("l_seq", l_seq)
        self.l_tone = check_positive_integer("l_tone", l_tone)
        if self.l_tone > self.l_seq:
            raise ValueError(f"l_tone must be at most l_seq={l_seq}; got {l_tone}.")
        self.noise = check_positive_number("noise", noise)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = self.generator(index)
        pair = int(generator.integers(len(PAIRS)))
        phases = generator.uniform(0, 2 * np.pi, size=2)
        x = self.noise * generator.standard_normal(self.l_seq)
        t = np.arange(self.l_tone)
        for tone, phase in zip(PAIRS[pair], phases, strict=True):
            x[: self.l_tone] += np.sin(FREQUENCIES[tone] * t + phase)
        return torch.from_numpy(x.astype(np.float32)).unsqueeze(-1), pair
