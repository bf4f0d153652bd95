"""The wheel and the editable installation, seen from outside the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
CONFIGS = {str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml")}
UPSTREAM = {path.relative_to(ROOT).as_posix() for path in (ROOT / "upstream").rglob("*.*") if path.suffix != ".pyc"}
KERNELS = yaml.safe_load((ROOT / "registry.yaml").read_text(encoding="utf-8"))

REPORT = """
import json, sys
from importlib import metadata, resources
import hope_ssm
package = resources.files("hope_ssm")

def walk(directory, prefix):
    for item in directory.iterdir():
        if item.is_dir():
            yield from walk(item, f"{prefix}/{item.name}")
        elif item.name.endswith(".yaml"):
            yield f"{prefix}/{item.name}"

distribution = metadata.distribution("hope-ssm")
report = {
    "file": hope_ssm.__file__,
    "version": [hope_ssm.__version__, distribution.version],
    "configs": sorted(walk(package / "configs", "configs")),
    "registry": (package / "registry.yaml").read_text(encoding="utf-8"),
    "typed": (package / "py.typed").is_file(),
    "entry_points": {group: {p.name: p.value for p in distribution.entry_points if p.group == group}
                     for group in ("state_spaces.kernels", "hydra.plugins", "console_scripts")},
}
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
found = [plugin.__module__ for plugin in Plugins.instance().discover(SearchPathPlugin)]
report["plugins"] = [module for module in found if "hope_ssm" in module]
report["torch at plug-in time"] = "torch" in sys.modules
import hydra_plugins
report["namespace"] = getattr(hydra_plugins, "__file__", None)
from hydra import compose, initialize_config_module
with initialize_config_module("hope_ssm.configs", version_base="1.3"):
    report["composed"] = compose(overrides=["+kernel=hope"]).model.layer.mode
import torch
report["kernel"] = hope_ssm.convolution_kernel(torch.ones(3), 1.0, 5).tolist()
report["loaded"] = [p.load() is not None for p in distribution.entry_points]
report["names"] = sorted(hope_ssm.registry.names())
print(json.dumps(report))
"""


def call(*command, cwd, **options):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PIP_", "HYDRA"))}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, **options
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what the build reads, with its links, so that building leaves nothing in the real one."""
    copy = tmp_path_factory.mktemp("checkout") / "hope-ssm"
    copy.mkdir()
    for name in ("configs", "plugin", "upstream"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "registry.yaml", "README.md", "LICENSE", "NOTICE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    call(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", directory,
        checkout, cwd=directory,
    )  # fmt: skip
    (built,) = directory.glob("hope_ssm-*.whl")
    return built


SDIST = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"


def test_the_source_distribution_is_the_repository_and_builds_the_same_wheel(wheel, checkout, tmp_path):
    for name in ("tests", "docs", "tools"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__", "runs"))
    call(sys.executable, "-c", SDIST, tmp_path, cwd=checkout)
    (archive,) = tmp_path.glob("hope_ssm-*.tar.gz")
    shutil.unpack_archive(archive, tmp_path, filter="data")
    source = archive.with_name(archive.name.removesuffix(".tar.gz"))
    for name in ("tests", "docs", "tools", "configs"):
        files = {path.relative_to(ROOT) for path in (ROOT / name).rglob("*.*") if "__pycache__" not in path.parts}
        assert [path for path in files if not (source / path).exists()] == []
    call(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", tmp_path,
        source, cwd=tmp_path,
    )  # fmt: skip
    (again,) = tmp_path.glob("*.whl")
    first, second = ({i.filename: i.CRC for i in zipfile.ZipFile(w).infolist()} for w in (wheel, again))
    record = next(name for name in first if name.endswith("RECORD"))
    assert {**first, record: 0} == {**second, record: 0}


def test_the_page_of_the_package_has_no_relative_link(wheel):
    with zipfile.ZipFile(wheel) as archive:
        page = archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))).decode()
    assert "# hope-ssm" in page
    assert re.findall(r"\]\((?!https?:)[^)]*\)", page) == []


