"""Vocabularies, and sequences of tokens of different lengths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hope_ssm.checks import check_flag, check_positive_integer

PAD, UNKNOWN, BEGIN, END = "<pad>", "<unk>", "<bos>", "<eos>"


def characters(text: str) -> np.ndarray:
    """Return the code points (L,) of a text, as bytes if they are."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    return points.astype(np.uint8) if not len(points) or points.max() < 256 else points


class Vocabulary:
    """Token ↦ its number: ``<pad>`` 0, ``<unk>`` 1, ``<bos>`` and ``<eos>`` if asked for, then the most frequent first.

    Tokens of the same frequency are in alphabetical order.

    Args:
        texts: code points of the training texts.
        min_freq: rarer tokens are ``<unk>``.
        append_bos: begin every text with ``<bos>``.
        append_eos: end every text with ``<eos>``.
        l_max: tokens of a text at most, those included.
        name: of a code point, by which ties are ordered; by default the character.
    """

    def __init__(
        self,
        texts: Iterable[np.ndarray],
        *,
        l_max: int,
        min_freq: int = 1,
        append_bos: bool = False,
        append_eos: bool = True,
        name: Callable[[int], str] = chr,
    ) -> None:
        check_positive_integer("min_freq", min_freq)
        begin, end = check_flag("append_bos", append_bos), check_flag("append_eos", append_eos)
        self.length = check_positive_integer("l_max", l_max) - begin - end
        if self.length < 1:
            raise ValueError(f"l_max must leave a step to the text; got {l_max}.")
        counts: dict[int, int] = {}
        for text in texts:
            for point, n in zip(*np.unique(text[: self.length], return_counts=True), strict=True):
                counts[int(point)] = counts.get(int(point), 0) + int(n)
        kept = sorted((-n, name(point), point) for point, n in counts.items() if n >= min_freq)
        self.tokens = [PAD, UNKNOWN, *[BEGIN] * begin, *[END] * end, *(label for _, label, _ in kept)]
        self._first = [self.tokens.index(BEGIN)] if begin else []
        self._last = [self.tokens.index(END)] if end else []
        self._table = np.full(max((point for *_, point in kept), default=0) + 2, self.tokens.index(UNKNOWN))
        for number, (*_, point) in enumerate(kept, len(self.tokens) - len(kept)):
            self._table[point] = number
        self._dtype = np.uint8 if len(self.tokens) <= 256 else np.int32

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, text: np.ndarray) -> np.ndarray:
        """Return the numbers (L,) of code points, cut so that begin and end have a place."""
        points = np.minimum(text[: self.length].astype(np.int64), len(self._table) - 1)
        return np.concatenate([self._first, self._table[points], self._last]).astype(self._dtype)


class TokenSequences(Dataset):
    """Pairs (x, class), x (L,) int64; or ((x, x'), class) of two sequences each.

    Args:
        columns: encoded sequences; one list, or two.
        classes: one per row.
    """

    def __init__(self, columns: Sequence[Sequence[np.ndarray]], classes: Sequence[int]) -> None:
        self.columns, self.classes = columns, classes

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, index: int) -> tuple[Tensor | tuple[Tensor, ...], int]:
        xs = tuple(torch.from_numpy(column[index].astype(np.int64)) for column in self.columns)
        return xs[0] if len(xs) == 1 else xs, self.classes[index]
