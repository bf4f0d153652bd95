"""Data loaders: the splits of a data set in batches, or in chunks, in an order that depends on seed and epoch alone."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from hope_ssm.checks import check_known, check_positive_integer
from hope_ssm.workbench.data.registry import make_splits
from hope_ssm.workbench.data.seeding import gathered, generators, mixed, seed_epoch, set_generators

LOADER_OPTIONS = (
    *("batch_size", "num_workers", "pin_memory", "drop_last", "persistent_workers", "prefetch_factor"),
    "chunk_len",
)
_START_METHODS = (None, "fork", "spawn", "forkserver")


class ChunkLoader(DataLoader):
    """(x (B, L, d), y) ↦ (x[:, :c], y, {"reset": True}), (x[:, c:2c], y, {"reset": False}), …  with c = ``chunk_len``.

    Targets of every step, y (B, L, …), are cut like x; others, the class of a sequence say, go with every chunk, as do
    all where ``l_output`` is 0: one prediction a sequence. chunk_len None leaves the batches whole.
    """

    def __init__(self, *args: Any, chunk_len: int | None = None, l_output: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.l_output = l_output
        self.chunk_len = None if chunk_len is None else check_positive_integer("loader.chunk_len", chunk_len)

    def __iter__(self) -> Any:
        return super().__iter__() if self.chunk_len is None else self._chunks(super().__iter__())

    def _chunks(self, batches: Iterator[Any]) -> Iterator[tuple[Tensor, Tensor, dict[str, bool]]]:
        for x, y, *more in batches:
            if more:
                raise ValueError("loader.chunk_len needs batches (x, y); got more, lengths for example.")
            along = self.l_output != 0 and y.ndim > 1 and y.shape[1] == x.shape[1]
            chunks = x.split(self.chunk_len, dim=1)
            targets = y.split(self.chunk_len, dim=1) if along else [y] * len(chunks)
            for i, (part, target) in enumerate(zip(chunks, targets, strict=True)):
                yield part, target, {"reset": i == 0}

    def __len__(self) -> int:
        chunks = 1 if self.chunk_len is None else -(-self.dataset[0][0].shape[0] // self.chunk_len)
        return super().__len__() * chunks


class SameOrder(SequentialSampler):
    """The same samples in the same order in every epoch, whose number it keeps."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Keep the number."""
        self.epoch = epoch


