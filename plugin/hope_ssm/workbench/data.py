"""Data sets of the workbench, by the host's ``dataset._name_``: three torch data sets and their sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset

from hope_ssm.datasets.digits import N_CLASSES, digits
from hope_ssm.datasets.noise_tail import NoiseTail
from hope_ssm.workbench.options import instantiate


@dataclass(frozen=True)
class Splits:
    """Pairs (x (L, d_input), target) for training, validation and test."""

    train: Dataset
    val: Dataset
    test: Dataset
    d_input: int
    d_output: int
    collate: Callable | None = None  # torch's if None


def noisy_digits(l_noise: int = 192, seed: int = 42) -> Splits:
    """Digits as 64 steps, then ``l_noise`` steps of noise: fresh in training, fixed in evaluation."""
    parts = digits(seed)
    return Splits(
        train=NoiseTail(parts["train"], l_noise),
        val=NoiseTail(parts["val"], l_noise, seed=seed),
        test=NoiseTail(parts["test"], l_noise, seed=seed + 1),
        d_input=1,
        d_output=N_CLASSES,
    )


DATASETS = {"noisy-digits": noisy_digits}
HOST_ONLY = ("noisy-cifar",)


def make_splits(dataset: Mapping[str, Any]) -> Splits:
    """Return the splits that the configuration ``dataset`` names; keys with leading underscores are the host's."""
    options = {key: value for key, value in dataset.items() if key == "_name_" or not key.startswith("_")}
    if options.get("_name_") in HOST_ONLY:
        raise ValueError(
            f"dataset must be one of {', '.join(DATASETS)} in the workbench; {options['_name_']!r} uses the "
            "readers of state-spaces/s4 and runs there only (python -m train …)."
        )
    return instantiate("dataset", DATASETS, options)
