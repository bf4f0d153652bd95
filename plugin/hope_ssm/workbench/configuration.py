"""Configurations of the workbench: what the host's command lines and files need beyond plain Hydra."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from omegaconf import OmegaConf

from hope_ssm.checks import nearest

CONFIG_MODULE = "hope_ssm.configs"

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.USub: operator.neg,
}  # fmt: skip


def arithmetic(text: str) -> int | float:
    """Return the value of numbers joined by + - * / // % and parentheses: the host's ``${eval:…}`` as far as that."""
    refusal = ValueError(f"${{eval:…}} must be arithmetic of numbers (+ - * / // %) here; got {text!r}.")

    def value(node: ast.AST) -> Any:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return node.value
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.operand))
        raise refusal

    try:
        return value(ast.parse(str(text), mode="eval").body)
    except SyntaxError:
        raise refusal from None


OmegaConf.register_new_resolver("eval", arithmetic, replace=True)


def as_here(overrides: Iterable[str]) -> list[str]:
    """Return the overrides with ``+kernel=`` as ``kernel=``: the host has no such group until one is added."""
    there = ("+kernel=", "+variant=")  # in the defaults of our experiments
    return [override.removeprefix("+") if override.startswith(there) else override for override in overrides]


def compose(overrides: list[str]) -> dict[str, Any]:
    """Return the plain, resolved configuration that ``hope train OVERRIDES`` would train."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module

    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        config = hydra_compose(config_name="config", overrides=as_here(overrides))
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def changed(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a resolved configuration with the values of ``key=value`` (or ``+key=value`` for a new key) replaced.

    Raises:
        ValueError: no such key; the nearest one is named.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    tree = OmegaConf.create(config)
    try:
        parsed = OverridesParser.create().parse_overrides(overrides=list(overrides))
    except HydraException:
        raise ValueError(f"overrides must be of the form key=value; got {' '.join(overrides)}.") from None
    for override in parsed:
        key = override.key_or_group
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(tree, parent) if parent else tree
        if not override.is_add() and (node is None or name not in node):
            valid = [str(k) for k in node or []]
            raise ValueError(
                f"the run's configuration has no key {key!r}; {parent or 'it'} has {', '.join(valid)}."
                f"{nearest(name, valid)} To add a new key write +{key}=…"
            )
        OmegaConf.update(tree, key, override.value(), force_add=True)
    return OmegaConf.to_container(tree, resolve=True)  # type: ignore[return-value]
