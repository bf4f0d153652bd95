"""Samples that are a pure function of (seed, split, epoch, index), whatever the workers and processes."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hope_ssm.checks import check_choice

SPLITS = ("train", "val", "test")


def check_seed(seed: Any) -> int:
    """Return ``seed`` as an int if it is a whole number from 0 to 2⁶³ - 1; otherwise raise."""
    wanted = "seed must be a whole number from 0 to 2**63 - 1"
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"{wanted}; got {seed!r} ({type(seed).__name__}).")
    if not 0 <= int(seed) < 2**63:
        raise ValueError(f"{wanted}; got {seed}.")
    return int(seed)


class RandomDataset(Dataset):
    """Sample = f(index, ξ),  ξ = Philox(key = (seed, split), counter = (stream, epoch, index)).

    Philox is a block cipher of its counter, which begins at (0, stream, epoch, index) here and goes on in its lowest
    word: under one key no two samples or epochs share a block, and seeds and splits are keys. So a sample does not
    depend on who asks for it, or when.

    A data set that is not ``fixed`` changes from epoch to epoch. The training loop calls ``set_epoch`` before each.
    Until it is called, every access draws its own epoch from torch's generator, because some hosts never call it.

    Args:
        seed: from 0 to 2⁶³ - 1.
        split: ``"train"``, ``"val"`` or ``"test"``.
        fixed: the same samples in every epoch; by default in evaluation alone.

    Source: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011.
    """

    stream = 0  # another where one data set wraps another, so that they draw different numbers

    def __init__(self, seed: int, split: str, fixed: bool | None = None) -> None:
        self.seed = check_seed(seed)
        self.split = check_choice("split", split, SPLITS)
        self.fixed = split != "train" if fixed is None else fixed
        self._epoch = torch.tensor([-1]).share_memory_()  # seen by workers that live on from epoch to epoch

    def set_epoch(self, epoch: int) -> None:
        """Give the samples of this epoch from now on, here and in running workers."""
        self._epoch[0] = epoch

    def generator(self, index: int) -> np.random.Generator:
        """Return the random numbers of sample ``index`` from their beginning; raise ``IndexError`` if there is none."""
        index = range(len(self))[index]  # type: ignore[arg-type]
        epoch = 0 if self.fixed else int(self._epoch)
        if epoch < 0:
            epoch = int(torch.randint(2**63 - 1, ()))
        return np.random.Generator(
            np.random.Philox(key=[self.seed, SPLITS.index(self.split)], counter=[0, self.stream, epoch, index])
        )
