"""Data loaders: the splits of a data set in batches, or in chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from hope_ssm.checks import nearest
from hope_ssm.workbench.data import make_splits
from hope_ssm.workbench.streaming import ChunkLoader

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
        self.splits = make_splits(dataset)
        for key in loader:
            if key not in LOADER_OPTIONS:
                valid = ", ".join(LOADER_OPTIONS)
                raise TypeError(f"loader has no option {key!r}; valid are {valid}.{nearest(key, LOADER_OPTIONS)}")
        self.loader = dict(loader)
        self.loader["pin_memory"] = bool(self.loader.get("pin_memory")) and torch.cuda.is_available()

    def _loader(self, dataset: Dataset, **changed: Any) -> DataLoader:
        options = {**self.loader, "collate_fn": self.splits.collate, **changed}
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
