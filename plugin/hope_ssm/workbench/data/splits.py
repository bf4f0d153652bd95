"""What a data set is to the workbench: three torch data sets, their sizes, and how samples become a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, default_collate

from hope_ssm.checks import check_positive_integer


def stack(samples: list[tuple]) -> Any:
    """(x (L, d), y), … ↦ (x (B, L, d), y (B, …)): samples of one shape.

    Raises:
        ValueError: the shapes differ.
    """
    try:
        return default_collate(samples)
    except RuntimeError as error:
        columns = zip(*samples, strict=False)
        if all(len({tuple(part.shape) for part in column if isinstance(part, Tensor)}) < 2 for column in columns):
            raise _shared_memory(error) from error  # not the samples, but what makes a batch of them
        shapes = sorted({tuple(part.shape) for sample in samples for part in sample[:1] if isinstance(part, Tensor)})
        raise ValueError(
            f"the samples of a batch must have one shape; got inputs of {', '.join(map(str, shapes[:3]))}, or targets "
            "that differ. For sequences of different lengths give Splits(…, collate=pad)."
        ) from None


def _shared_memory(error: RuntimeError) -> RuntimeError:
    """Return the error, with the mend where the memory between processes is short; workers reach it through that."""
    if "shared memory" not in str(error) and "/torch_" not in str(error) and "No space left" not in str(error):
        return error
    return RuntimeError(
        f"a loader's worker must have room in shared memory (/dev/shm) for a batch; got: {str(error).splitlines()[0]} "
        "Make it larger (docker run --shm-size=8g), or set loader.num_workers=0."
    )


def pad(samples: list[tuple]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """(x (L_i, d), y), … ↦ (x (B, max L_i, d), y (B, …), {"lengths": (L_1 … L_B)}), with zeros after each end.

    Tokens x (L_i,) likewise. Targets of every step, y (L_i, …), are padded as x is.
    """
    xs, ys = ([torch.as_tensor(part) for part in column] for column in zip(*samples, strict=True))
    lengths = torch.tensor([len(x) for x in xs])
    every_step = all(y.ndim > 0 and len(y) == len(x) for x, y in zip(xs, ys, strict=True))
    y = pad_sequence(ys, batch_first=True) if every_step else torch.stack(ys)
    return pad_sequence(xs, batch_first=True), y, {"lengths": lengths}


def pad_pairs(samples: list[tuple]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """((x (L_i,), x' (L'_i,)), y), … ↦ (first sequences, then second ones (2B, max L), y (B,), {"lengths": (2B,)})."""
    pairs, ys = zip(*samples, strict=True)
    x, _, lengths = pad([(x, 0) for column in zip(*pairs, strict=True) for x in column])
    return x, torch.as_tensor(ys), lengths


@dataclass(frozen=True)
class Splits:
    """Pairs (x, y) for training, validation and test.

    Attributes:
        train: torch data set for training. If its samples change from epoch to epoch, it has ``set_epoch(epoch)``.
        val: torch data set for validation.
        test: torch data set for the test.
        d_input: number of features of x (L, d_input); not used for tokens x (L,).
        d_output: number of classes, or of numbers to predict.
        l_output: number of steps that are predicted: 0 for one prediction per sequence (y is a class, or (d_output,)),
            k for the last k steps and None for all (y is (k,) classes, or (k, d_output)).
        n_tokens: size of the alphabet, if x are tokens 0 … n_tokens - 1.
        collate: makes a batch of samples: ``stack``, ``pad`` for sequences of different lengths, or ``pad_pairs``
            for two sequences per sample.
    """

    train: Dataset
    val: Dataset
    test: Dataset
    d_input: int
    d_output: int
    l_output: int | None = 0
    n_tokens: int | None = None
    collate: Callable[[list[tuple]], Any] | None = stack

    @classmethod
    def of(cls, parts: Mapping[str, Dataset], **options: Any) -> Splits:
        """Return the splits of ``{"train", "val", "test"}``; the options are those of the class."""
        return cls(parts["train"], parts["val"], parts["test"], **options)

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            part = getattr(self, name)
            if not (hasattr(part, "__getitem__") and hasattr(part, "__len__") and len(part)):
                raise ValueError(
                    f"Splits.{name} must be a data set with a length of at least 1 and samples by number; got "
                    f"{part if part is None or isinstance(part, (list, tuple)) else type(part).__name__}."
                )
        check_positive_integer("Splits.d_input", self.d_input)
        check_positive_integer("Splits.d_output", self.d_output)

    def longest(self) -> int:
        """Return the steps of the longest of up to 256 training sequences, spread over all of them."""
        count = len(self.train)  # type: ignore[arg-type]
        with torch.random.fork_rng(devices=[]):
            inputs = [self.train[i][0] for i in range(0, count, max(1, count // 256))]
        return max(len(x) for sample in inputs for x in (sample if isinstance(sample, tuple) else (sample,)))
