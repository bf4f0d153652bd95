"""The Python blocks of the README and of the documentation run, in the order of each page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page):
    """(first line, code) of each block."""
    text = page.read_text(encoding="utf-8")
    return [(text[: found.start(1)].count("\n"), found[1]) for found in BLOCK.finditer(text)]


def test_there_are_blocks_to_run():
    assert {"README.md", "online.md"} <= {name for name, page in PAGES.items() if blocks(page)}
    for page in PAGES.values():
        assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks(page)), "only blocks of ```python run"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if blocks(page)])
def test_the_python_of_a_page_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__page__"}
    for line, code in blocks(PAGES[name]):
        exec(compile("\n" * line + code, str(PAGES[name]), "exec"), names)


def test_every_use_of_the_layer_is_shorter_than_twenty_lines():
    uses = [code for _, code in blocks(PAGES["layer.md"])]
    assert len(uses) >= 4
    assert all(len([line for line in code.splitlines() if line.strip()]) < 20 for code in uses)


def test_the_examples_with_tables_are_shorter_than_twenty_five_lines():
    uses = [code for _, code in blocks(PAGES["data.md"]) if ".csv" in code]
    assert len(uses) == 3
    assert all(len([line for line in code.splitlines() if line.strip()]) < 25 for code in uses)


def test_ten_lines_are_ten():
    """The first block of the page so called, without the comparison at its end."""
    _, code = blocks(PAGES["online.md"])[0]
    assert len([line for line in code.splitlines() if line.strip()]) - 1 <= 10
