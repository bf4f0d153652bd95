"""Forecasting: windows of a table of time series, and what follows each.

Axes: T rows, L steps of a window, d columns, h rows and k columns that are predicted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hope_ssm.checks import check_known, check_positive_integer, check_share
from hope_ssm.extras import install_line

SPLITS = ("train", "val", "test")


def read_table(path: str | os.PathLike | None) -> Any:
    """Return a CSV or Parquet file as a pandas data frame.

    Raises:
        ValueError: there is no such file, or it is neither.
        ImportError: pandas, or for Parquet pyarrow, is not installed.
    """
    if path is None:
        raise ValueError("dataset.path must be a .csv or .parquet file; got none. Set dataset.path=FILE.csv.")
    file = Path(path)
    if not file.is_file() or file.suffix not in (".csv", ".parquet"):
        got = "another kind of file" if file.is_file() else "no file"
        raise ValueError(f"dataset.path must be a file of the kind .csv or .parquet; {str(path)!r} is {got}.")
    try:
        import pandas

        return pandas.read_csv(file) if file.suffix == ".csv" else pandas.read_parquet(file)
    except ImportError as error:
        raise ImportError(
            f"tables must have pandas, and pyarrow for Parquet; {' '.join(str(error).split())} {install_line('tables')}"
        ) from None


def numbers(table: Any, columns: Sequence[str] | str | None, option: str, skipped: Sequence[str] = ()) -> list[str]:
    """Return the names of ``columns``, all columns of numbers but ``skipped`` if None; raise unless they hold numbers.

    Args:
        table: a data frame.
        columns: names, one name, or None.
        option: what they are called in a message.
        skipped: columns that are not data.
    """
    from pandas.api.types import is_numeric_dtype

    named = [columns] if isinstance(columns, str) else list(columns or ())
    check_known("the table", named, [str(column) for column in table.columns], "column")
    names = named or [str(c) for c in table.columns if c not in skipped and is_numeric_dtype(table[c])]
    for name in names:
        if not is_numeric_dtype(table[name]) or not np.isfinite(table[name].to_numpy(dtype=float)).all():
            raise ValueError(
                f"{option} must hold finite numbers in every row; the column {name!r} does not. Fill or drop."
            )
    if not names:
        raise ValueError(f"{option} must be columns of numbers; the table has {', '.join(map(str, table.columns))}.")
    return names


@dataclass(frozen=True)
class Scaling:
    """x ↦ (x - mean) / deviation of every column; a column that never changes is only shifted.

    Attributes:
        mean: (d,).
        deviation: (d,), above 0.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Scaling:
        """Return the scaling of rows (T, d)."""
        deviation = rows.std(0)
        return cls(rows.mean(0), np.where(deviation == 0, 1.0, deviation))

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """Scale rows (…, d)."""
        return (rows - self.mean) / self.deviation


class Windows(Dataset):
    """x = rows i … i+L-1,  y = the targets of the next h rows, one after the other: (L, d) and (h·k,), float32.

    Args:
        series: arrays (T, d), scaled.
        targets: numbers of the columns that are predicted.
        starts: for each series the rows i.
        window: L.
        horizon: h.
    """

    def __init__(
        self, series: list[np.ndarray], targets: list[int], starts: list[range], window: int, horizon: int
    ) -> None:
        self.series = [torch.as_tensor(rows, dtype=torch.float32) for rows in series]
        self.targets, self.window, self.horizon = targets, window, horizon
        self.places = [(number, i) for number, rows in enumerate(starts) for i in rows]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        number, i = self.places[index]
        rows, now = self.series[number], i + self.window
        return rows[i:now], rows[now : now + self.horizon, self.targets].flatten()


@dataclass(frozen=True)
class Forecasting:
    """Series cut into windows for training, validation and test, in the order of time.

    The first rows of every series are for training, the next for validation, the last for the test: a window belongs to
    the part that all it predicts is in, and may look back into the part before. Mean and deviation are those of the
    training rows of all series.

    Attributes:
        series: name → rows (T, d), as they are in the file.
        columns: names of the d columns.
        targets: numbers of the k columns that are predicted.
        scaling: of the training rows.
        parts: ``"train"``, ``"val"``, ``"test"`` → windows.
    """

    series: dict[str, np.ndarray]
    columns: list[str]
    targets: list[int]
    scaling: Scaling
    parts: dict[str, Windows]


def forecasting(
    path: str | os.PathLike | None,
    window: int,
    horizon: int,
    *,
    columns: Sequence[str] | str | None = None,
    target: Sequence[str] | str | None = None,
    series: str | None = None,
    time: str | None = None,
    stride: int = 1,
    val_split: float = 0.1,
    test_split: float = 0.2,
) -> Forecasting:
    """Return the windows of a table with one row per time, or per time and series.

    Args:
        path: a CSV or Parquet file.
        window: L, steps that are seen.
        horizon: h, steps that are predicted.
        columns: what is seen; None: all columns of numbers but ``series`` and ``time``.
        target: what of it is predicted; None: all.
        series: the column that says which series a row belongs to; None: all rows are one.
        time: the column to sort by; None: as the file has them.
        stride: rows from one training window to the next.
        val_split: share of the rows for validation.
        test_split: share of the rows for the test.

    Raises:
        ValueError: no such file or column, no numbers, too few rows for a window.
    """
    window, horizon = check_positive_integer("window", window), check_positive_integer("horizon", horizon)
    check_positive_integer("stride", stride)
    if not check_share("val_split", val_split) + check_share("test_split", test_split) < 1:
        raise ValueError(f"val_split and test_split must leave rows to train on; got {val_split} and {test_split}.")
    table = read_table(path)
    marks = [name for name in (series, time) if name is not None]
    check_known("the table", marks, [str(column) for column in table.columns], "column")
    names = numbers(table, columns, "columns", marks)
    wanted = numbers(table, target, "target") if target else names
    names += [name for name in wanted if name not in names]
    table = table if time is None else table.sort_values(time, kind="stable")
    groups = {"series": table} if series is None else {str(key): rows for key, rows in table.groupby(series, sort=True)}
    found = {key: rows[names].to_numpy(dtype=float) for key, rows in groups.items()}
    starts: dict[str, list[range]] = {split: [] for split in SPLITS}
    training = []
    for key, rows in found.items():
        ends = [0, round(len(rows) * (1 - val_split - test_split)), round(len(rows) * (1 - test_split)), len(rows)]
        training.append(rows[: ends[1]])
        for split, (first, last) in zip(SPLITS, pairwise(ends), strict=True):
            places = range(max(0, first - window), last - window - horizon + 1, stride if split == "train" else 1)
            if not places:
                raise ValueError(
                    f"every series must have a window of {window} and {horizon} rows in each part; {key!r} has "
                    f"{len(rows)} rows, too few for the part {split}. Lower window or horizon, or raise its share."
                )
            starts[split].append(places)
    scaling, targets = Scaling.of(np.concatenate(training)), [names.index(name) for name in wanted]
    scaled = [scaling.apply(rows) for rows in found.values()]
    parts = {split: Windows(scaled, targets, starts[split], window, horizon) for split in SPLITS}
    return Forecasting(found, names, targets, scaling, parts)
