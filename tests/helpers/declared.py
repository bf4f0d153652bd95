"""What pyproject.toml declares that the package needs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

IMPORT_NAMES = {
    "hydra-core": {"hydra", "omegaconf"},
    "pytorch-lightning": {"pytorch_lightning"},
    "pillow": {"PIL"},
    "pyyaml": {"yaml"},
    "scikit-learn": {"sklearn"},
}


def project() -> dict:
    with (Path(__file__).parents[2] / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]


def declared() -> tuple[dict[str, set[str]], dict[str, dict[str, set[str]]]]:
    """(base: {distribution: import names}, extras: {extra: the same})."""

    def names(requirements):
        found = (re.match(r"[A-Za-z0-9_.-]+", text)[0].lower() for text in requirements)
        return {key: IMPORT_NAMES.get(key, {key.replace("-", "_")}) for key in found}

    table = project()
    return names(table["dependencies"]), {key: names(row) for key, row in table["optional-dependencies"].items()}


def base() -> set[str]:
    """The import names of the base."""
    return set().union(*declared()[0].values())


def beyond_the_base(*extras: str) -> set[str]:
    """The import names that these extras add to the base; without a name, all extras."""
    rows = [row for extra, row in declared()[1].items() if not extras or extra in extras]
    return set().union(*(modules for row in rows for modules in row.values())) - base() - {"hope_ssm"}
