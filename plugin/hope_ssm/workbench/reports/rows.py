"""The rows of a report: finished runs that differ in their seed alone, labelled by what the rows differ in."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hope_ssm import registry
from hope_ssm.workbench.reports.names import labels
from hope_ssm.workbench.resuming import flat
from hope_ssm.workbench.run_directory import RunDirectory

# What may differ between two runs of one row: where and how they ran, not what they computed.
_ASIDE: tuple[str, ...] = (
    "train.seed",
    "train.ckpt",
    "train.tensorboard",
    "wandb",
    "loader.num_workers",
    "trainer.enable_progress_bar",
)
_ASIDE += ("dataset.__lengths",)  # only the horizon, a key of its own, is read from them


@dataclass(frozen=True)
class Row:
    """The finished runs of one configuration.

    Attributes:
        settings: {swept key: value}, what sets it apart from the other rows.
        label: the same as a reader knows it, see ``names.labels``.
        runs: one per seed.
        notes: what a reader must know.
    """

    settings: dict[str, str]
    label: str
    runs: list[RunDirectory]
    notes: list[str]

    def values(self, metric: str) -> list[float]:
        """Return a metric of every run that has it."""
        return [results[metric] for results in (run.results for run in self.runs) if metric in results]

    def by_seed(self, metric: str) -> dict[int, float]:
        """Return {seed: a metric}, the mean where a seed repeats."""
        found: dict[int, list[float]] = {}
        for run, seed in zip(self.runs, self.seeds, strict=True):
            if metric in run.results:
                found.setdefault(seed, []).append(run.results[metric])
        return {seed: statistics.fmean(values) for seed, values in found.items()}

    def count(self, name: str) -> str:
        """Return a number that ``run.json`` has, as text."""
        return "/".join(sorted({str(run.info.get(name, "–")) for run in self.runs}))

    @property
    def kernel(self) -> str:
        """The name of the kernel, which decides its colour; empty without one."""
        return _kernel(self.runs[0].config)

    @property
    def seeds(self) -> list[int]:
        """The seed of every run."""
        return [run.config["train"]["seed"] for run in self.runs]

    @property
    def d_state(self) -> str:
        """The number of states of a system, as text."""
        return str(self.runs[0].config["model"].get("layer", {}).get("d_state", "–"))


def configuration(run: RunDirectory) -> dict[str, Any]:
    """Return {dotted key: value} of all that a result depends on, but for the seed."""
    return {key: value for key, value in flat(run.config) if not key.startswith(_ASIDE)}


def rows(runs: Sequence[RunDirectory]) -> list[Row]:
    """Return finished runs grouped by configuration, each group with the settings in which the groups differ.

    These name the overrides that were typed, if they tell the groups apart. If not, they name the kernel and those
    keys of the configuration that do not follow from the kernel.
    """
    groups: dict[str, list[RunDirectory]] = {}
    for run in runs:
        groups.setdefault(json.dumps(configuration(run), sort_keys=True, default=str), []).append(run)
    members = list(groups.values())
    settings = _distinct([dict(_typed(group[0])) for group in members])
    if len({str(setting) for setting in settings}) < len(members):
        settings = _distinct(_without_the_kernels_own([configuration(group[0]) for group in members]))
    return [Row(*row, _notes(row[-1])) for row in zip(settings, labels(settings), members, strict=True)]


def _kernel(config: dict[str, Any]) -> str:
    layer = config["model"].get("layer", {})
    name = str(layer.get("mode") or layer.get("kernel") or "")
    known = registry.names().get(name)
    return name if known is None else known.name


def _typed(run: RunDirectory) -> list[tuple[str, str]]:
    pairs = [override.lstrip("+").split("=", 1) for override in run.info.get("overrides", []) if "=" in override]
    return [(key, value) for key, value in pairs if key not in _ASIDE and not key.startswith("hydra")]


def _without_the_kernels_own(configurations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the kernel in place of its keys of the layer: those with one value wherever the kernel is the same."""
    kernels = [str(c.get("model.layer.mode") or c.get("model.layer.kernel")) for c in configurations]
    keys = {key for c in configurations for key in c if key.startswith("model.layer.")}
    own = {k for k in keys if len({(kernel, str(c.get(k))) for kernel, c in zip(kernels, configurations, strict=True)})
           == len(set(kernels))}  # fmt: skip
    return [
        {"kernel": kernel, **{key: value for key, value in c.items() if key not in own}}
        for kernel, c in zip(kernels, configurations, strict=True)
    ]


def _distinct(settings: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Keep the keys in which the settings differ."""
    keys = dict.fromkeys(key for setting in settings for key in setting)
    differing = [key for key in keys if len({str(setting.get(key)) for setting in settings}) > 1]
    return [{k: str(s[k]) for k in differing if k in s} for s in settings]


def _notes(group: list[RunDirectory]) -> list[str]:
    notes = []
    seeds = [run.config["train"]["seed"] for run in group]
    if len(set(seeds)) < len(seeds):
        notes.append(f"seeds repeat: {seeds}")
    if ended := sum(run.state == "stopped" for run in group):
        notes.append(f"{ended} of {len(group)} runs stopped before their last epoch, by trainer.max_time or a callback")
    if versions_differ(group):
        notes.append("runs of different versions of the software")
    return notes


def versions_differ(runs: Sequence[RunDirectory]) -> bool:
    """Whether runs were made by different commits or with different versions of what they depend on."""
    about = [run.info for run in runs]
    commits = {json.dumps(info.get("git", {}).get("hope-ssm")) for info in about}
    return len(commits) > 1 or len({json.dumps(info.get("versions", {}), sort_keys=True) for info in about}) > 1


def sharing(table: Sequence[Row]) -> str:
    """Return a sentence where features share A, B and Δt in some rows as ``n_ssm`` says, and otherwise in others."""
    shared: dict[str, list[str]] = {}
    for row in table:
        layer = row.runs[0].config["model"].get("layer", {})
        if "n_ssm" in layer and layer.get("mode", layer.get("kernel")) != "conv":  # which has nothing to share
            shared.setdefault("null" if layer["n_ssm"] is None else str(layer["n_ssm"]), []).append(row.label)
    if len(shared) < 2:
        return ""
    listed = "; ".join(f"n_ssm={value} in {', '.join(labels)}" for value, labels in shared.items())
    return f"\nNot like for like, the features share their A, B and Δt differently: {listed}.\n"