@pytest.mark.parametrize("link", ["configs", "registry.yaml", "upstream"])
def test_a_checkout_without_links_is_refused(link, checkout, tmp_path):
    copy = tmp_path / "hope-ssm"
    shutil.copytree(checkout, copy, symlinks=True)
    place = copy / "plugin" / "hope_ssm" / link
    if place.is_dir() and not place.is_symlink():  # tested from the source distribution
        shutil.rmtree(place)
    else:
        place.unlink()
    place.write_text(f"../../{link}", encoding="utf-8")
    result = subprocess.run([sys.executable, "setup.py", "--version"], cwd=copy, capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr.startswith(f"plugin/hope_ssm/{link}")
    assert "git config core.symlinks true" in result.stderr


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, checkout, tmp_path_factory):
    """(python of a fresh environment with the distribution in it, what it reports, the kind).

    Its dependencies are those of the running environment, by a path and not by installation.
    """
    outside = tmp_path_factory.mktemp(request.param)
    environment = outside / "environment"
    call(sys.executable, "-m", "venv", "--without-pip", environment, cwd=outside)
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    own = Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=outside).strip())
    lenders = [entry for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")]
    (own / "dependencies.pth").write_text("\n".join(lenders) + "\n")
    what = ["-e", checkout] if request.param == "editable" else [request.getfixturevalue("wheel")]
    call(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-build-isolation", "--no-index",
        "--ignore-installed", *what, cwd=outside,
    )  # fmt: skip
    return python, json.loads(call(python, "-c", REPORT, cwd=outside)), request.param


def test_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert tops == {"hope_ssm", "hydra_plugins", next(top for top in tops if top.endswith(".dist-info"))}
    modules = {
        str(path.relative_to(ROOT / "plugin"))
        for path in (ROOT / "plugin").rglob("*.py")
        if not {"configs", "upstream"} & set(path.relative_to(ROOT).parts)
    }
    assert modules <= names
    assert {f"hope_ssm/{path}" for path in CONFIGS | UPSTREAM} <= names
    assert {"hope_ssm/registry.yaml", "hope_ssm/py.typed", "hope_ssm/configs/__init__.py"} <= names
    assert not [name for name in names if name.endswith((".pyc", "src/__init__.py"))]
    assert "hydra_plugins/__init__.py" not in names


def test_wheel_carries_the_licence_and_the_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(path).decode()
        for name in ("LICENSE", "NOTICE"):
            assert archive.read(path.replace("METADATA", f"licenses/{name}")).decode() == (ROOT / name).read_text()
    assert "Requires-Python: >=3.10" in metadata
    assert "License-Expression: Apache-2.0" in metadata
    for extra in ("workbench", "keops", "launchers", "dev"):
        assert f"Provides-Extra: {extra}" in metadata
    assert 'Requires-Dist: pykeops>=2.2; extra == "keops"' in metadata  # never by default


def test_installed_package_is_the_one_outside(installed):
    python, report, kind = installed
    environment = python.parents[1]
    assert environment in Path(report["file"]).parents or kind == "editable"
    assert ROOT not in Path(report["file"]).parents
    assert report["version"][0] == report["version"][1]
    assert report["kernel"] == pytest.approx([0, 1, 1, 1, 0], abs=1e-6)


def test_installed_data(installed):
    _, report, _ = installed
    assert set(report["configs"]) == CONFIGS
    assert report["registry"] == (ROOT / "registry.yaml").read_text(encoding="utf-8")
    assert report["typed"]
    assert report["composed"] == "hope"


def test_installed_entry_points(installed):
    _, report, _ = installed
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    assert report["entry_points"] == {**project["entry-points"], "console_scripts": project["scripts"]}
    assert set(report["names"]) >= set(KERNELS)
    assert all(report["loaded"])


def test_installed_hydra_plugin_is_found_once(installed):
    _, report, _ = installed
    assert report["plugins"] == ["hope_ssm.hydra_searchpath"]
    assert report["namespace"] is None
    assert not report["torch at plug-in time"]


def test_installed_command(installed):
    python, _, _ = installed
    command = shutil.which("hope", path=str(python.parent))
    assert command
    first_words = [line.split()[0] for line in call(command, "kernels", cwd=python.parents[2]).splitlines() if line]
    assert set(KERNELS) <= set(first_words)
