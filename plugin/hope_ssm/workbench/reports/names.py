"""What tables and pictures call things: S4D for ``kernel=s4d``, "accuracy %" for ``test/accuracy``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hope_ssm import registry

KERNEL_KEYS = ("kernel", "model/layer", "model.layer.mode", "model.layer.kernel")
_PARTS = {"test": "", "val": "validation ", "train": "training "}


def value_name(key: str, value: str) -> str:
    """Return the value of a swept key as a reader knows it: a kernel by its title."""
    return registry.title(value) if key in KERNEL_KEYS else value


def labels(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a name for every row: kernels by their titles, other keys by their last part, which is one key's alone.

    Args:
        settings: {swept key: value} of every row.
    """
    keys = list(dict.fromkeys(key for setting in settings for key in setting))
    last = [re.split(r"[./]", key)[-1] for key in keys]
    short = {key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)}
    nothing = "all runs" if len(settings) == 1 else "default"

    def part(key: str, value: str) -> str:
        return value_name(key, value) if key in KERNEL_KEYS else f"{short[key]} {value}"

    found = [", ".join(part(key, value) for key, value in setting.items()) or nothing for setting in settings]
    if len(set(found)) < len(found):  # two names of one kernel
        return [", ".join(f"{key}={value}" for key, value in setting.items()) or nothing for setting in settings]
    return found


def is_share(metric: str) -> bool:
    """Whether a metric is a share from 0 to 1, which tables and pictures show in percent."""
    return "accuracy" in metric.split("/")[-1]


def scale(metric: str) -> tuple[float, int]:
    """Return by what tables multiply a metric, and how many digits after the point they give it."""
    return (100.0, 2) if is_share(metric) else (1.0, 4)


def heading(metric: str) -> str:
    """Return a metric in words; that of the test goes without saying, and so does its unit but for percent."""
    part, _, name = metric.rpartition("/")
    return f"{_PARTS.get(part, part + ' ' if part else '')}{name.replace('_', ' ')}{' %' if is_share(metric) else ''}"
