"""Sequences in memory: arrays of any lengths as data sets of the workbench. Axes: L steps, d features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hope_ssm.workbench.data.registry import DATASETS
from hope_ssm.workbench.data.splits import Splits, pad, stack


class Sequences(Dataset):
    """Pairs (x (L_i, d) float32, y) of arrays.

    Args:
        xs: arrays (L_i, d).
        ys: as many targets.
    """

    def __init__(self, xs: Sequence[np.ndarray], ys: Sequence[Any] | np.ndarray) -> None:
        self.xs = [torch.as_tensor(np.asarray(x, dtype=np.float32)) for x in xs]
        self.ys = [torch.as_tensor(y) for y in ys]

    def __len__(self) -> int:
        return len(self.xs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.xs[index], self.ys[index]


def collate_of(xs: Sequence[np.ndarray]) -> Callable[[list[tuple]], Any]:
    """Return what makes batches of them: ``stack`` where all have one length, else ``pad``."""
    return stack if len({len(x) for x in xs}) < 2 else pad


@contextmanager
def named(splits: Splits) -> Iterator[str]:
    """Give splits in memory a name for ``dataset._name_``, in this process and for the time of a ``with``."""
    name = f"in-memory-{uuid4().hex}"
    DATASETS[name] = lambda: splits
    try:
        yield name
    finally:
        del DATASETS[name]
