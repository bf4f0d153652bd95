"""The host's ``${eval:…}`` as far as arithmetic, without taking OmegaConf's one name ``eval`` from anybody."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import OmegaConf
from omegaconf.basecontainer import BaseContainer

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.USub: operator.neg,
}  # fmt: skip


def arithmetic(text: str) -> int | float:
    """Return the value of numbers joined by + - * / // % and parentheses: the host's ``${eval:…}`` as far as that."""
    wanted = "${eval:…} must be arithmetic of numbers (+ - * / // %) here"

    def value(node: ast.AST) -> Any:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return node.value
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
            return _OPERATORS[type(node.op)](value(node.operand))
        raise ValueError(f"{wanted}; got {text!r}.")

    try:
        return value(ast.parse(str(text), mode="eval").body)
    except SyntaxError:
        raise ValueError(f"{wanted}; got {text!r}.") from None
    except ArithmeticError as error:
        raise ValueError(f"{wanted}; got {text!r}, where there is a {error}.") from None


@contextmanager
def arithmetic_resolver(beyond: Callable[[str], Any] | None = None) -> Iterator[None]:
    """Let OmegaConf resolve ``${eval:…}`` for the time being.

    Args:
        beyond: what is called for a text that is no arithmetic; None: the user's own resolver, if there is one.
    """
    users = BaseContainer._resolvers.get("eval")

    def resolve(config: Any, parent: Any, node: Any, arguments: tuple, texts: tuple) -> Any:
        try:
            return arithmetic(*arguments)
        except (TypeError, ValueError):
            if beyond is not None:
                return beyond(*arguments)
            if users is None:
                raise
            return users(config, parent, node, arguments, texts)

    OmegaConf.clear_resolver("eval")
    BaseContainer._resolvers["eval"] = resolve
    try:
        yield
    finally:
        OmegaConf.clear_resolver("eval")
        if users is not None:
            BaseContainer._resolvers["eval"] = users
