"""Tables as Markdown, LaTeX, CSV and plain text, and the mean of several seeds as text."""

from __future__ import annotations

import csv
import io
import re
import statistics
import textwrap
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


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "±": r"$\pm$", "×": r"$\times$", "Δ": r"$\Delta$",
    "ε": r"$\varepsilon$", "∞": r"$\infty$",
}  # fmt: skip
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?(e[-+]?\d+)?( ± \d+(\.\d+)?)?")


def _latex(cell: str) -> str:
    if _NUMBER.fullmatch(cell):
        return "$" + cell.replace("±", r"\pm") + "$"
    signed = re.sub(r"(?<![\w.])([-+])(?=\d)", "\0\\1\0", cell)  # signs of numbers: set as signs, not as hyphens
    escaped = "".join(_LATEX.get(letter, letter) for letter in signed)
    return re.sub("\0(.)\0", r"$\1$", escaped)


def latex_table(rows: Iterable[Sequence[str]]) -> str:
    """Return a LaTeX tabular with the rules of the package booktabs: words to the left, numbers to the right.

    Args:
        rows: as of ``markdown_table``.
    """
    head, *lines = rows
    columns = list(zip(*lines, strict=True)) or [()] * len(head)
    kinds = ("r" if column and all(re.match(r"[-+]?\d|–", cell) for cell in column) else "l" for column in columns)
    body = [" & ".join(map(_latex, cells)) + r" \\" for cells in (head, *lines)]
    parts = [f"% needs \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{''.join(kinds)}}}", r"\toprule", body[0]]
    return "\n".join([*parts, r"\midrule", *body[1:], r"\bottomrule", r"\end{tabular}"])


def fitting(rows: Sequence[Sequence[str]], expendable: Sequence[str], width: int) -> tuple[list[list[str]], list[str]]:
    """Return a table without as many of the expendable columns as it takes to fit a width, and their headings.

    Args:
        rows: as of ``markdown_table``.
        expendable: headings, the one to lose first first.
        width: in letters, with two between columns.
    """
    head, left_out = list(rows[0]), []
    table = [list(cells) for cells in rows]
    for heading in expendable:
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        if sum(widths) + 2 * (len(widths) - 1) <= width:
            break
        if heading in head:
            place = head.index(heading)
            head.pop(place)
            left_out.append(heading)
            table = [cells[:place] + cells[place + 1 :] for cells in table]
    return table, left_out


def plain_table(rows: Iterable[Sequence[str]], width: int) -> str:
    """Return a table in columns for a terminal; the first column is folded where the others leave it too little room.

    Args:
        rows: as of ``markdown_table``.
        width: in letters.
    """
    head, *lines = rows
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    first = max(min(widths[0], width - sum(widths[1:]) - 2 * len(widths[1:])), min(widths[0], 16))
    found = []
    for cells in (head, ["-" * first, *("-" * size for size in widths[1:])], *lines):
        folded = textwrap.wrap(cells[0], first) or [""]
        rest = (cell.ljust(size) for cell, size in zip(cells[1:], widths[1:], strict=True))
        found.append("  ".join([folded[0].ljust(first), *rest]).rstrip())
        found += folded[1:]
    return "\n".join(found)


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
