"""Words that were given up for the field's own stay out of the package, the tests and the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Retired word: what stands in its place.
INSTEAD = {
    "contract": "base, interface; einsum for a contraction",
    "ruling": "optimizer option",
    "lens": "analysis",
    "KeptKernel": "KernelCache",
    "arena": "lra, and Long-Range Arena in full",
    "catalogue": "builtin",
    "settle": "check",
    "told": "explained, given",
    "mine": "ours",
}
WORD = re.compile(rf"\b({'|'.join(INSTEAD)})s?\b", re.IGNORECASE)
ALLOWED = re.compile(r"long.range(?:.|\s+)arena|opt_einsum\.contract\b", re.IGNORECASE)
FILES = [
    path
    for place in ("plugin", "tests", "docs", "configs", "tools", "upstream", ".ci", "*.md", "*.yaml", "*.yml", "*.py")
    for found in sorted(ROOT.glob(place))
    for path in ([found] if found.is_file() else sorted(found.rglob("*")))
    if path.suffix in (".py", ".md", ".yaml", ".yml", ".ipynb", "") and path.is_file() and path != Path(__file__)
]


def _found(text: str) -> list[str]:
    return [match[0] for match in WORD.finditer(ALLOWED.sub("", text))]


def test_retired_words_stay_away():
    assert len(FILES) > 300
    found = {}
    for path in FILES:
        if words := [*_found(path.read_text(encoding="utf-8")), *_found(path.stem.replace("_", " "))]:
            found[str(path.relative_to(ROOT))] = words
    assert not found, f"{found}; instead: {INSTEAD}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the Long-Range Arena; opt_einsum.contract(x)", []),
        ("kernels/contract, Damage.settle()", ["contract", "settle"]),
        ("the rulings of the arena", ["rulings", "arena"]),
        ("determined, contraction, folder", []),
    ],
)
def test_a_retired_word_is_seen(text, words):
    assert _found(text) == words
