"""Docstrings are Google's dialect, as griffe reads it for the documentation site, and agree with the signatures."""

from __future__ import annotations

import importlib
import inspect
import logging
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import griffe
import pytest

PLUGIN = Path(__file__).parents[1] / "plugin"
SECTIONS = {
    **{"Args": "parameters", "Returns": "returns", "Raises": "raises", "Yields": "yields"},
    "Attributes": "attributes",
}
STARS = {"variadic positional": "*", "variadic keyword": "**"}


@cache
def _package() -> griffe.Module:
    return griffe.load("hope_ssm", search_paths=[PLUGIN])


def _objects(of: griffe.Object) -> Iterator[griffe.Object]:
    for member in of.members.values():
        if not member.is_alias:
            yield member
            if member.is_module or member.is_class:
                yield from _objects(member)


def _documented() -> list[griffe.Object]:
    return [found for found in _objects(_package()) if found.docstring and (found.is_class or found.is_function)]


def _parts(found: griffe.Object) -> dict[str, griffe.DocstringSection]:
    parsed = griffe.parse_google(found.docstring, returns_multiple_items=False, returns_named_value=False)
    return {part.kind.value: part for part in parsed}


def _written(found: griffe.Object) -> set[str]:
    """Names in the signature, as it stands in the file."""
    function = found.members.get("__init__") if found.is_class else found
    if function is None:  # a dataclass
        return {member.name for member in found.members.values() if member.is_attribute and member.annotation}
    parameters = function.parameters if function.is_function else ()
    return {STARS.get(p.kind.value, "") + p.name for p in parameters if p.name not in ("self", "cls")}


def _at_run_time(found: griffe.Object) -> set[str]:
    """Names in the signature of a kernel, which has those of its base too."""
    if not found.is_class or "kernels" not in found.path.split("."):
        return set()
    kernel = getattr(importlib.import_module(found.parent.path), found.name)
    return set(inspect.signature(kernel).parameters)


def _fault(found: griffe.Object) -> str | None:
    parts = _parts(found)
    for word, kind in SECTIONS.items():
        if re.search(rf"\b{word}:", found.docstring.value) and kind not in parts:
            return f"{word}: must stand on its own line, with its entries indented below it"
    if "parameters" in parts:
        described = {entry.name for entry in parts["parameters"].value}
        unknown = described - _written(found) - _at_run_time(found)
        missing = _written(found) - described
        if _at_run_time(found) - {"options"} <= described:
            missing -= {"**shared"}  # the options that it stands for are described one by one
        if unknown or missing:
            return f"Args: describes {sorted(unknown)}, which it has not; lacks {sorted(missing)}"
    if "returns" in parts and found.is_function and str(found.returns) == "None":
        return "Returns: of a function that returns None"
    return None


def test_every_section_can_be_read_and_agrees_with_the_signature():
    faults = {found.path: fault for found in _documented() if (fault := _fault(found))}
    assert not faults, "\n".join(f"{path}: {fault}" for path, fault in faults.items())
    assert sum("parameters" in _parts(found) for found in _documented()) > 150  # it has read something


def test_griffe_has_no_complaint(caplog):
    with caplog.at_level(logging.WARNING, logger="griffe"):
        for found in _documented():
            _parts(found)
    ours = ("does not appear in the function signature", "No type or annotation for parameter")  # _fault knows better
    assert not [said for said in caplog.messages if not any(part in said for part in ours)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('"""x.  Args: a: b."""', "must stand on its own line"),
        ('"""x.\n\n    Args:\n        b: c.\n    """', "describes"),
        ('"""x.\n\n    Args:\n        a: c.\n\n    Returns:\n        it.\n    """', "returns None"),
    ],
)
def test_faults_are_seen(text, fault):
    with griffe.temporary_visited_module(f"def f(a: int) -> None:\n    {text}\n") as module:
        assert fault in _fault(module["f"])
