"""``hope bench --targets``: what the convolution saves over its three plain lines, each figure measured in this run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hope_ssm.benchmark.contenders import Sizes
from hope_ssm.benchmark.measure import Measurement
from hope_ssm.reporting.tables import markdown_table

USUAL, DEMO, LONG = Sizes(), Sizes(features=32, states=64, length=256, batch=50), Sizes(8, 64, 1 << 20, 1)
HOSTS = "host-layer-diag"
# What has to be measured, by name: sizes and contenders. Training keeps freed memory from then on, so it comes last.
RUNS: Mapping[str, tuple[Sizes, Sequence[str]]] = {
    "usual": (
        USUAL,
        ("convolution", "convolution-plain", "layer-hope", "layer-hope-plain", HOSTS, "step-hope", "step-hope-plain"),
    ),
    "demo": (DEMO, ("step-hope", "step-hope-plain")),
    "long": (LONG, ("layer-hope",)),
    "training": (DEMO, ("training-hope", "training-hope-plain")),
}
Rows = Mapping[str, Measurement]


@dataclass(frozen=True)
class Target:
    """A figure that must be at least, or with ``most`` at most, ``floor``, and should reach ``aim``.

    Attributes:
        what: the figure in words.
        run: which of ``RUNS`` it is measured in.
        measure: {contender: its row} → the figure; KeyError where a contender is absent.
        floor: what it must reach.
        aim: what it should reach.
        unit: after the number.
        most: whether less is better.
        host: whether it needs a host, without which it is not counted.
    """

    what: str
    run: str
    measure: Callable[[Rows], float]
    floor: float
    aim: float
    unit: str = "×"
    most: bool = False
    host: bool = False

    def reached(self, value: float, bound: float) -> bool:
        """Whether a value is on the right side of a bound."""
        return value <= bound if self.most else value >= bound


def _faster(name: str, other: str | None = None) -> Callable[[Rows], float]:
    def measure(rows: Rows) -> float:
        plain, ours = rows[other or f"{name}-plain"], rows[name]
        return plain.median(plain.total) / ours.median(ours.total)

    return measure


def _time(name: str) -> Callable[[Rows], float]:
    return lambda rows: 1 / _faster(name)(rows)


def _memory(name: str, over: str | None = None) -> Callable[[Rows], float]:
    return lambda rows: float(rows[name].memory or 0) / (float(rows[over].memory or 1) if over else 1e9)


def _error(name: str, over: str) -> Callable[[Rows], float]:
    return lambda rows: float(rows[name].error or 0) / float(rows[over].error or 1)


LAYERS, TRAINING = ("layer-hope", "layer-hope-plain"), "training-hope"
TARGETS = (
    Target("convolution, times as fast as the plain one", "usual", _faster("convolution"), 3.5, 6),
    Target("layer, times as fast", "usual", _faster("layer-hope"), 3, 5),
    Target("layer, times as fast as S4D's in the host", "usual", _faster("layer-hope", HOSTS), 3, 5, host=True),
    Target("peak memory of the layer over the plain one's", "usual", _memory(*LAYERS), 1 / 3, 1 / 6, most=True),
    Target("training step, times as fast", "usual", _faster("step-hope"), 1.6, 2.5),
    Target("float32 error of the layer over the plain one's", "usual", _error(*LAYERS), 1, 0.5, most=True),
    Target("training step at the demo's sizes, times as fast", "demo", _faster("step-hope"), 1.2, 2),
    Target("training time of the demo's model over the plain one's", "training", _time(TRAINING), 0.8, 0.5, most=True),
    Target("peak memory of the layer, H = 8, L = 2²⁰", "long", _memory("layer-hope"), 2, 1, " GB", most=True),
)  # fmt: skip


def table(found: Mapping[str, Sequence[Measurement]]) -> tuple[str, list[str]]:
    """Return the table of all targets as Markdown, and the figures that miss their floor or could not be measured.

    Args:
        found: the rows of every one of ``RUNS``, by its name.
    """
    lines, missed = [["figure", "floor", "aim", "measured", ""]], []
    for target in TARGETS:
        rows = {row.name: row for row in found[target.run] if not row.absent}
        bounds = [f"{'≤' if target.most else '≥'} {bound:.3g}{target.unit}" for bound in (target.floor, target.aim)]
        try:
            value = target.measure(rows)
        except KeyError as absent:
            missed += [] if target.host else [target.what]
            lines.append([target.what, *bounds, "–", f"not measured: {absent.args[0]} is absent"])
            continue
        held = target.reached(value, target.floor)
        state = ("reached" if target.reached(value, target.aim) else "held") if held else "missed"
        lines.append([target.what, *bounds, f"{value:.3g}{target.unit}", state])
        if not held:
            missed.append(target.what)
    return markdown_table(lines), missed
