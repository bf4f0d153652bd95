"""Tables as Markdown and CSV, and the mean of several seeds as text."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hope_ssm.storage import whole_file


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, without a final line break.

    Args:
        rows: the headings first, then the lines; as many cells in each as there are headings.
    """
    head, *lines = rows
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines))


def mean_and_deviation(values: Iterable[float], digits: int = 2, scale: float = 1.0) -> str:
    """Return ``"mean ± standard deviation"`` of the sample; the mean alone of a single value; ``"–"`` of none.

    Args:
        values: one number per seed.
        digits: after the decimal point.
        scale: factor of both, 100 for percent.
    """
    values = [float(value) for value in values]
    if not values:
        return "–"
    mean = f"{scale * statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def write_csv(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write mappings as CSV; the columns are all their keys, in the order in which they first appear.

    Args:
        path: of the file, which is replaced when the new one is whole.
        lines: one mapping per line; a key that a line lacks stays empty.
    """
    names = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, names)
    table.writeheader()
    table.writerows(lines)
    with whole_file(path) as file:
        file.write(text.getvalue().encode())
