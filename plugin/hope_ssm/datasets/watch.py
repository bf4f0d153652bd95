"""Shoulder exercises seen by a smartwatch: real recordings of different lengths, from the package seglearn."""

from __future__ import annotations

import importlib.util
import pickle
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hope_ssm.datasets.randomness import check_seed
from hope_ssm.extras import absent

N_CLASSES = 7
N_CHANNELS = 6
N_SUBJECTS = 10


class Recordings(Dataset):
    """Pairs (x (L, 6) float32, class 0 … 6) whose L differ.

    Args:
        x: recordings.
        y: their classes.
        subjects: who wore the watch, 1 … 10.
    """

    def __init__(self, x: list[Tensor], y: list[int], subjects: list[int]) -> None:
        self.x, self.y, self.subjects = x, y, subjects

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.x[index], self.y[index]


class _ArraysOnly(pickle.Unpickler):
    """Read NumPy arrays out of a pickle, and refuse everything else that it might call."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what an array of numbers is made with."""
        arrays = module.startswith("numpy") and name in ("_reconstruct", "ndarray", "dtype", "scalar")
        if arrays or (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"the watch recordings must hold arrays alone; got {module}.{name}.")


def read(file: BinaryIO) -> dict[str, Any]:
    """Return the mapping in a NumPy file of one object, which holds arrays, lists, texts and numbers alone.

    Raises:
        pickle.UnpicklingError: it holds anything else.
    """
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return _ArraysOnly(file).load().item()


@cache
def _recordings() -> dict[str, Any]:
    package = importlib.util.find_spec("seglearn")
    if package is None or package.origin is None:
        raise ImportError(absent("the watch recordings need", "seglearn"))
    with Path(package.origin).with_name("data").joinpath("watch_dataset.npy").open("rb") as file:
        return read(file)


def watch(seed: int = 42, *, n_test: int = 2, n_val: int = 1) -> dict[str, Recordings]:
    """Return ``{"train", "val", "test"}``: no subject is in two of them.

    Each channel (acceleration x, y, z, rotation x, y, z, at 50 Hz) is scaled to mean 0 and standard deviation 1 over
    the training subjects.

    Args:
        seed: of the order of subjects.
        n_test: subjects for the test, at least 1; together with ``n_val`` at most 9.
        n_val: subjects for validation, at least 1.

    Raises:
        ImportError: seglearn is not installed (extra ``data``).

    Source: D. M. Burns et al., "Shoulder Physiotherapy Exercise Recognition: Machine Learning the Inertial Signals from
    a Smartwatch", arXiv 1802.01489: 140 of its recordings, 947 to 2618 steps, 10 subjects, 7 exercises, both arms.
    """
    if min(n_test, n_val) < 1 or n_test + n_val >= N_SUBJECTS:
        raise ValueError(
            f"n_test and n_val must leave a subject to each of three splits of {N_SUBJECTS}; got {n_test} and {n_val}."
        )
    data = _recordings()
    order = torch.randperm(N_SUBJECTS, generator=torch.Generator().manual_seed(check_seed(seed))) + 1
    parts = dict(zip(("test", "val", "train"), order.tensor_split([n_test, n_test + n_val]), strict=True))
    training = np.concatenate([x for x, s in zip(data["X"], data["subject"], strict=True) if s in parts["train"]])
    mean, deviation = training.mean(0), training.std(0)
    splits = {}
    for name, subjects in parts.items():
        theirs = [i for i, subject in enumerate(data["subject"]) if subject in subjects]
        splits[name] = Recordings(
            [torch.from_numpy((data["X"][i] - mean) / deviation).float() for i in theirs],
            [int(data["y"][i]) for i in theirs],
            [int(data["subject"][i]) for i in theirs],
        )
    return splits
