"""A hook of mkdocs: the pages made from the code and from the configurations, and their places in the navigation.

``reference/*.md`` have every public module by its docstrings, ``reference/overrides.md`` every key of ``configs/``.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import InlineProcessor
from markdown.util import ETX, STX
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "plugin" / "hope_ssm"
CONFIGS = ROOT / "configs"
WHOLE = ("experiment", "pipeline", "ablation", "variant")  # groups that set keys of other groups
MANY = 6  # values that are listed one by one
FIRST = ["ops", "hankel", "kernels", "layers", "analysis", "datasets", "hosts", "workbench"]


def packages() -> list[str]:
    """Return the packages below ``hope_ssm`` by their dotted names, those of ``FIRST`` first."""
    folders = [path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    names = [".".join(folder.relative_to(PACKAGE).parts) for folder in folders]
    place = {name: rank for rank, name in enumerate(FIRST)}
    return sorted(
        (name for name in names if not name.startswith("configs")),
        key=lambda name: (place.get(name.split(".")[0], len(FIRST)), name),
    )


def modules() -> dict[str, list[str]]:
    """Return {page: names of its modules}, one page per package."""
    found = {"hope_ssm": [f"hope_ssm.{path.stem}" for path in sorted(PACKAGE.glob("[!_]*.py"))]}
    for package in packages():
        folder = PACKAGE.joinpath(*package.split("."))
        names = [path.stem for path in sorted(folder.glob("[!_]*.py"))]
        own = [""] if len((folder / "__init__.py").read_text(encoding="utf-8").splitlines()) > 6 else []
        found[f"hope_ssm.{package}"] = [f"hope_ssm.{package}" + f".{name}" * bool(name) for name in [*own, *names]]
    return found


def docstring(module: str) -> str:
    """Return the docstring of a module, without importing it."""
    path = ROOT / "plugin" / Path(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def module_page(page: str, names: list[str]) -> str:
    """Return the Markdown of one package: its docstring, and each module by mkdocstrings."""
    parts = [f"# {page}", docstring(page)]
    for name in names:
        own = "\n    options:\n      show_root_heading: false\n      show_root_toc_entry: false" * (name == page)
        parts.append(f"::: {name}{own}")
    return "\n\n".join(parts) + "\n"


def public_page() -> str:
    """Return the table of the names of ``hope_ssm`` itself."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    values = {node.targets[0].id: node.value for node in tree.body if isinstance(node, ast.Assign)}  # type: ignore[attr-defined]
    homes: dict[str, str] = ast.literal_eval(values["_HOME"])
    rows = []
    for name in ast.literal_eval(values["__all__"]):
        home = defining_module(homes[name], name) if name in homes else ""
        target = f"{home}.{name}" if home else "hope_ssm.registry" if name == "registry" else ""
        rows.append(f"| [`{name}`][{target}] | `{target}` |" if target else f"| `{name}` | the version, as text |")
    text = docstring("hope_ssm")
    return "\n".join(["# Public names", "", text, "", "| name | where it is documented |", "| --- | --- |", *rows, ""])


