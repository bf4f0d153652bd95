"""Pictures: matplotlib without a screen, one colour per kernel, bands over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HOPE_COLOR = "#c1272d"
COLORS = ("#0000a7", "#008176", "#b58900", "#7b3294", "#888888")
KERNEL_COLORS = {
    "hope": HOPE_COLOR, "s4d": "#0000a7", "s4": "#008176", "s4d-real": "#5b8fd6", "dss": "#b58900", "stable": "#7b3294",
    "lru": "#d66b00", "rtf": "#8c564b", "conv": "#888888", "reduced": "#e377c2",
}  # fmt: skip


def pyplot() -> Any:
    """Return ``matplotlib.pyplot``, drawing into files alone."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as module

    return module


def save(figure: Any, path: Path, dpi: int = 110) -> None:
    """Write a figure to ``path`` and free it."""
    figure.savefig(path, dpi=dpi)
    pyplot().close(figure)


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
