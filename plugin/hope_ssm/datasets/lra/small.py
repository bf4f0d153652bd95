"""ListOps of up to 128 symbols and Pathfinder of 16 x 16 pixels: drawn once, below ``$DATA_PATH/small``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from hope_ssm.datasets.lra import listops, making, pathfinder_files, texts
from hope_ssm.datasets.lra.tokens import Vocabulary
from hope_ssm.datasets.randomness import check_seed

LISTOPS_SIZE = 20_000
PATHFINDER_SIZE = 12_000
RESOLUTION = 16


def listops_folder(root: Path, seed: int = 0, size: int = LISTOPS_SIZE) -> Path:
    """Return where the samples are, with ``root`` the folder of all data."""
    return root / "small" / f"listops-{size}-{seed}"


def pathfinder_folder(root: Path, seed: int = 0, size: int = PATHFINDER_SIZE) -> Path:
    """Return where the folder ``curv_contour_length_14`` of the images is, with ``root`` the folder of all data."""
    return root / "small" / f"pathfinder{RESOLUTION}-{size}-{seed}"


def make_listops(
    root: Path,
    seed: int = 0,
    size: int = LISTOPS_SIZE,
    processes: int = 1,
    advance: Callable[[int], None] = lambda samples: None,
) -> bool:
    """Make the samples unless they are there; return whether they were not. Arguments: see ``listops.make``."""
    folder = listops_folder(root, seed, size)
    return listops.make(folder, seed, size, processes, advance, listops.SHORT)


def listops_splits(
    root: Path,
    data_seed: int = 0,
    size: int = LISTOPS_SIZE,
    *,
    l_max: int = 128,
    seed: int | None = None,
    val_split: float = 0.02,
    test_split: float = 0.02,
) -> tuple[dict[str, Dataset], Vocabulary]:
    """Make the samples unless they are there; return ``{"train", "val", "test"}`` of (x (L,), value), and the tokens.

    Args:
        root: the folder of all data.
        data_seed: of the samples.
        size: samples together.
        l_max: see ``Vocabulary``.
        seed: of a shuffle of all samples before they are cut; None leaves them in the order of the files, which have
            the default shares.
        val_split: share of all samples, above 0; together with ``test_split`` below 1.
        test_split: share of all samples, above 0.

    Raises:
        ValueError: shares that leave a split empty.
    """
    n_val, n_test = int(size * val_split), int(size * test_split)
    if min(n_val, n_test) < 1 or n_val + n_test >= size:
        raise ValueError(
            f"val_split and test_split must leave no split of {size} samples empty; got {val_split} and {test_split}."
        )
    make_listops(root, data_seed, size)
    parts, vocabulary = texts.listops(str(listops_folder(root, data_seed, size)), l_max=l_max, append_eos=False)
    samples: Dataset = ConcatDataset([parts["train"], parts["val"], parts["test"]])
    count = sum(map(len, parts.values()))  # less than ``size`` where damaged lines were left out
    order = list(range(count))
    if seed is not None:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(check_seed(seed))).tolist()
    n_train = count - n_val - n_test
    cut = {"train": order[:n_train], "val": order[n_train : count - n_test], "test": order[count - n_test :]}
    return {name: Subset(samples, indices) for name, indices in cut.items()}, vocabulary


def make_pathfinder(
    root: Path,
    seed: int = 0,
    size: int = PATHFINDER_SIZE,
    processes: int | None = None,
    advance: Callable[[int], None] = lambda images: None,
) -> bool:
    """Make the images unless they are there; return whether they were not. Arguments: see ``pathfinder_files.make``."""
    folder = pathfinder_folder(root, seed, size)
    processes = making.available_processes() if processes is None else processes
    return pathfinder_files.make(folder, RESOLUTION, seed, size, processes, advance=advance)
