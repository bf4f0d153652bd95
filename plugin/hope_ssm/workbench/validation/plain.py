"""A configuration as plain values: what YAML can write and every part of the workbench understands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor

from hope_ssm.arithmetic import arithmetic_resolver
from hope_ssm.workbench.configuration import in_a_sentence


def plain(value: Any, where: str = "the configuration") -> Any:
    """Return ``value`` with mappings as dict, sequences as list, NumPy and torch numbers as Python's, paths as text.

    OmegaConf's containers are resolved first.

    Raises:
        TypeError: something else; its key is named.
        ValueError: an interpolation that leads nowhere.
    """
    if isinstance(value, (DictConfig, ListConfig)):
        try:
            with arithmetic_resolver():
                value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise in_a_sentence(error) from None
    if isinstance(value, Mapping):
        prefix = "" if where == "the configuration" else f"{where}."
        return {_key(key, where): plain(item, f"{prefix}{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        return plain(value.tolist(), where)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{where} must be a number, text, true, false, null, a list or a mapping; got {value!r}.")


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the keys of {where} must be text; got {key!r}.")
    return str(key)
