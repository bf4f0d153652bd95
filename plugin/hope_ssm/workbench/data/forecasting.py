"""The data set ``forecasting``: windows of a CSV or Parquet file, as splits."""

from __future__ import annotations

from collections.abc import Sequence

from hope_ssm.datasets import forecasting as tables
from hope_ssm.workbench.data.splits import Splits


def forecasting(
    path: str | None,
    window: int = 96,
    horizon: int = 24,
    columns: Sequence[str] | str | None = None,
    target: Sequence[str] | str | None = None,
    series: str | None = None,
    time: str | None = None,
    stride: int = 1,
    val_split: float = 0.1,
    test_split: float = 0.2,
) -> Splits:
    """Windows of the time series in a file, to predict what follows each; in units of the training rows' deviation."""
    found = tables.forecasting(
        path, window, horizon, columns=columns, target=target, series=series, time=time, stride=stride,
        val_split=val_split, test_split=test_split,
    )  # fmt: skip
    return Splits.of(found.parts, d_input=len(found.columns), d_output=horizon * len(found.targets))