def defining_module(module: str, name: str) -> str:
    """Return the module that defines a name which a package may only pass on."""
    path = ROOT / "plugin" / Path(*module.split("."))
    if not path.is_dir():
        return module
    for node in ast.walk(ast.parse((path / "__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            return str(node.module)
    return module


@dataclass
class Choice:
    """One file of a group: what its first comment says, and {key: (value as text, comment)}."""

    about: str = ""
    keys: dict[str, tuple[str, str]] = field(default_factory=dict)
    takes: list[str] = field(default_factory=list)


def _flat(node: yaml.Node, prefix: str, lines: list[str]) -> Iterator[tuple[str, str, str]]:
    if isinstance(node, yaml.MappingNode) and node.value:
        for key, value in node.value:
            if not key.value.startswith("__"):  # those serve the configuration itself
                yield from _flat(value, f"{prefix}.{key.value}" if prefix else key.value, lines)
        return
    text = "".join(lines[node.start_mark.line : node.end_mark.line + 1])
    value = text[node.start_mark.column :] if node.start_mark.line == node.end_mark.line else text
    value = (
        value[: node.end_mark.column - node.start_mark.column] if node.start_mark.line == node.end_mark.line else value
    )
    comment = re.search(r"(?:^|\s)# (.*)", lines[node.start_mark.line][node.end_mark.column :])
    yield prefix, value.strip() or "null", comment[1].strip() if comment else ""


def choices() -> dict[str, dict[str, Choice]]:
    """Return {group: {choice: its keys}} of all configurations; the root is the group ``""``."""
    found: dict[str, dict[str, Choice]] = defaultdict(dict)
    for file in sorted(CONFIGS.rglob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        lines, group = text.splitlines(keepends=True), file.relative_to(CONFIGS).parent.as_posix().strip(".")
        package = re.search(r"^# @package (\S+)", text, re.MULTILINE)
        prefix = group.replace("/", ".") if package is None else "" if package[1] == "_global_" else package[1]
        about = [line[2:].strip() for line in lines if line.startswith("# ") and "@package" not in line]
        choice = Choice(" ".join(about))
        root = yaml.compose(text)
        for key, value in root.value if root is not None else ():
            if key.value == "defaults":
                choice.takes = [str(entry) for entry in yaml.safe_load(text)["defaults"]]
            elif key.value != "hydra" and not key.value.startswith("__"):
                name = f"{prefix}.{key.value}" if prefix else key.value
                for at, default, comment in _flat(value, name, lines):
                    choice.keys[at] = (default, comment)
        name = (
            file.stem if group in ("", "model/layer") or "/" not in group else f"{group.split('/', 1)[1]}/{file.stem}"
        )
        found[group if group == "model/layer" else group.split("/")[0]][name] = choice
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def overrides_page() -> str:
    """Return the index of all override keys: per group its choices, then its keys with their values by choice."""
    out = [
        "# Override keys", "",
        "Every key that the configurations set, made from the files in `configs/`. On the command line: `group=choice` "
        "takes a file, `key=value` sets a key, `+key=value` adds one that no file sets. The options of a kernel or a "
        "layer that no file sets are those of its class: [kernels](hope_ssm.kernels.md), [layers](hope_ssm.layers.md).",
        "",
    ]  # fmt: skip
    every = choices()
    for group in sorted(every, key=lambda name: (name != "", name in WHOLE, name)):
        files = every[group]
        out += [f"## {group or 'The root'}", ""]
        if group in WHOLE:
            out += ["| choice | what it is | keys that it sets |", "| --- | --- | --- |"]
            for name, choice in files.items():
                set_here = ", ".join(f"`{key}={value}`" for key, (value, _) in choice.keys.items())
                taken = ", ".join(f"`{entry}`" for entry in _taken(choice))
                cells = (f"`{group}={name}`", choice.about, ", ".join(filter(None, (taken, set_here))))
                out.append("| " + " | ".join(map(_cell, cells)) + " |")
            out.append("")
            continue
        if group:
            out += [", ".join(f"`{group}={name}`" for name in files) + ".", ""]
        out += ["| key | default | what it is |", "| --- | --- | --- |"]
        rows: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        comments: dict[str, str] = {}
        for name, choice in files.items():
            for key, (value, comment) in choice.keys.items():
                rows[key][value].append(name)
                comments[key] = comments.get(key) or comment
        for key, values in rows.items():
            one = len(values) == 1 and len(next(iter(values.values()))) == len(files)
            where = {value: "" if one or not group else f" ({', '.join(names)})" for value, names in values.items()}
            shown = [f"`{value}`{names}" for value, names in where.items()]
            default = "; ".join(shown) if len(shown) <= MANY else f"{len(shown)} values, by choice"
            out.append("| " + " | ".join(map(_cell, (f"`{key}`", default, comments[key]))) + " |")
        out.append("")
    return "\n".join(out)


def _taken(choice: Choice) -> list[str]:
    """The entries of a defaults list as overrides."""
    found = []
    for entry in choice.takes:
        taken = re.fullmatch(r"\{'(?:override )?/?(.*?)': (?:'(.*)'|None)\}", entry)
        if taken:
            found.append(f"{taken[1]}={taken[2] or 'null'}")
    return found


def pages() -> dict[str, str]:
    """Return {path below docs/: Markdown} of all generated pages."""
    made = {"reference/index.md": public_page(), "reference/overrides.md": overrides_page()}
    return made | {f"reference/{page}.md": module_page(page, names) for page, names in modules().items()}


class Underscore(InlineProcessor):
    """``_`` as if it were written ``\\_``."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[str, int, int]:  # type: ignore[override]  # noqa: N802
        """Return what Markdown takes for an escaped underscore."""
        return f"{STX}{ord('_')}{ETX}", m.start(), m.end()


class PlainUnderscores(Extension):
    """Leave ``h_k`` and ``‖G‖_∞`` as they are: emphasis is written with asterisks."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802, as the class it extends has it
        """Come before emphasis, and after code and links."""
        md.inlinePatterns.register(Underscore("_", md), "underscore", 61)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the reference to the navigation, and the pages of ``docs/`` that it does not name."""
    assert config.nav is not None
    named = str(config.nav)
    unnamed = [path.name for path in sorted(Path(config.docs_dir).glob("*.md")) if path.name not in named]
    parts: list[Any] = [{page: f"reference/{page}.md"} for page in modules()]
    config.nav += [{"More": unnamed}] if unnamed else []
    config.nav += [{"Override keys": "reference/overrides.md"}, {"Reference": ["reference/index.md", *parts]}]
    config.markdown_extensions.append(PlainUnderscores())  # type: ignore[arg-type]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files
