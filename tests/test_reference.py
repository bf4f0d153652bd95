"""The generated pages of the documentation site: every module, every public name, every override key."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import markdown
import pytest
import yaml

import hope_ssm

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "tools" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    importlib.sys.modules["reference"] = module  # where dataclasses looks a module up
    spec.loader.exec_module(module)
    return module


def test_every_module_has_a_place(reference):
    listed = [name for names in reference.modules().values() for name in names]
    files = (ROOT / "plugin" / "hope_ssm").rglob("*.py")
    here = {".".join(path.relative_to(ROOT / "plugin").with_suffix("").parts) for path in files}
    wanted = {name for name in here if "__init__" not in name and ".configs" not in name}
    assert wanted <= set(listed)
    assert len(listed) == len(set(listed))


def test_every_public_name_leads_to_its_definition(reference):
    page = reference.public_page()
    for name in hope_ssm.__all__:
        (row,) = (line for line in page.splitlines() if line.startswith((f"| [`{name}`]", f"| `{name}`")))
        for target in re.findall(r"\]\[(.*?)\]", row):
            module, _, attribute = target.rpartition(".")
            assert getattr(importlib.import_module(module), attribute) is getattr(hope_ssm, name)


def _keys(value, prefix):
    if isinstance(value, dict) and value:
        for key, below in value.items():
            if not key.startswith("__"):
                yield from _keys(below, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix


def test_every_override_key_is_in_the_index(reference):
    page = reference.overrides_page()
    count = 0
    for file in (ROOT / "configs").rglob("*.yaml"):
        text, group = file.read_text(encoding="utf-8"), file.relative_to(ROOT / "configs").parent.as_posix().strip(".")
        package = re.search(r"^# @package (\S+)", text, re.MULTILINE)
        prefix = group.replace("/", ".") if package is None else "" if package[1] == "_global_" else package[1]
        content = {key: value for key, value in yaml.safe_load(text).items() if key not in ("defaults", "hydra")}
        for key in _keys(content, prefix) if content else ():
            assert f"`{key}`" in page or f"`{key}=" in page, f"{file}: {key}"
            count += 1
    assert count > 300


def test_a_row_has_value_choice_and_comment(reference):
    rows = reference.overrides_page().splitlines()
    assert "| `train.monitor` | `???` | set by the pipeline |" in rows
    assert any(row.startswith("| `model.tie_dropout` | `false` (base); `true` (s4) |") for row in rows)


def test_underscores_are_not_emphasis(reference):
    html = markdown.markdown("‖G‖_∞ ≤ ‖h‖_∞, `a_b`, *so* [x](c_d.md)", extensions=[reference.PlainUnderscores()])
    assert html == '<p>‖G‖_∞ ≤ ‖h‖_∞, <code>a_b</code>, <em>so</em> <a href="c_d.md">x</a></p>'
