"""Rows of a report against a baseline, paired by seed: mean differences with confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hope_ssm.checks import nearest
from hope_ssm.workbench.losses import LOSSES, METRICS
from hope_ssm.workbench.reports.names import heading, scale, value_name
from hope_ssm.workbench.reports.rows import Row, configuration, versions_differ
from hope_ssm.workbench.resuming import differences

CONFIDENCE = 0.95
_LESS_IS_BETTER = {"loss", "bpb", *LOSSES}


@dataclass(frozen=True)
class Difference:
    """d_s = x_s - y_s of the seeds s = 1 … n both have, with a two-sided t interval d̄ ± t_{0.975, n-1} sd(d) / √n.

    Attributes:
        mean: d̄.
        n: pairs.
        interval: of the mean; None with one pair, or if all differences are equal and not 0.
        p: None in the same cases.
    """

    mean: float
    n: int
    interval: tuple[float, float] | None
    p: float | None

    def verdict(self, mode: str | None) -> str:
        """Return in words what the interval shows, where ``max`` or ``min`` of the metric is wanted."""
        if self.interval is None:
            return "one pair" if self.n == 1 else "no interval: all differences are equal"
        low, high = self.interval
        if low <= 0 <= high:
            return "no difference shown"
        if mode is None:
            return "higher" if low > 0 else "lower"
        return "better" if (low > 0) == (mode == "max") else "worse"


def difference(pairs: Sequence[tuple[float, float]]) -> Difference:
    """Return the mean difference of pairs (x, y), with its paired t interval and test of the mean 0.

    Source: Student's t for paired samples; Dietterich, Neural Computation 10 (1998), on comparing trained models.
    """
    from scipy.stats import ttest_rel

    values = [x - y for x, y in pairs]
    mean, n = statistics.fmean(values), len(values)
    if n == 1:
        return Difference(mean, n, None, None)
    rounding = 1e-12 * max(abs(value) for pair in pairs for value in pair)
    if statistics.stdev(values) <= rounding * math.sqrt(n):
        return Difference(mean, n, *((None, None) if abs(mean) > rounding else ((0.0, 0.0), 1.0)))
    test = ttest_rel(*zip(*pairs, strict=True))
    low, high = test.confidence_interval(CONFIDENCE)
    return Difference(mean, n, (float(low), float(high)), float(test.pvalue))


def wanted(metric: str, config: Mapping[str, Any]) -> str | None:
    """Return ``max`` or ``min``: ``train.mode`` for the monitored metric, what is known of others, None if nothing."""
    name, settings = metric.split("/")[-1], config["train"]
    if name == settings["monitor"].split("/")[-1]:
        return settings["mode"]
    return "min" if name in _LESS_IS_BETTER else "max" if name in METRICS else None


def pins(table: Sequence[Row], baseline: str) -> dict[str, Any]:
    """Return {swept key: its value in the baseline} for a part of it: ``s4d``, ``S4D``, ``kernel=s4d``, or several.

    Raises:
        ValueError: no row has it (the nearest is named), or several keys have that value, or all rows have it.
    """
    keys = dict.fromkeys(key for row in table for key in row.settings)
    found: dict[str, Any] = {}
    for word in baseline.split():
        name, _, value = word.rpartition("=")
        matching = {
            k: v for row in table for k, v in row.settings.items() if value in (v, value_name(k, v)) and name in ("", k)
        }
        if len(matching) > 1:
            named = ", ".join(f"{k}={v}" for k, v in matching.items())
            raise ValueError(f"--baseline must name one key; {word} is {named}.")
        found |= matching
        if not matching:
            found[word] = None
    if all(key in keys for key in found) and any(_has(row, found) for row in table):
        return found
    for row in table:
        if row.label == baseline:
            return {key: row.settings.get(key) for key in keys}
    valid = [*dict.fromkeys(f"{k}={v}" for row in table for k, v in row.settings.items())]
    valid += [row.label for row in table if not row.settings]
    names = [*valid, *(text.split("=", 1)[-1] for text in valid)]
    raise ValueError(
        f"--baseline must be part of a label: {', '.join(valid)}; got {baseline!r}.{nearest(baseline, names)}"
    )


def _has(row: Row, pinned: Mapping[str, Any]) -> bool:
    return all(row.settings.get(key) == value for key, value in pinned.items())


@dataclass(frozen=True)
class Comparison:
    """A row against its partner: the baseline's row that is the same in all other swept keys."""

    row: Row
    partner: Row

    def differences(self, metrics: Sequence[str]) -> dict[str, Difference]:
        """Return the difference of every metric that at least one pair has."""
        found = {}
        for metric in metrics:
            ours, theirs = self.row.by_seed(metric), self.partner.by_seed(metric)
            pairs = [(ours[seed], theirs[seed]) for seed in ours if seed in theirs]
            if pairs:
                found[metric] = difference(pairs)
        return found

    def notes(self) -> list[str]:
        """Return what a reader must know: sizes, all that differs in the configurations, seeds without a partner."""
        row, partner = self.row, self.partner
        notes = [f"{word} {first} against {second}" for word, first, second in zip(
            ("d_state", "kernel parameters"), (row.d_state, row.count("kernel_parameters")),
            (partner.d_state, partner.count("kernel_parameters")), strict=True,
        )]  # fmt: skip
        changed = differences(configuration(partner.runs[0]), configuration(row.runs[0]))
        notes.append("different are " + ", ".join(f"{k} ({now} against {was})" for k, (was, now) in changed.items()))
        for one, other in ((row, partner), (partner, row)):
            alone = sorted(set(one.seeds) - set(other.seeds))
            if alone:
                notes.append(f"left out, without a partner: seeds {alone} of {one.label}")
        if versions_differ([*row.runs, *partner.runs]):
            notes.append("runs of different versions of the software")
        return notes


