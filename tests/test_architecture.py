"""The direction of imports and the size of files, from the syntax trees."""

from __future__ import annotations

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from declared import base, beyond_the_base, declared
from hope_ssm import _HOME

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "plugin"
PACKAGE = PLUGIN / "hope_ssm"
FILES = [
    path for path in sorted(PLUGIN.rglob("*.py")) if not {"configs", "upstream"} & set(path.relative_to(PLUGIN).parts)
]

MATHEMATICS = {"hankel", "ops", "precision"}
# checks, extras, precision ← ops, hankel ← kernels ← registry ← layers ← analysis ← hosts, workbench ← benchmark,
# figures ← cli.
# Part of the package: what it may import besides itself, the checks and the version.
MAY_IMPORT = {
    "__init__": {"hankel", "kernels", "layers", "ops", "registry", "workbench"},
    "checks": set(),
    "extras": set(),
    "requirements": set(),
    "arithmetic": set(),
    "precision": set(),
    "reporting": {"storage"},
    "storage": set(),
    "hankel": set(),
    "datasets": {"storage"},
    "ops": {"precision"},
    "kernels": MATHEMATICS,
    "registry": {"kernels"},
    "layers": MATHEMATICS | {"kernels", "registry"},
    "analysis": MATHEMATICS | {"kernels", "registry", "reporting"},
    "hosts": MATHEMATICS
    | {"kernels", "registry", "datasets", "layers", "analysis", "reporting", "arithmetic", "requirements"},
    "workbench": MATHEMATICS
    | {"kernels", "registry", "datasets", "layers", "analysis", "reporting", "storage", "arithmetic"},
    "hydra_searchpath": {"hosts"},
    "benchmark": MATHEMATICS | {"kernels", "registry", "layers", "hosts", "workbench", "reporting"},
    "figures": MATHEMATICS | {"kernels", "registry", "layers", "analysis", "workbench", "reporting"},
    "cli": MATHEMATICS
    | {"kernels", "registry", "datasets", "layers", "analysis", "reporting", "storage", "arithmetic"}
    | {"hosts", "workbench", "benchmark", "figures", "requirements"},
}
# Within the mathematics: frequency, toeplitz, transforms ← contraction, backends ← transfer, realization ← convolution.
OPS = {
    "contraction": {"transforms"},
    "frequency": set(),
    "toeplitz": {"frequency"},
    "transforms": set(),
    "backends": {"frequency", "toeplitz", "transforms"},
    "transfer": {"frequency", "backends"},
    "realization": {"frequency", "backends", "toeplitz"},
    "convolution": {"backends", "transfer", "realization"},
    "band_responses": {"backends", "frequency", "toeplitz", "transforms"},
    "bands": {"band_responses", "frequency", "toeplitz"},
    "workers": set(),
    "fresh_memory": set(),
    "grouped_convolution": {"fresh_memory", "workers"},
    "native_build": set(),
    "native_convolution": {"native_build", "grouped_convolution", "fresh_memory"},
    "convolution_derivatives": {"grouped_convolution", "native_convolution", "transforms"},
    "circular_convolution": set(),
    "scan": set(),
    "long_convolution": {
        "convolution_derivatives",
        "grouped_convolution",
        "native_build",
        "native_convolution",
        "transforms",
    },
}
# Of the folders of the workbench: which of its other modules they may import.
WORKBENCH = {
    "models": {"options"},
    "data": {"options"},
    "reports": {"losses", "resuming", "run_directory", "survey"},
    "validation": {"callbacks", "compilation", "configuration", "data", "losses", "models"}
    | {"optimization", "resuming", "streaming"},
}
# Whoever installs the kernels for the host needs no more than these in the mathematics and the kernels.
NUMERICAL = {"torch", "numpy", "scipy", "opt_einsum"}
OPTIONAL_BACKENDS = {"pykeops", "triton"}
# What the workbench's extra brings may be imported where its code begins; everything else runs with the base alone.
LOADS_THE_WORKBENCH = {"hydra", "omegaconf", "pytorch_lightning", "pydantic"}
WITH_THE_WORKBENCH = {"analysis", "arithmetic", "benchmark", "figures", "hosts", "hydra_searchpath", "workbench"}


def part(path: Path) -> str:
    inside = path.relative_to(PACKAGE).parts
    return inside[0].removesuffix(".py")


