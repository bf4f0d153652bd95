"""The registry: registry.yaml and the entry-point group ``state_spaces.kernels`` → {name: kernel}.

This distribution's kernels are those of registry.yaml. Any other distribution joins by declaring entry points in the
same group; its kernels then appear in ``hope kernels``, in the workbench and in the host. A kernel class may carry the
attributes ``title``, ``family``, ``parameters``, ``recurrent`` and ``summary`` to fill its row of the table.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata, resources
from typing import Any

import yaml

from hope_ssm.checks import log_once, nearest

_logger = logging.getLogger("hope_ssm")

GROUP = "state_spaces.kernels"
DISTRIBUTION = "hope-ssm"


@dataclass(frozen=True)
class Entry:
    """One kernel: where it is, what it is called, what it is.

    Calling an entry imports the kernel and makes one, so an entry can stand in the host's registry unloaded.
    """

    name: str
    target: str
    distribution: str
    aliases: tuple[str, ...] = ()
    title: str = ""
    family: str = "–"
    parameters: str = "–"
    recurrent: bool | None = None
    requires: tuple[str, ...] = field(default=())
    summary: str = ""

    def load(self) -> Any:
        """Import the kernel class; raise ``ImportError`` with the mend when something it needs is absent."""
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever another distribution's module raises
            missing = f" It needs {', '.join(self.requires)}." if self.requires else ""
            raise ImportError(
                f"kernel {self.name!r} of {self.distribution} must be importable from {self.target}; "
                f"got {type(error).__name__}: {error}.{missing} Reinstall {self.distribution}."
            ) from error

    def described(self) -> Entry:
        """Return the entry with what its class says of itself, if it is another distribution's."""
        if self.distribution == DISTRIBUTION:
            return self
        try:
            kernel = self.load()
        except ImportError:
            return replace(self, summary="does not import")
        known = {key: getattr(kernel, key, None) for key in ("title", "family", "parameters", "recurrent", "summary")}
        said: dict[str, Any] = {key: value for key, value in known.items() if isinstance(value, (str, bool))}
        return replace(self, **said)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return a kernel built with the given options."""
        return self.load()(*args, **kwargs)


def own_entries() -> dict[str, Entry]:
    """Return the kernels of registry.yaml by name."""
    text = resources.files("hope_ssm").joinpath("registry.yaml").read_text(encoding="utf-8")
    entries = {}
    for name, row in yaml.safe_load(text).items():
        row = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        entries[name] = Entry(name=name, distribution=DISTRIBUTION, **row)
    return entries


def foreign_entries() -> Iterator[Entry]:
    """Yield the kernels that other distributions declare in the group, without importing them, in the order of
    the distributions' names."""
    seen = set()
    points = metadata.entry_points(group=GROUP)
    for point in sorted(points, key=lambda point: "" if point.dist is None else point.dist.name):
        owner = point.dist.name if point.dist is not None else "an unnamed distribution"
        key = (owner.lower().replace("_", "-"), point.name, point.value)
        if key[0] != DISTRIBUTION and key not in seen:
            seen.add(key)
            yield Entry(name=point.name, target=point.value, distribution=owner)


def kernels() -> dict[str, Entry]:
    """Return every kernel installed here, by name, this distribution's first.

    A name that two distributions claim stays with the first, ours before any other; a warning names both.
    """
    found, lost = _sorted_out()
    for sentence in lost:
        log_once(_logger, logging.WARNING, sentence)
    return found


def clashes() -> list[str]:
    """Return a sentence for every name that another distribution claims in vain."""
    return _sorted_out()[1]


def _sorted_out() -> tuple[dict[str, Entry], list[str]]:
    found, lost = own_entries(), []
    taken = {alias: entry for entry in found.values() for alias in (entry.name, *entry.aliases)}
    for entry in foreign_entries():
        first = taken.setdefault(entry.name, entry)
        if first is entry:
            found[entry.name] = entry
        else:
            lost.append(
                f"the kernel {entry.name!r} of {entry.distribution} is not used: {first.distribution} has that name, "
                f"and comes first. Rename the entry point of {entry.distribution}, or uninstall one of them."
            )
    return found, lost


def names() -> dict[str, Entry]:
    """Return every name and alias with its kernel."""
    return {name: entry for entry in kernels().values() for name in (entry.name, *entry.aliases)}


@cache
def _installed() -> Mapping[str, Entry]:
    return names()


def title(name: str) -> str:
    """Return what tables and pictures call a kernel: its title; that of ``s4`` and the rest of ``s4-hippo``."""
    known, parts = _installed(), name.split("-")
    for count in range(len(parts), 0, -1):
        entry = known.get("-".join(parts[:count]))
        if entry is not None and (said := entry.described().title):
            return "-".join([said, *parts[count:]])
    return name


def get(name: str) -> Any:
    """Return the kernel class called ``name`` (or one of its aliases); unknown names raise ``ValueError``."""
    known = _installed()
    if name not in known:
        raise ValueError(f"kernel must be one of {', '.join(known)}; got {name!r}.{nearest(name, known)}")
    return known[name].load()
