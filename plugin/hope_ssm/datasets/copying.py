"""Copying: remember some tokens through many blanks, and repeat them when asked."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hope_ssm.checks import check_flag, check_positive_integer
from hope_ssm.datasets.randomness import RandomDataset


class Copying(RandomDataset):
    """x = (m_1 … m_M, 0 … 0, q … q),  y = (m_1 … m_M):  M tokens, ``l_noise`` blanks, M questions q = n_tokens - 1.

    m_i is uniform on 1 … n_tokens - 2; 0 is blank. The answers belong to the last M steps.

    Args:
        n: how many samples.
        l_noise: blanks, at least 1.
        l_memorize: M, at least 1.
        n_tokens: size of the alphabet, at least 3.
        variable: the tokens in their order, but anywhere among the first M + l_noise steps.
        lag: instead, x of l_noise tokens and y_t = x_{t-M} (0 before the start), without blanks and questions.
        one_hot: x as vectors (L, n_tokens) of zeros and a one, not numbers (L,).
        reverse: the answers backwards (not with ``lag``).
        seed: see ``RandomDataset``.
        split: see ``RandomDataset``.
        fixed: see ``RandomDataset``.

    Samples: x (L,) int64 or (L, n_tokens) float32, with L = l_noise + 2M, or l_noise with ``lag``; y (M,) int64, or
    (l_noise,) with ``lag``.

    Source: M. Arjovsky, A. Shah, Y. Bengio, "Unitary Evolution Recurrent Neural Networks", ICML 2016.
    """

    def __init__(
        self,
        n: int,
        seed: int,
        split: str,
        fixed: bool | None = None,
        *,
        l_noise: int = 100,
        l_memorize: int = 10,
        n_tokens: int = 10,
        variable: bool = False,
        lag: bool = False,
        one_hot: bool = False,
        reverse: bool = False,
    ) -> None:
        super().__init__(seed, split, fixed)
        self.n = check_positive_integer("number of samples", n)
        self.l_noise = check_positive_integer("l_noise", l_noise)
        self.l_memorize = check_positive_integer("l_memorize", l_memorize)
        self.n_tokens = check_positive_integer("n_tokens", n_tokens)
        if n_tokens < 3:
            raise ValueError(f"n_tokens must be at least 3: blank, question, and one to memorize; got {n_tokens}.")
        self.variable, self.lag = check_flag("variable", variable), check_flag("lag", lag)
        self.one_hot, self.reverse = check_flag("one_hot", one_hot), check_flag("reverse", reverse)
        if lag and (variable or reverse):
            raise ValueError("lag must stand alone; got variable or reverse with it. Set one of them to false.")

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x, y = self._lagged(self.generator(index)) if self.lag else self._memorized(self.generator(index))
        tokens = torch.from_numpy(x)
        if self.one_hot:
            tokens = torch.nn.functional.one_hot(tokens, self.n_tokens).float()
        return tokens, torch.from_numpy(y)

    def _lagged(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        x = generator.integers(1, self.n_tokens - 1, self.l_noise)
        return x, np.concatenate([np.zeros(self.l_memorize, dtype=np.int64), x])[: self.l_noise]

    def _memorized(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        y = generator.integers(1, self.n_tokens - 1, self.l_memorize)
        x = np.zeros(self.l_noise + 2 * self.l_memorize, dtype=np.int64)
        places: slice | np.ndarray = slice(self.l_memorize)
        if self.variable:
            free = self.l_noise + self.l_memorize
            places = np.sort(generator.choice(free, self.l_memorize, replace=False))
        x[places] = y
        x[-self.l_memorize :] = self.n_tokens - 1
        return x, y[::-1].copy() if self.reverse else y