def name(path: Path) -> str:
    return str(path.relative_to(PLUGIN))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def docstrings(path: Path) -> set[int]:
    """The identities of the expressions that are docstrings."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree(path)) if isinstance(node, holders) and node.body]
    return {id(body[0].value) for body in bodies if isinstance(body[0], ast.Expr)}


@cache
def strings(path: Path) -> list[str]:
    skipped = docstrings(path)
    return [
        node.value
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped
    ]


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names that a file imports, anywhere in it: by statement, or of this package by a string."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}:{node.lineno} must import by absolute name"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    found.update(text.split(":")[0] for text in strings(path) if re.fullmatch(r"hope_ssm(\.\w+)+(:\w+)?", text))
    return frozenset(found)


def own_parts(path: Path) -> set[str]:
    """Which parts of the package a file imports; a public name counts as the part it lives in."""
    parts = set()
    for dotted in imports(path):
        first, *rest = dotted.split(".")
        if first == "hope_ssm" and rest:
            home = _HOME.get(rest[0], f"hope_ssm.{rest[0]}").split(".")[1]
            if home not in ("__version__", "configs"):
                parts.add(home)
    return parts


def third_party(path: Path) -> set[str]:
    tops = {dotted.split(".")[0] for dotted in imports(path)}
    return tops - set(sys.stdlib_module_names) - {"hope_ssm", "src"}


def package_files():
    return [path for path in FILES if PACKAGE in path.parents]


def test_every_part_has_its_place():
    assert {part(path) for path in package_files()} <= set(MAY_IMPORT)


def test_imports_point_one_way():
    for path in package_files():
        assert own_parts(path) <= MAY_IMPORT[part(path)] | {part(path), "checks", "extras"}, name(path)


def ops_part(path: Path) -> str:
    return path.relative_to(PACKAGE / "ops").parts[0].removesuffix(".py")


def test_the_mathematics_points_one_way():
    for path in sorted((PACKAGE / "ops").rglob("*.py")):
        own = ops_part(path)
        if own != "__init__":
            used = {text.split(".")[2] for text in imports(path) if text.startswith("hope_ssm.ops.")}
            assert used <= OPS[own] | {own}, name(path)


@pytest.mark.parametrize("folder", WORKBENCH)
def test_the_folders_of_the_workbench_do_not_know_how_it_trains(folder):
    dotted = {text.split(".")[2] for path in (PACKAGE / "workbench" / folder).glob("*.py") for text in imports(path)
              if text.startswith("hope_ssm.workbench.")}  # fmt: skip
    assert folder in dotted
    assert dotted <= WORKBENCH[folder] | {folder}


def test_data_sets_are_for_hosts_workbench_and_command_line():
    users = {part(path) for path in package_files() if "datasets" in own_parts(path)}
    assert users <= {"datasets", "hosts", "workbench", "cli"}


def test_only_the_host_s_files_know_the_host():
    """Its modules are imported in hosts/state_spaces*.py alone, and named in no string but theirs and the plug-in's."""
    for path in package_files():
        if not (part(path) == "hosts" and path.name.startswith("state_spaces")):
            assert not {dotted for dotted in imports(path) if dotted.split(".")[0] == "src"}, name(path)
        if part(path) not in ("hosts", "hydra_searchpath"):
            assert not [text for text in strings(path) if re.match(r"src(\.|/|$)", text)], name(path)


def test_mathematics_kernels_and_layers_are_numerical():
    """No Hydra, no Lightning, no configuration library."""
    for path in package_files():
        if part(path) in MATHEMATICS | {"checks", "kernels", "layers"}:
            allowed = NUMERICAL | (OPTIONAL_BACKENDS if "backends" in path.parts else set())
            assert third_party(path) <= allowed, name(path)


def test_contractions_of_three_operands_go_through_opt_einsum():
    """By way of ``contraction``: opt_einsum itself breaks the graphs of torch.compile."""
    for path in FILES:
        calls = [
            node for node in ast.walk(tree(path))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "einsum"
        ]  # fmt: skip
        assert not [call.lineno for call in calls if len(call.args) > 3], name(path)


def test_every_package_of_the_base_is_imported():
    used = set().union(*(third_party(path) for path in FILES))
    assert not {name for name, modules in declared()[0].items() if not modules & used}


def test_every_import_is_declared():
    known = base() | beyond_the_base()
    for path in FILES:
        assert third_party(path) <= known, name(path)


def test_extras_are_imported_where_they_are_used():
    """Never while a module loads, but the workbench's own where its code begins: the rest needs the base alone."""
    on_demand = {PACKAGE / "ops" / "backends" / "triton.py", PACKAGE / "workbench" / "estimators.py"}
    for path in set(FILES) - on_demand:  # those are themselves loaded only where they are asked for
        workbench = PACKAGE in path.parents and part(path) in WITH_THE_WORKBENCH
        optional = beyond_the_base() - (LOADS_THE_WORKBENCH if workbench else set())
        for node in tree(path).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
                assert not {module.split(".")[0] for module in names} & optional, name(path)


def test_files_are_short_enough_to_read():
    for path in [*FILES, *sorted((ROOT / "tests").rglob("*.py"))]:
        limit = 300 if PLUGIN in path.parents else 450
        assert len(path.read_text(encoding="utf-8").splitlines()) <= limit, str(path)


def test_namespace_packages_have_no_init():
    """hydra_plugins is shared with other distributions; src is the host's."""
    assert not (PLUGIN / "hydra_plugins" / "__init__.py").exists()
    assert not list(PLUGIN.rglob("src/__init__.py"))


def test_reference_is_independent():
    reference = ROOT / "tests" / "helpers" / "reference.py"
    assert not {dotted for dotted in imports(reference) if "hope_ssm" in dotted}
