"""Delay: repeat a band-limited white signal some time later."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from hope_ssm.checks import check_positive_integer, check_positive_number
from hope_ssm.datasets.randomness import RandomDataset

RMS = 0.5


class Delay(RandomDataset):
    """y_t^{(i)} = x_{t - i·lag} (0 before the start),  i = 1 … n_lag, of x = s - s_0 with s white up to ``freq``.

    s has one complex Gaussian coefficient for each frequency m/(2n·dt), 0 < m ≤ n = ⌈l_seq/2⌉, of at most ``freq``;
    they are scaled so that s has a root mean square of 1/2 on average.

    Args:
        n: how many samples.
        l_seq: steps, at least 3.
        n_lag: how many delays; n_lag·l_lag is at most l_seq.
        l_lag: the shortest delay in steps; None means l_seq // n_lag.
        dt: time between steps.
        freq: highest frequency, from 1/(l_seq·dt) to 1/(2·dt).
        seed: see ``RandomDataset``.
        split: see ``RandomDataset``.
        fixed: see ``RandomDataset``.

    Samples: x (l_seq, 1), y (l_seq, n_lag), float32.

    Source: A. Gu, I. Johnson, A. Timalsina, A. Rudra, C. Ré, "How to Train Your HiPPO", arXiv 2206.12037.
    """

    def __init__(
        self,
        n: int,
        seed: int,
        split: str,
        fixed: bool | None = None,
        *,
        l_seq: int = 1024,
        n_lag: int = 1,
        l_lag: int | None = None,
        dt: float = 0.001,
        freq: float = 100.0,
    ) -> None:
        super().__init__(seed, split, fixed)
        self.n = check_positive_integer("number of samples", n)
        self.l_seq = check_positive_integer("l_seq", l_seq)
        if l_seq < 3:
            raise ValueError(f"l_seq must be at least 3; got {l_seq}.")
        self.n_lag = check_positive_integer("n_lag", n_lag)
        self.l_lag = max(1, l_seq // n_lag) if l_lag is None else check_positive_integer("l_lag", l_lag)
        if self.n_lag * self.l_lag > l_seq:
            raise ValueError(
                f"n_lag·l_lag must be at most l_seq={l_seq}, or nothing is left to repeat; got {n_lag}·{self.l_lag}."
            )
        lowest, highest = 1 / (l_seq * check_positive_number("dt", dt)), 1 / (2 * dt)
        rounding = 1e-9 * highest
        if not lowest - rounding <= check_positive_number("freq", freq) <= highest + rounding:
            raise ValueError(f"freq must be from 1/(l_seq·dt) = {lowest:g} to 1/(2·dt) = {highest:g}; got {freq}.")
        half = math.ceil(l_seq / 2)
        band = (np.fft.rfftfreq(2 * half, d=dt) <= freq + rounding).astype(np.float64)
        band[0] = 0.0
        self._amplitudes = RMS * half / math.sqrt(band.sum()) * band

    def __len__(self) -> int:
        return self.n

    def signal(self, generator: np.random.Generator) -> Tensor:
        """Return x (l_seq,), float32."""
        real, imaginary = generator.standard_normal((2, len(self._amplitudes)))
        imaginary[-1] = 0.0
        s = np.fft.irfft(self._amplitudes * (real + 1j * imaginary))[: self.l_seq]
        return torch.from_numpy(s - s[0]).float()

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = self.signal(self.generator(index))
        lags = [i * self.l_lag for i in range(1, self.n_lag + 1)]
        y = torch.stack([torch.cat([x.new_zeros(lag), x[: self.l_seq - lag]]) for lag in lags], dim=-1)
        return x.unsqueeze(-1), y
