"""Learning rates and weight decays by the names of parameters: the options ``lr`` and ``wd`` of a kernel."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from hope_ssm.checks import nearest


@dataclass(frozen=True)
class OptimizerOption:
    """Which keys of ``lr`` and ``wd`` rule a parameter, and whether a bare number does.

    keys: names in a mapping; 0 under one of them as ``lr`` freezes the parameter.
    bare: ``"always"``; ``"nonzero"``: a bare 0 leaves the parameter at the global setting; ``"never"``.
    """

    keys: tuple[str, ...]
    bare: str = "always"

    def of(self, setting: float | Mapping[str, float] | None) -> float | None:
        """Return what ``setting`` says of this parameter; None inherits the optimizer's global value."""
        if isinstance(setting, Mapping):
            said = [setting[key] for key in self.keys if setting.get(key) is not None]
            if len(set(said)) > 1:
                raise ValueError(f"the keys {', '.join(self.keys)} name one parameter; got different values {said}.")
            return said[0] if said else None
        if setting is None or self.bare == "never" or (self.bare == "nonzero" and setting == 0):
            return None
        return float(setting)


def check_rate(option: str, value: Any) -> float:
    """Return ``value`` as a float if it is a finite number of at least 0; otherwise raise."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{option} must be a number of at least 0 or a mapping of such; got {value!r}.")
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{option} must be finite and at least 0; got {value}.")
    return float(value)


def check_setting(
    option: str, setting: Any, optimizer_options: Iterable[OptimizerOption], idle: Iterable[str]
) -> tuple[float | Mapping[str, float] | None, list[str]]:
    """Return ``lr`` or ``wd`` as numbers, and those of its keys that are set to no effect.

    Args:
        option: ``"lr"`` or ``"wd"``.
        setting: what the configuration gives: a number, a mapping by name, or None.
        optimizer_options: of all parameters.
        idle: keys of parameters that other kernels have.

    Raises:
        TypeError, ValueError: no numbers of at least 0; an unknown key, the nearest valid one is named.
    """
    if setting is None:
        return None, []
    if not isinstance(setting, Mapping):
        return check_rate(option, setting), []
    known = [key for option in optimizer_options for key in option.keys]
    valid = [*known, *idle]
    for key in setting:
        if key not in valid:
            raise ValueError(f"{option} has no key {key!r}; valid are {', '.join(valid)}.{nearest(key, valid)}")
    checked = {key: check_rate(f"{option}.{key}", value) for key, value in setting.items() if value is not None}
    ruled = {key: value for key, value in checked.items() if key in known}
    return ruled, [key for key in checked if key not in known]
