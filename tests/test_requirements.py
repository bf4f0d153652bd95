"""Bounds of versions: those that pyproject.toml declares are those that ``hope doctor`` says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
import yaml

import hope_ssm
from declared import project
from hope_ssm import requirements
from hope_ssm.cli import doctor

ROOT = Path(__file__).parents[1]


def test_the_bounds_are_those_of_the_project():
    table = project()
    declared = {(None, "python"): table["requires-python"]}
    for extra, rows in [(None, table["dependencies"]), *table["optional-dependencies"].items()]:
        for row in rows:
            name, bounds = re.fullmatch(r"([\w-]+)([^;\[]*)(?:[;\[].*)?", row).groups()
            if name not in ("hope-ssm", "tomli"):  # one by extras, one for an older Python alone
                declared[extra, name] = bounds
    said = {(row.extra, row.name): row.bounds for row in requirements.requirements() if row.name != "tomli"}
    assert said == declared
    said = doctor.versions()
    assert {name: row["needed"] for name, row in said.items() if row["by"]} == {
        name: bounds for (extra, name), bounds in declared.items() if extra not in doctor.NOT_TO_RUN
    }


@pytest.mark.parametrize(
    ("here", "bounds", "fits"),
    [
        ("2.13.0+cpu", ">=2.3", True), ("2.3", ">=2.3.0", True), ("2.10.1", ">=2.9", True), ("1.3.1", ">=1.3.2", False),
        ("1.4.0.dev1", ">=1.3.2,<1.4", False), ("2.6.0rc1", ">=2.6", False), ("1.3.8", ">=1.3.2,<1.4", True),
        ("2.14.0.dev20261101", ">=2.6", True), ("0.1", "", True), (None, ">=3", True),
    ],
)  # fmt: skip
def test_versions_are_compared_as_numbers(monkeypatch, here, bounds, fits):
    monkeypatch.setattr(requirements, "version", lambda name: here)
    mend = requirements.Requirement("hydra-core", bounds).mend
    assert mend == ("" if fits else f"hydra-core must be {bounds}; got {here}: pip install 'hydra-core{bounds}'.")


def test_doctor_says_what_is_too_old(monkeypatch, tmp_path, capsys):
    here = {"torch": "2.2.1", "pytorch-lightning": "2.5.6", "python": "3.12.1"}
    monkeypatch.setattr(requirements, "version", here.get)
    monkeypatch.setenv("STATE_SPACES_HOME", str(tmp_path))
    assert doctor.run([]) == 1
    said = capsys.readouterr().out
    assert "torch must be >=2.5; got 2.2.1: pip install 'torch>=2.5'." in said
    assert "train.ema needs pytorch-lightning>=2.6; here is 2.5.6" in said


def test_the_version_stands_in_one_place():
    """The package's; the citation and the changelog agree with it."""
    assert "version" in project()["dynamic"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == hope_ssm.__version__
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest[1] == hope_ssm.__version__


def test_the_lowest_row_of_the_matrix_is_the_lower_bounds():
    """tools/matrix installs them exactly, but for what is given."""
    matrix = runpy.run_path(str(ROOT / "tools" / "matrix"))
    lowest = matrix["packages"]("lowest", ["torch==2.13.0"])
    declared = [*project()["dependencies"], *project()["optional-dependencies"]["workbench"]]
    assert len(lowest) == len(declared) + len(matrix["TO_TEST"])
    assert {"torch==2.13.0", "numpy==1.24", "hydra-core==1.3.2", "pytorch-lightning==2.5.3"} <= set(lowest)
    assert set(declared) <= set(matrix["packages"]("newest", []))
    assert all((ROOT / test.partition("::")[0]).is_file() for test in matrix["SUITE"])
