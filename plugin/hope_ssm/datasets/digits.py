"""Handwritten digits as pixel sequences: scikit-learn's 1797 real images of 8 × 8 pixels, no download."""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset

from hope_ssm.datasets.images import cut
from hope_ssm.extras import absent

N_CLASSES = 10


def digits(seed: int = 42, *, test_split: float = 0.2, val_split: float = 0.1) -> dict[str, TensorDataset]:
    """Return ``{"train", "val", "test"}``, each of pairs (x (64, 1) float32 in [0, 1], class 0 … 9).

    The images are shuffled with ``seed`` and cut: the split depends on nothing else.

    Args:
        seed: of the split.
        test_split: share of all images.
        val_split: share of all images.

    Raises:
        ImportError: scikit-learn is not installed (extra ``workbench``).

    Source: ``sklearn.datasets.load_digits``, the test set of E. Alpaydin and C. Kaynak, "Optical Recognition of
    Handwritten Digits", UCI Machine Learning Repository (1998).
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(absent("the digits need", "sklearn")) from error
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).unsqueeze(-1) / 16
    y = torch.tensor(labels, dtype=torch.long)
    return cut(x, y, seed, test_split=test_split, val_split=val_split)