class TrainingLoader(ChunkLoader):
    """Every epoch in an order of its own, each process its share, and all its randomness from (seed, epoch, rank).

    The method ``set_epoch(epoch)`` of a data set is called, if it has one. The global generators are seeded as well.
    So whatever draws from them in the epoch, dropout for example, is repeated after a resume.

    Args:
        dataset: of the training split.
        seed: of the run.
        rank: of this process.
        world_size: number of processes.
        drop_last: leave out what does not fill a batch, or does not divide among the processes.
        same_order: the same samples in the same order in every epoch, for ``trainer.overfit_batches``.
        **options: of ``ChunkLoader``.
    """

    def __init__(
        self, dataset: Dataset, *, seed: int, rank: int, world_size: int, drop_last: bool = True,
        same_order: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        sampler: Any = (
            SameOrder(dataset)  # type: ignore[arg-type]
            if same_order
            else DistributedSampler(dataset, world_size, rank, shuffle=True, seed=seed, drop_last=drop_last)
        )
        super().__init__(
            dataset, sampler=sampler, drop_last=drop_last, generator=torch.Generator().manual_seed(0), **options
        )
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self._batches = 0  # of this epoch, so far
        self._resumed: Mapping[str, Any] | None = None

    sampler: DistributedSampler

    def __iter__(self) -> Any:
        epoch = self.sampler.epoch
        if hasattr(self.dataset, "set_epoch") and not isinstance(self.sampler, SameOrder):
            self.dataset.set_epoch(epoch)
        self.generator.manual_seed(mixed(self.seed, epoch, self.rank))  # of the workers
        seed_epoch(self.seed, epoch, self.rank)
        resumed, self._resumed = self._resumed, None
        return self._counted(super().__iter__(), resumed)

    def _counted(self, batches: Iterator[Any], resumed: Mapping[str, Any] | None) -> Iterator[Any]:
        """Yield the batches of an epoch; those from before a resume are drawn, as they were, and dropped."""
        self._batches = 0
        for batch in batches:
            self._batches += 1
            if resumed is None or self._batches > resumed["batches"]:
                yield batch
            elif self._batches == resumed["batches"] and len(resumed["generators"]) == self.world_size:
                set_generators(resumed["generators"][self.rank])

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches of the epoch were drawn, and the global generators of every process."""
        return {"batches": self._batches, "generators": gathered(generators())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on in the middle of an epoch, at the next iteration; Lightning asks for it there alone."""
        self._resumed = state


class EvaluationLoader(ChunkLoader):
    """The same batches at every iteration, drawn without the global generators, on which training goes on after it."""

    def __init__(self, dataset: Dataset, *, seed: int, **options: Any) -> None:
        super().__init__(dataset, generator=torch.Generator(), **options)
        self.seed = seed

    def __iter__(self) -> Any:
        self.generator.manual_seed(self.seed)  # of the workers
        return super().__iter__()


class DataModule(pl.LightningDataModule):
    """The splits named by ``dataset`` behind data loaders made with the options of ``loader``.

    Args:
        dataset: configuration with ``_name_``; keys with leading underscores are the host's and not passed on.
        loader: options of ``torch.utils.data.DataLoader``; ``drop_last`` holds for training only. ``chunk_len`` cuts
            sequences into chunks, see ``streaming``. ``batch_size`` is that of each process.
        seed: of the run, for the order of the training samples.
    """

    def __init__(self, dataset: Mapping[str, Any], loader: Mapping[str, Any], seed: int = 0) -> None:
        super().__init__()
        self.splits = make_splits(dataset)
        check_known("loader", loader, LOADER_OPTIONS)
        self.seed = seed
        self.loader = {**loader, "collate_fn": self.splits.collate, "l_output": self.splits.l_output}
        self.loader["pin_memory"] = bool(loader.get("pin_memory")) and torch.cuda.is_available()
        self.loader["drop_last"] = bool(loader.get("drop_last"))
        if loader.get("num_workers") and multiprocessing.get_start_method(allow_none=True) not in _START_METHODS:
            self.loader["multiprocessing_context"] = "fork" if hasattr(os, "fork") else "spawn"  # joblib's is loky

    def train_dataloader(self) -> DataLoader:
        """Return the shuffled training loader, at the epoch that comes next."""
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        size = len(self.splits.train) // world_size  # type: ignore[arg-type]
        if self.loader["drop_last"] and size < self.loader.get("batch_size", 1):
            raise ValueError(
                f"a process must have at least loader.batch_size={self.loader['batch_size']} training samples with "
                f"loader.drop_last=true; it has {size}. Lower loader.batch_size or set loader.drop_last=false."
            )
        few = getattr(trainer, "overfit_batches", 0)
        if few and world_size > 1:
            raise ValueError(
                "trainer.overfit_batches must be left out with more than one process; got "
                f"{few}. Set trainer.devices=1."
            )
        loader = TrainingLoader(
            self.splits.train, seed=self.seed, rank=rank, world_size=world_size, same_order=bool(few), **self.loader
        )
        # Lightning tells the sampler its epoch before each but the first of a process, the one after a resume.
        current: Any = None if trainer is None else trainer.fit_loop.epoch_progress.current
        loader.sampler.set_epoch(0 if current is None else current.processed)
        return loader

    def _evaluation(self, dataset: Dataset) -> DataLoader:
        return EvaluationLoader(dataset, seed=self.seed, **{**self.loader, "drop_last": False})

    def val_dataloader(self) -> DataLoader:
        """Return the validation loader."""
        return self._evaluation(self.splits.val)

    def test_dataloader(self) -> DataLoader:
        """Return the test loader."""
        return self._evaluation(self.splits.test)
