"""What this distribution says it needs, read from its own metadata, and whether what is installed fits."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from traceback import walk_tb

import packaging.requirements
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from hope_ssm.extras import EXTRAS

DISTRIBUTION = "hope-ssm"
# What only newer versions than those of the metadata can do; everything else works from there on.
COMPILED = "torch.compile(fullgraph=True) and torch.export of every kernel"
FEATURES = {"train.ema": ("pytorch-lightning", "2.6"), COMPILED: ("torch", "2.8")}


@dataclass(frozen=True)
class Requirement:
    """A package with the versions that are needed, by the base (``extra`` is None) or by an extra."""

    name: str
    bounds: str
    extra: str | None = None

    @property
    def installed(self) -> str | None:
        """The version that is here, None if the package is absent."""
        return version(self.name)

    @property
    def mend(self) -> str:
        """What to do where the version that is here does not fit; "" where it does, and for an absent package."""
        here = self.installed
        if here is None or _holds(here, self.bounds):
            return ""
        if self.name == "python":
            return f"python must be {self.bounds}; got {here}."
        return f"{self.name} must be {self.bounds}; got {here}: pip install '{self.name}{self.bounds}'."


def version(distribution: str) -> str | None:
    """Return the installed version of a distribution, or of Python; None if it is absent."""
    if distribution == "python":
        return platform.python_version()
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def at_least(distribution: str, least: str) -> bool:
    """Return whether a distribution is installed in this version, a candidate of it, or a newer one."""
    here = version(distribution)
    return here is not None and Version(Version(here).base_version) >= Version(least)


def requirements() -> list[Requirement]:
    """Return what the metadata of this distribution requires on this Python, that of Python first; [] without any."""
    try:
        about = metadata.metadata(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return []
    found = [Requirement("python", about["Requires-Python"] or "")]
    extras = [None, *(about.get_all("Provides-Extra") or [])]
    for row in map(packaging.requirements.Requirement, about.get_all("Requires-Dist") or []):
        bounds = ",".join(sorted(map(str, row.specifier), reverse=True))  # the lower bound first
        by = [extra for extra in extras if row.marker is None or row.marker.evaluate({"extra": extra or ""})]
        if row.name != DISTRIBUTION and by:
            found.append(Requirement(row.name, bounds, by[0]))
    return found


def unmet_by_imported(error: BaseException) -> Iterator[str]:
    """Yield a sentence for every package in a version that does not fit which was imported, or failed to be.

    Args:
        error: what failed. A package whose import ended in it is not among the imported ones; its code stands in the
            traceback.
    """
    names = {name: module for module, (name, _) in EXTRAS.items()} | {"pyyaml": "yaml", "hydra-core": "hydra"}
    at_work = {str(frame.f_globals.get("__name__")).partition(".")[0] for frame, _ in walk_tb(error.__traceback__)}
    at_work |= sys.modules.keys()
    sentences = (r.mend for r in requirements() if names.get(r.name, r.name) in at_work)
    yield from dict.fromkeys(filter(None, sentences))


def _holds(here: str, bounds: str) -> bool:
    return SpecifierSet(bounds).contains(here, prereleases=True)
