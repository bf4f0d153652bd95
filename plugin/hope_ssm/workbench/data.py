"""Data sets of the workbench, by the host's ``dataset._name_``: three torch data sets and their sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from hope_ssm.checks import nearest
from hope_ssm.datasets.digits import N_CLASSES, digits
from hope_ssm.datasets.noise_tail import NoiseTail
from hope_ssm.workbench.options import instantiate
from hope_ssm.workbench.streaming import ChunkLoader


@dataclass(frozen=True)
class Splits:
    """Pairs (x (L, d_input), target) for training, validation and test."""

    train: Dataset
    val: Dataset
    test: Dataset
    d_input: int
    d_output: int


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
LOADER_OPTIONS = ("batch_size", "num_workers", "pin_memory", "drop_last", "persistent_workers", "prefetch_factor")
LOADER_OPTIONS += ("chunk_len",)


class DataModule(pl.LightningDataModule):
    """The splits named by ``dataset`` behind data loaders made with the options of ``loader``.

    Args:
        dataset: configuration with ``_name_``; keys with leading underscores are the host's and not passed on.
        loader: options of ``torch.utils.data.DataLoader``; ``drop_last`` holds for training only. ``chunk_len`` cuts
            sequences into chunks, see ``streaming``.
    """

    def __init__(self, dataset: Mapping[str, Any], loader: Mapping[str, Any]) -> None:
        super().__init__()
        options = {key: value for key, value in dataset.items() if key == "_name_" or not key.startswith("_")}
        if options.get("_name_") in HOST_ONLY:
            raise ValueError(
                f"dataset must be one of {', '.join(DATASETS)} in the workbench; {options['_name_']!r} uses the "
                "readers of state-spaces/s4 and runs there only (python -m train …)."
            )
        self.splits: Splits = instantiate("dataset", DATASETS, options)
        for key in loader:
            if key not in LOADER_OPTIONS:
                valid = ", ".join(LOADER_OPTIONS)
                raise TypeError(f"loader has no option {key!r}; valid are {valid}.{nearest(key, LOADER_OPTIONS)}")
        self.loader = dict(loader)
        self.loader["pin_memory"] = bool(self.loader.get("pin_memory")) and torch.cuda.is_available()

    def _loader(self, dataset: Dataset, **changed: Any) -> DataLoader:
        options = {**self.loader, **changed}
        if options.get("chunk_len") is not None:
            return ChunkLoader(dataset, **options)
        options.pop("chunk_len", None)
        return DataLoader(dataset, **options)

    def train_dataloader(self) -> DataLoader:
        """Return the shuffled training loader."""
        return self._loader(self.splits.train, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Return the validation loader."""
        return self._loader(self.splits.val, drop_last=False)

    def test_dataloader(self) -> DataLoader:
        """Return the test loader."""
        return self._loader(self.splits.test, drop_last=False)
