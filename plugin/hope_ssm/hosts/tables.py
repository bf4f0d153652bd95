"""The host's tables of kernels and models, with a sentence where the host would say nothing or too little."""

from __future__ import annotations

import functools
import importlib
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from omegaconf import OmegaConf

from hope_ssm.checks import log_once, nearest
from hope_ssm.layers.settings_of_s4 import say_what_is_of_s4

_logger = logging.getLogger("hope_ssm")

KERNELS = {"src.models.sequence.kernels": "registry", "models.s4.s4": "kernel_registry"}
# Modules that may have taken the first of these tables before it was replaced, and its name there.
_USERS = ("src.models.sequence.kernels.fftconv", "src.models.sequence.modules.s4nd")


class Kernels(dict):
    """The host's table of kernels; a name that is not in it is answered with the nearest one."""

    option = "mode"

    def __missing__(self, name: Any) -> Any:
        raise ValueError(f"{self.option} must be one of {', '.join(self)}; got {name!r}.{nearest(str(name), self)}")


class Layers(Kernels):
    """The host's table of layers, which answers in the same way."""

    option = "layer"


class Models(dict):
    """The host's table of models; what it gives builds the model and looks whether it has the kernel asked for."""

    def __getitem__(self, name: str) -> Callable[..., Any]:
        return functools.partial(build, name, super().__getitem__(name))


def replace(module: ModuleType, name: str, kind: type[dict]) -> dict[str, Any]:
    """Make the table ``module.name`` a ``kind``, also where the host's modules have taken it; return it."""
    old = getattr(module, name)
    if isinstance(old, kind):
        return old
    table = kind(old)
    setattr(module, name, table)
    for user in map(sys.modules.get, _USERS):
        if getattr(user, "kernel_registry", None) is old:
            setattr(user, "kernel_registry", table)  # noqa: B010  mypy knows no such attribute
    return table


def add(table: dict[str, Any], entries: Mapping[str, Any]) -> None:
    """Add entries to a table of the host, whose own names win; say so where another distribution's kernel loses."""
    from hope_ssm.registry import DISTRIBUTION

    for name, entry in entries.items():
        kept = table.setdefault(name, entry)
        owner = getattr(entry, "distribution", DISTRIBUTION)
        if owner != DISTRIBUTION and getattr(kept, "distribution", None) != owner:
            message = f"the kernel {name!r} of {owner} is not used here: state-spaces/s4 has its own of this name."
            log_once(_logger, logging.WARNING, message)


def asked(options: Any, tables: list[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (name, layer) of every mapping below ``options`` that asks for a kernel of the tables."""
    if isinstance(options, Mapping):
        names = [options.get(key) for key in ("mode", "kernel")]
        yield from ((name, options) for name in names if isinstance(name, str) and any(name in t for t in tables))
        options = list(options.values())
    if isinstance(options, list):
        for child in options:
            yield from asked(child, tables)


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with mappings and lists in the place of OmegaConf's."""
    is_config, to_container = OmegaConf.is_config, OmegaConf.to_container
    return {key: to_container(value, resolve=True) if is_config(value) else value for key, value in options.items()}


def build(name: str, target: Any, *args: Any, **options: Any) -> Any:
    """Build a model of the host.

    Raises:
        ValueError: the configuration asks for a kernel by ``mode`` or ``kernel``, and the model has no place for it,
            or the kernel is the host's and lacks what it needs.
    """
    tables = kernel_tables()
    wanted = list(asked(plain(options), tables))
    for kernel, layer in wanted:
        _check_range(kernel, layer, tables)
        say_what_is_of_s4(kernel, layer, plus="+")
    if isinstance(target, str):
        module, _, attribute = target.rpartition(".")
        target = getattr(importlib.import_module(module), attribute)
    try:
        model = target(*args, **options)
    except TypeError as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if wanted and refused and refused[1] in ("layer", "mode", "kernel"):
            raise ValueError(_homeless(name, wanted[0][0], options)) from error
        raise
    for kernel, _ in wanted:
        if not _holds(model, kernel):
            raise ValueError(_homeless(name, kernel, options))
    return model


def kernel_tables() -> list[Mapping[str, Any]]:
    """Return the host's tables of kernels that are loaded, the main one in any case."""
    importlib.import_module(next(iter(KERNELS)))
    return [getattr(sys.modules[module], name) for module, name in KERNELS.items() if module in sys.modules]


def _holds(model: Any, kernel: str) -> bool:
    entries = [table[kernel] for table in kernel_tables() if kernel in table]
    classes = tuple(entry.load() if hasattr(entry, "load") else entry for entry in entries)
    return any(isinstance(module, classes) for module in model.modules())


def _homeless(name: str, kernel: str, options: Mapping[str, Any]) -> str:
    layer = options.get("layer")
    of = f" with layer {layer['_name_']!r}" if isinstance(layer, Mapping) and "_name_" in layer else ""
    return (
        f"the model must hold the kernel {kernel!r} that the configuration asks for; model {name!r}{of} has no place "
        "for one. Take model/layer=s4 (or standalone, s4nd), or leave out the kernel."
    )


def _check_range(kernel: str, layer: Mapping[str, Any], tables: list[Mapping[str, Any]]) -> None:
    """Raise if a kernel of the host would get the null that only ours can read a range of Δt from."""
    own = next(table[kernel] for table in tables if kernel in table)
    missing = [key for key in ("dt_min", "dt_max") if key in layer and layer[key] is None]
    if missing and str(getattr(own, "__module__", "")).endswith((".ssm", "models.s4.s4")) and "HOPE" not in str(own):
        raise ValueError(
            f"{' and '.join(missing)} of the host's kernel {kernel!r} must be numbers above 0; got null, which is "
            f"HOPE's. kernel={kernel} swaps the kernel with its own range and initialization."
        )
