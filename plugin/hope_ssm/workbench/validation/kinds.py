"""Kinds of values, as types that pydantic checks, and the sentence that refuses a value."""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from hope_ssm.checks import check_known, nearest

LARGEST = 2**31 - 1
_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_STRICT = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)


def _as_flag(value: Any) -> Any:
    """Hydra leaves YAML's yes, no, on and off as text."""
    return _WORDS.get(value.lower(), value) if isinstance(value, str) else value


def _as_whole(value: Any) -> Any:
    """1e3 is a float to Hydra."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Flag = Annotated[bool, BeforeValidator(_as_flag)]
Whole = Annotated[int, BeforeValidator(_as_whole), Field(ge=-LARGEST, le=LARGEST)]
Natural = Annotated[int, BeforeValidator(_as_whole), Field(ge=0, le=LARGEST)]
Count = Annotated[int, BeforeValidator(_as_whole), Field(ge=1, le=LARGEST)]
Width = Annotated[int, BeforeValidator(_as_whole), Field(ge=1, le=2**20)]
Few = Annotated[int, BeforeValidator(_as_whole), Field(ge=1, le=4096)]
Seed = Annotated[int, BeforeValidator(_as_whole), Field(ge=0, le=2**32 - 1)]
Limit = Literal[-1] | Count
Number = Annotated[float, Field(ge=-1e30, le=1e30)]
Positive = Annotated[float, Field(gt=0, le=1e30)]
NonNegative = Annotated[float, Field(ge=0, le=1e30)]
Proportion = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Text = Annotated[str, Field(min_length=1)]
# Of a split: so many batches, or such a share of them.
SomeBatches = Annotated[int, Field(ge=1, le=LARGEST)] | Proportion
Batches = Annotated[int, Field(ge=0, le=LARGEST)] | Annotated[float, Field(ge=0, le=1)]
_HIDDEN = (LARGEST, -LARGEST, 2**32 - 1, 1e30, -1e30)  # bounds worth saying only to somebody beyond them
_BOUNDS = {"gt": "above", "ge": "of at least", "lt": "below", "le": "of at most"}


class Needed:
    """Marks the type of a key that must be there."""


def needed(kind: Any) -> Any:
    """Return the type of a key that must be there."""
    return Annotated[kind, Needed()]


def choice(names: Iterable[Any]) -> Any:
    """Return the type of one of ``names``."""
    return Literal[tuple(names)]


def list_of(kind: Any) -> Any:
    """Return the type of a list."""
    return list[kind]


class Refused:
    """In place of a type: a key that is not the user's to set, and why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def is_needed(kind: Any) -> bool:
    """Whether a key of this type must be there."""
    return get_origin(kind) is Annotated and any(isinstance(mark, Needed) for mark in kind.__metadata__)


def describe(kind: Any, every_bound: bool = False) -> str:
    """Return in words what a type takes: ``a whole number of at least 1, or null``.

    Args:
        kind: a type as in the tables.
        every_bound: also those that only overflow makes.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        fields = [mark for mark in kind.__metadata__ if hasattr(mark, "metadata")]
        bounds = {name: getattr(bound, name) for field in fields for bound in field.metadata
                  for name in _BOUNDS if hasattr(bound, name)}  # fmt: skip
        said = [f"{_BOUNDS[name]} {bounds[name]}" for name in _BOUNDS
                if name in bounds and (every_bound or bounds[name] not in _HIDDEN)]  # fmt: skip
        return " ".join([describe(arguments[0], every_bound), " and ".join(said)]).strip()
    if origin in (Union, types.UnionType):
        parts = [describe(part, every_bound) for part in arguments]
        others = list(dict.fromkeys(part for part in parts if part != "null"))
        return " or ".join(others) + (", or null" if len(others) < len(set(parts)) else "")
    if origin is Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(repr, arguments))
    if origin in (list, tuple):
        return "a list" + (f", each {describe(arguments[0], every_bound)}" if arguments else "")
    names = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text",
             type(None): "null", None: "null", list: "a list"}  # fmt: skip
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    return names.get(kind, "a mapping" if kind in (dict, Mapping) else getattr(kind, "__name__", str(kind)))


def check_value(key: str, kind: Any, value: Any) -> Any:
    """Return ``value`` as the type ``kind`` has it.

    Raises:
        TypeError: it has another type. The sentence has the key, what it takes, and the value.
        ValueError: it is out of range.
    """
    try:
        return TypeAdapter(kind, config=_STRICT).validate_python(value)
    except ValidationError as error:
        found = [one["type"] for one in error.errors()]
    beyond = any(one.startswith(("less_than", "greater_than", "int_parsing")) for one in found)
    wanted = describe(kind, every_bound=beyond and isinstance(value, (int, float)) and abs(value) >= LARGEST)
    names = [name for part in (kind, *get_args(kind)) if get_origin(part) is Literal for name in get_args(part)]
    refusal = TypeError if all(one.endswith("_type") for one in found) else ValueError
    hint = nearest(value, names) if isinstance(value, str) else ""
    raise refusal(f"{key} must be {wanted}; got {value!r}.{hint}")


def check_table(where: str, table: Mapping[str, Any], values: Any, name: Any = None) -> dict[str, Any]:
    """Return the mapping ``values`` with every value as the table {key: type or ``Refused``} has it.

    Args:
        where: the key of the mapping.
        table: what its keys take.
        values: the mapping.
        name: what ``where`` is set to, for messages.

    Raises:
        TypeError: no mapping; an unknown key; a value of another type.
        ValueError: an absent or refused key; a value out of range.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{where} must be a mapping; got {values!r}.")
    valid = [key for key, kind in table.items() if not isinstance(kind, Refused)]
    check_known(f"{where} {name!r}" if name else where, [key for key in values if key not in table], valid)
    for key in valid:
        if is_needed(table[key]) and key not in values:
            raise ValueError(f"{where}.{key} must be {describe(table[key])}; got nothing. Set {where}.{key}.")
    checked = {}
    for key, value in values.items():
        kind = table[key]
        if isinstance(kind, Refused):
            raise ValueError(f"{where}.{key} must be left out; got {value!r}. {kind.reason}")
        checked[key] = check_value(f"{where}.{key}", kind, value)
    return checked