def compare(table: Sequence[Row], baseline: str) -> tuple[list[Comparison], list[Row]]:
    """Return every row that is not the baseline with its partner, and the rows that have none."""
    pinned = pins(table, baseline)
    bases = [row for row in table if _has(row, pinned)]
    if len(bases) == len(table):
        raise ValueError(f"--baseline must leave something to compare; all rows have {baseline}.")
    pairs, alone = [], []
    for row in table:
        if row in bases:
            continue
        rest = {k: v for k, v in row.settings.items() if k not in pinned}
        same = [base for base in bases if {k: v for k, v in base.settings.items() if k not in pinned} == rest]
        if same:
            pairs.append(Comparison(row, same[0]))
        else:
            alone.append(row)
    return pairs, alone


def lines(pairs: Sequence[Comparison], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return a line for every pair of rows and metric."""
    found = []
    for pair in pairs:
        config = pair.row.runs[0].config
        for metric, value in pair.differences(metrics).items():
            low, high = value.interval or ("", "")
            found.append({
                "configuration": pair.row.label, "baseline": pair.partner.label, "metric": metric, "pairs": value.n,
                "mean difference": value.mean, "low": low, "high": high, "p": "" if value.p is None else value.p,
                "verdict": value.verdict(wanted(metric, config)),
            })  # fmt: skip
    return found


EXPENDABLE = ("pairs", "against", "p")  # columns that go first where the room is short


def cells(pairs: Sequence[Comparison], metrics: Sequence[str]) -> list[list[str]]:
    """Return the headings and a line for every pair of rows and metric; shares in percent, their differences too."""
    found = [["configuration", "against", "metric", "pairs", "difference", "95 % interval", "p", "verdict"]]
    for line in lines(pairs, metrics):
        factor, digits = scale(line["metric"])
        low, mean, high = (
            f"{factor * line[key]:+.{digits}f}" if line[key] != "" else "" for key in ("low", "mean difference", "high")
        )
        interval = f"{low} to {high}" if line["p"] != "" else "–"
        p = f"{line['p']:.2g}" if line["p"] != "" else "–"
        found.append([
            line["configuration"], line["baseline"], heading(line["metric"]), str(line["pairs"]), mean, interval, p,
            line["verdict"],
        ])  # fmt: skip
    return found


def remarks(pairs: Sequence[Comparison], alone: Sequence[Row]) -> str:
    """Return what a reader of the comparison must know, in paragraphs."""
    text = "\nDifferences are means over pairs, of one seed and equal in all other swept keys; intervals and p are "
    text += "those of a paired t test, not adjusted for the number of comparisons.\n"
    for pair in pairs:
        text += f"\n{pair.row.label} against {pair.partner.label}: {'; '.join(pair.notes())}.\n"
    for row in alone:
        text += f"\nLeft out, no run of the baseline is the same in the other swept keys: {row.label}.\n"
    return text
