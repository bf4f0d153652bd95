"""What image data sets share: pixels as steps, their order, and the cut into three splits."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from hope_ssm.checks import check_choice
from hope_ssm.datasets.randomness import check_seed


def cut(x: Tensor, y: Tensor, seed: int, *, test_split: float, val_split: float) -> dict[str, TensorDataset]:
    """Return ``{"train", "val", "test"}``: the pairs shuffled with ``seed`` and cut; depends on nothing else.

    Args:
        x: inputs, one per row.
        y: targets, one per row.
        seed: of the shuffle.
        test_split: share of all pairs, above 0; together with ``val_split`` below 1.
        val_split: share of all pairs, above 0.

    Raises:
        ValueError: shares that leave a split empty.
    """
    n_test, n_val = round(len(x) * test_split), round(len(x) * val_split)
    if min(n_test, n_val) < 1 or n_test + n_val >= len(x):
        raise ValueError(
            f"test_split and val_split must leave no split of {len(x)} images empty; got {test_split} and {val_split}."
        )
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(check_seed(seed)))
    parts = dict(zip(("test", "val", "train"), order.tensor_split([n_test, n_test + n_val]), strict=True))
    return {name: TensorDataset(x[index], y[index]) for name, index in parts.items()}


def bit_reversal(n: int) -> Tensor:
    """Return 0 … n-1 ordered by their binary digits read backwards: neighbours in time come from far apart."""
    digits = max(1, math.ceil(math.log2(n)))
    numbers = torch.arange(2**digits)
    reversed_ = torch.stack([((numbers >> digit) & 1) << (digits - 1 - digit) for digit in range(digits)]).sum(0)
    return reversed_[reversed_ < n]


def snake(height: int, width: int) -> Tensor:
    """Return the pixels row by row, every second row from right to left: neighbours in time are neighbours."""
    rows = torch.arange(height * width).view(height, width)
    rows[1::2] = rows[1::2].flip(1)
    return rows.flatten()


def pixel_order(permute: str | bool | None, height: int, width: int) -> Tensor | None:
    """Return the order called ``permute``: ``"br"`` (true is the same), ``"snake"``, or None (false) for row by row."""
    if permute is None or permute is False:
        return None
    name = check_choice("dataset.permute", "br" if permute is True else permute, ("br", "snake"))
    return bit_reversal(height * width) if name == "br" else snake(height, width)
