"""``hope bench --targets``: what the convolution saves over its three plain lines, each figure measured in this run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hope_ssm.benchmark.contenders import Sizes
from hope_ssm.benchmark.measure import Measurement
from hope_ssm.reporting.tables import markdown_table

USUAL, DEMO, LONG = Sizes(), Sizes(features=32, states=64, length=256, batch=50), Sizes(8, 64, 1 << 20, 1)
# What has to be measured: sizes → contenders.
RUNS: Mapping[Sizes, Sequence[str]] = {
    USUAL: ("convolution", "convolution-plain", "layer-hope", "layer-hope-plain", "step-hope", "step-hope-plain"),
    DEMO: ("step-hope", "step-hope-plain"),
    LONG: ("layer-hope",),
}
Rows = Mapping[str, Measurement]


@dataclass(frozen=True)
class Target:
    """A figure that must be at least, or with ``most`` at most, ``floor``, and should reach ``aim``.

    Attributes:
        what: the figure in words.
        sizes: where it is measured.
        measure: {contender: its row} → the figure; KeyError where a contender is absent.
        floor: what it must reach.
        aim: what it should reach.
        unit: after the number.
        most: whether less is better.
    """

    what: str
    sizes: Sizes
    measure: Callable[[Rows], float]
    floor: float
    aim: float
    unit: str = "×"
    most: bool = False

    def reached(self, value: float, bound: float) -> bool:
        """Whether a value is on the right side of a bound."""
        return value <= bound if self.most else value >= bound


def _faster(name: str) -> Callable[[Rows], float]:
    def measure(rows: Rows) -> float:
        plain, ours = rows[f"{name}-plain"], rows[name]
        return plain.median(plain.total) / ours.median(ours.total)

    return measure


def _memory(name: str, over: str | None = None) -> Callable[[Rows], float]:
    return lambda rows: float(rows[name].memory or 0) / (float(rows[over].memory or 1) if over else 1e9)


def _error(name: str, over: str) -> Callable[[Rows], float]:
    return lambda rows: float(rows[name].error or 0) / float(rows[over].error or 1)


LAYERS = ("layer-hope", "layer-hope-plain")
TARGETS = (
    Target("convolution, times as fast as the plain one", USUAL, _faster("convolution"), 3.5, 6),
    Target("layer, times as fast", USUAL, _faster("layer-hope"), 3, 5),
    Target("peak memory of the layer over the plain one's", USUAL, _memory(*LAYERS), 1 / 3, 1 / 6, most=True),
    Target("training step, times as fast", USUAL, _faster("step-hope"), 1.6, 2.5),
    Target("float32 error of the layer over the plain one's", USUAL, _error(*LAYERS), 1, 0.5, most=True),
    Target("training step at the demo's sizes, times as fast", DEMO, _faster("step-hope"), 1.2, 2),
    Target("peak memory of the layer, H = 8, L = 2²⁰", LONG, _memory("layer-hope"), 2, 1, " GB", most=True),
)  # fmt: skip


def table(found: Mapping[Sizes, Sequence[Measurement]]) -> tuple[str, list[str]]:
    """Return the table of all targets as Markdown, and the figures that miss their floor or could not be measured.

    Args:
        found: the rows of every one of ``RUNS``.
    """
    lines, missed = [["figure", "floor", "aim", "measured", ""]], []
    for target in TARGETS:
        rows = {row.name: row for row in found[target.sizes] if not row.absent}
        bounds = [f"{'≤' if target.most else '≥'} {bound:.3g}{target.unit}" for bound in (target.floor, target.aim)]
        try:
            value = target.measure(rows)
        except KeyError as absent:
            missed.append(target.what)
            lines.append([target.what, *bounds, "–", f"not measured: {absent.args[0]} is absent"])
            continue
        held = target.reached(value, target.floor)
        state = ("reached" if target.reached(value, target.aim) else "held") if held else "missed"
        lines.append([target.what, *bounds, f"{value:.3g}{target.unit}", state])
        if not held:
            missed.append(target.what)
    return markdown_table(lines), missed
