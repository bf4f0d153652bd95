"""Options of what is built by name: their types are those in its signature."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from hope_ssm import registry
from hope_ssm.checks import check_choice
from hope_ssm.kernels.s4 import S4Kernel
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.s4block import S4Block
from hope_ssm.workbench.validation.kinds import Flag, Number, Whole, check_table, needed

_KINDS = {bool: Flag, int: Whole, float: Number}


def kind_of(hint: Any) -> Any:
    """Return the type of a configuration's value for a parameter with this annotation."""
    if get_origin(hint) in (Union, types.UnionType):
        parts = get_args(hint)
        mixed = int in parts and float in parts  # where 1 and 1.0 may mean different things
        return Union[tuple(part if mixed and part is int else kind_of(part) for part in parts)]
    return _KINDS.get(hint, hint)


def _hints(owner: Callable) -> dict[str, Any]:
    """Annotations of a function, or of the constructors of a class and of what it inherits from."""
    bases = reversed(owner.__mro__) if isinstance(owner, type) else ()
    functions = [base.__dict__.get("__init__") for base in bases] or [owner]
    found: dict[str, Any] = {}
    for function in functions:
        if inspect.isfunction(function):
            try:
                found |= get_type_hints(function, include_extras=True)
            except (NameError, TypeError):  # of another distribution, with names it has under TYPE_CHECKING alone
                continue
    return found


def signature_table(*owners: Callable, given: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return {option: type} of the owners' parameters; those without a default and not ``given`` are needed."""
    table: dict[str, Any] = {}
    for owner in owners:
        hints = _hints(owner)
        for name, parameter in inspect.signature(owner).parameters.items():
            if name == "self" or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                continue
            kind = kind_of(hints.get(name, Any))
            absent = parameter.default is parameter.empty and name not in given
            table[name] = needed(kind) if absent else kind
    return table


def check_named(
    where: str, registered: Mapping[str, Callable], config: Any, given: tuple[str, ...] = ()
) -> str | dict[str, Any] | None:
    """Return a configuration that is a name of ``registered``, or a mapping with ``_name_`` and options, checked.

    Args:
        where: the key.
        registered: what the names mean.
        config: the name or the mapping; None stays.
        given: parameters that the program knows.
    """
    if config is None:
        return None
    options = {"_name_": config} if isinstance(config, str) else config
    if not isinstance(options, Mapping):
        raise TypeError(f"{where} must be a name or a mapping with _name_; got {config!r}.")
    key = where if isinstance(config, str) else f"{where}._name_"
    table = signature_table(registered[check_choice(key, options.get("_name_"), registered)], given=given)
    hidden = {key: value for key, value in options.items() if key.startswith("_")}
    plain = {key: value for key, value in options.items() if key not in hidden}
    checked = check_table(where, table, plain, options["_name_"])
    return config if isinstance(config, str) else hidden | checked


def check_layer(where: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the layer, of its convolution and of its kernel, as far as their types are known."""
    owners: list[Callable] = [S4Block, FFTConvolution]
    for key in ("mode", "kernel"):
        if isinstance(options.get(key), str):
            try:
                owners.append(registry.get(options[key]))
            except ValueError as error:
                raise ValueError(f"{where}.{key}{str(error).removeprefix('kernel')}") from None
    given = ("d_model", "kernel")
    idle = {name: kind_of(hint) for name, hint in _hints(S4Kernel).items()}  # for kernels where they have no effect
    table = {**idle, **signature_table(*owners, given=given), "_name_": str, "d_model": Any}
    known = {key: value for key, value in options.items() if key in table}
    return {**options, **check_table(where, table, known)}  # the block itself refuses the unknown
