"""The data sets of the Long-Range Arena: functions from the options of ``dataset`` to splits."""

from __future__ import annotations

from typing import Any

from hope_ssm.datasets.lra import pathfinder_images, small, texts
from hope_ssm.datasets.lra.files import place
from hope_ssm.workbench.data.splits import Splits, pad, pad_pairs


def listops(
    data_dir: str | None = None, l_max: int = 2048, append_bos: bool = False, append_eos: bool = True
) -> Splits:
    """Nested lists of digits under operators, to evaluate."""
    parts, vocabulary = texts.listops(data_dir, l_max=l_max, append_bos=append_bos, append_eos=append_eos)
    return Splits.of(parts, d_input=len(vocabulary), d_output=10, n_tokens=len(vocabulary), collate=pad)


def listops_small(
    size: int = small.LISTOPS_SIZE,
    data_seed: int = 0,
    l_max: int = 128,
    val_split: float = 0.02,
    test_split: float = 0.02,
    seed: int | None = None,
) -> Splits:
    """Nested lists of 16 to 128 symbols, drawn at first use."""
    shares = {"val_split": val_split, "test_split": test_split}
    parts, vocabulary = small.listops_splits(place(None), data_seed, size, l_max=l_max, seed=seed, **shares)
    return Splits.of(parts, d_input=len(vocabulary), d_output=10, n_tokens=len(vocabulary), collate=pad)


def imdb(
    data_dir: str | None = None,
    l_max: int = 4096,
    min_freq: int = 15,
    val_split: float = 0.0,
    append_bos: bool = False,
    append_eos: bool = True,
    seed: int = 42,
) -> Splits:
    """Film reviews as characters."""
    marks = {"append_bos": append_bos, "append_eos": append_eos}
    parts, vocabulary = texts.imdb(data_dir, seed=seed, l_max=l_max, min_freq=min_freq, val_split=val_split, **marks)
    return Splits.of(parts, d_input=len(vocabulary), d_output=2, n_tokens=len(vocabulary), collate=pad)


def aan(data_dir: str | None = None, l_max: int = 4000, append_bos: bool = False, append_eos: bool = True) -> Splits:
    """Pairs of papers as characters."""
    parts, vocabulary = texts.aan(data_dir, l_max=l_max, append_bos=append_bos, append_eos=append_eos)
    return Splits.of(parts, d_input=len(vocabulary), d_output=2, n_tokens=len(vocabulary), collate=pad_pairs)


def pathfinder(
    resolution: int = 32,
    data_dir: str | None = None,
    pool: int = 1,
    center: bool = False,
    tokenize: bool = False,
    val_split: float = 0.1,
    test_split: float = 0.1,
    seed: int = 42,
    keep: bool = False,
) -> Splits:
    """Images of dashed paths as pixels; with ``keep`` in memory."""
    shares = {"val_split": val_split, "test_split": test_split}
    options: dict[str, Any] = {"pool": pool, "center": center, "tokenize": tokenize, "keep": keep, **shares}
    parts = pathfinder_images.pathfinder(resolution, data_dir, seed=seed, **options)
    n_tokens = 256 if tokenize else None
    return Splits.of(parts, d_input=n_tokens or 1, d_output=2, n_tokens=n_tokens)


def pathfinder_small(
    size: int = small.PATHFINDER_SIZE, data_seed: int = 0, center: bool = True, seed: int = 42
) -> Splits:
    """Images of dashed paths of 16 x 16 pixels, drawn at first use."""
    small.make_pathfinder(place(None), data_seed, size)
    folder = small.pathfinder_folder(place(None), data_seed, size)
    return pathfinder(small.RESOLUTION, str(folder), center=center, seed=seed, keep=True)
