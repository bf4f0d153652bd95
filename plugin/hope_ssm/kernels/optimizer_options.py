"""Learning rates and weight decays by the names of parameters: the options ``lr`` and ``wd`` of a kernel."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from torch import nn

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


class ModuleWithOptions(nn.Module):
    """A module that knows its parameters' optimizer options by name, whatever tensors take their place.

    ``parameter_options[name]`` is a dictionary of the options that differ from the global ones. Each parameter carries
    it as ``_optim`` too, which is where the host looks: also a parameter that came by ``load_state_dict(assign=True)``,
    assignment, ``to_empty`` or a copy.
    """

    def __init__(self) -> None:
        super().__init__()
        self.parameter_options: dict[str, dict[str, float]] = {}

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Register a parameter, with the options of its name."""
        super().register_parameter(name, param)
        self._mark()

    def _mark(self) -> None:
        for name, options in self.parameter_options.items():
            parameter = self._parameters.get(name)
            if parameter is not None and options and not hasattr(parameter, "_optim"):
                parameter._optim = dict(options)  # type: ignore[attr-defined]

    def _apply(self, fn: Callable, recurse: bool = True) -> ModuleWithOptions:
        super()._apply(fn, recurse)
        self._mark()
        return self

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._mark()

    def __deepcopy__(self, memo: dict[int, Any]) -> ModuleWithOptions:
        """Copy the optimizer options of the parameters too, which torch drops when it copies a parameter."""
        duplicate = type(self).__new__(type(self))
        memo[id(self)] = duplicate
        duplicate.__dict__.update(copy.deepcopy(self.__dict__, memo))
        for name, parameter in self._parameters.items():
            if hasattr(parameter, "_optim"):
                duplicate._parameters[name]._optim = dict(parameter._optim)  # type: ignore[union-attr]
        return duplicate


def options_of_parameters(module: nn.Module) -> dict[int, dict[str, Any]]:
    """Return the optimizer options of all parameters that have some, by identity.

    A parameter's own ``_optim`` comes first (kernels of other distributions have no more), then what its module says of
    its name, also where ``torch.nn.utils.parametrize`` has put other tensors in its place.
    """
    found = {id(parameter): parameter._optim for parameter in module.parameters() if hasattr(parameter, "_optim")}
    for owner in module.modules():
        for name, options in getattr(owner, "parameter_options", {}).items():
            parametrizations = getattr(owner, "parametrizations", {})
            there = [owner._parameters.get(name)]
            if name in parametrizations:
                there = [*parametrizations[name]._parameters.values()]
            for parameter in there:
                if parameter is not None and options:
                    found.setdefault(id(parameter), options)
    return found
