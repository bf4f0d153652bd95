"""What this distribution says it needs, read from its own metadata, and whether what is installed fits."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from hope_ssm.extras import EXTRAS

DISTRIBUTION = "hope-ssm"
# What only newer versions than those of the metadata can do; everything else works from there on.
COMPILED = "torch.compile(fullgraph=True) and torch.export of every kernel"
FEATURES = {"train.ema": ("pytorch-lightning", "2.6"), COMPILED: ("torch", "2.13")}


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
        if here is None or all(_holds(here, bound) for bound in self.bounds.split(",") if bound):
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
    """Return whether a distribution is installed in this version or a newer one."""
    here = version(distribution)
    return here is not None and _holds(here, f">={least}")


def requirements() -> list[Requirement]:
    """Return what the metadata of this distribution requires on this Python, that of Python first; [] without any."""
    try:
        about = metadata.metadata(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return []
    found = [Requirement("python", about["Requires-Python"] or "")]
    for line in about.get_all("Requires-Dist") or []:
        text, _, marker = line.partition(";")
        name, bounds = re.fullmatch(r"\s*([\w.-]+)(?:\[.*\])?\s*\(?([^)]*?)\)?\s*", text).groups()  # type: ignore[union-attr]
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        if name != DISTRIBUTION and "python_version" not in marker:
            bounds = ",".join(sorted(bounds.replace(" ", "").split(","), reverse=True))  # the lower bound first
            found.append(Requirement(name, bounds, extra[1] if extra else None))
    return found


def unmet_by_imported() -> Iterator[str]:
    """Yield a sentence for every package that this process has imported in a version that does not fit."""
    names = {name: module for module, (name, _) in EXTRAS.items()} | {"pyyaml": "yaml", "hydra-core": "hydra"}
    sentences = (r.mend for r in requirements() if names.get(r.name, r.name) in sys.modules)
    yield from dict.fromkeys(filter(None, sentences))


def _holds(here: str, bound: str) -> bool:
    relation, least = re.fullmatch(r"(>=|<=|==|!=|<|>)(.+)", bound).groups()  # type: ignore[union-attr]
    first, second = (_numbers(text) for text in (here, least))
    return {
        ">=": first >= second, "<=": first <= second, "==": first == second,
        "!=": first != second, "<": first < second, ">": first > second,
    }[relation]  # fmt: skip


def _numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a version, five of them, without what follows: 2.13.0+cpu is (2, 13, 0, 0, 0)."""
    found = re.match(r"\d+(?:\.\d+)*", text)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    return tuple((numbers + 5 * [0])[:5])
