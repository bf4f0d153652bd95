"""Pictures: matplotlib without a screen, one colour per kernel, bands over seeds."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# The one table of colours. Two versions of a kernel in one picture are shades of its colour, see ``kernel_styles``.
KERNEL_COLORS = {
    "hope": "#c1272d", "hope-bands": "#e8708a", "s4d": "#0000a7", "s4": "#008176", "s4d-real": "#5b8fd6",
    "dss": "#b58900", "stable": "#7b3294", "lru": "#d66b00", "rtf": "#8c564b", "conv": "#888888", "reduced": "#e377c2",
}  # fmt: skip
OTHER_COLORS = ("#17becf", "#bcbd22", "#2ca02c", "#556b2f", "#ff7f0e", "#4b0082")  # of kernels of other packages
LINES = ("-", "--", ":", "-.")
FORMATS = (".png", ".pdf", ".svg")


def pyplot() -> Any:
    """Return ``matplotlib.pyplot``, drawing into files alone unless a notebook or a program uses it already."""
    import matplotlib

    if "matplotlib.pyplot" not in sys.modules:
        matplotlib.use("Agg")
    from matplotlib import pyplot as module

    return module


def save(figure: Any, path: Path, dpi: int = 110) -> None:
    """Write a figure to ``path``, a PNG, and beside it as PDF and SVG, for papers; then free it.

    Fonts are embedded in the PDF as TrueType; the same figure makes the same bytes.
    """
    undated = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}
    module = pyplot()
    with module.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "hope-ssm"}):
        for ending in FORMATS:
            figure.savefig(path.with_name(path.name.removesuffix(".png") + ending), dpi=dpi, metadata=undated[ending])
    module.close(figure)


def kernel_of(name: str) -> str:
    """Return the kernel that a name begins with, as ``s4d`` of ``s4d legs``; the name itself if it is no kernel's."""
    parts = re.split(r"[ _-]", name)
    heads = ("-".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((head for head in heads if head in KERNEL_COLORS), name)


def kernel_color(name: str) -> str:
    """Return the colour of a kernel by its name, the same in every picture."""
    spare = OTHER_COLORS[zlib.crc32(name.encode()) % len(OTHER_COLORS)]
    return KERNEL_COLORS.get(kernel_of(name), spare)


def kernel_styles(names: Sequence[str]) -> list[dict[str, Any]]:
    """Return colour and line style of every curve of a picture, by the names of their kernels.

    A kernel has its colour. Its second, third, … curve is a lighter shade with another line style.
    """
    found: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for name in names:
        count = seen.get(kernel_of(name), 0)
        seen[kernel_of(name)] = count + 1
        base = kernel_color(name)
        share = 1 - 0.8**count  # of white
        parts = (int(base[place : place + 2], 16) for place in (1, 3, 5))
        color = "#" + "".join(f"{round(part + share * (255 - part)):02x}" for part in parts)
        found.append({"color": color if count < 6 else base, "ls": LINES[count % len(LINES)]})
    return found


def band(axes: Any, x: Sequence[float] | np.ndarray, values: np.ndarray, **style: Any) -> None:
    """Draw the mean over seeds as a line, and mean ± standard deviation as a band around it.

    Args:
        axes: of matplotlib.
        x: (K,).
        values: (seeds, K).
        **style: of the line.
    """
    mean, deviation = values.mean(0), values.std(0, ddof=len(values) > 1)
    (line,) = axes.plot(x, mean, **style)
    below = mean - deviation
    if axes.get_yscale() == "log":
        below = np.maximum(below, 1e-3 * np.abs(mean))
    axes.fill_between(x, below, mean + deviation, color=line.get_color(), alpha=0.15, lw=0)
