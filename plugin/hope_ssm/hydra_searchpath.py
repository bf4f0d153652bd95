"""Hydra plug-in: makes our kernels, data sets, decoder and configuration groups visible in an unmodified host.

It makes the kernels of other distributions choices of ``kernel=`` too, there and in the workbench.

Importing this module is enough: it places a finder on ``sys.meta_path`` that waits for five modules of the host, and
hands each, once it has run, to its registration function in ``hope_ssm.hosts.state_spaces``. For every other module
the finder does nothing. It works at import, not in a method, because workers of a multirun only unpickle the plug-in.

Hydra loads plug-ins in every application of the environment, so nothing heavy is imported here (no torch), and no
exception leaves: what fails becomes one warning.
"""

from __future__ import annotations

import importlib
import logging
import sys
from importlib import metadata, resources
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.plugins.search_path_plugin import SearchPathPlugin

_logger = logging.getLogger("hope_ssm")

# Module of the host: what it must have, lest another project's module of that name is meant, and the function of
# hope_ssm.hosts.state_spaces that is called with it once it has run.
AWAITED = {
    "models.s4.s4": ("kernel_registry", "register_kernels"),
    "src.dataloaders": ("SequenceDataset", "register_datasets"),
    "src.models.sequence.kernels": ("registry", "register_kernels"),
    "src.tasks.decoders": ("registry", "register_decoders"),
    "src.utils.registry": ("callbacks", "register_layers"),
}


def _register(module: ModuleType) -> None:
    """Hand ``module`` to its registration function; a failure is logged and goes no further."""
    try:
        table, function = AWAITED[module.__name__]
        if hasattr(module, table):
            getattr(importlib.import_module("hope_ssm.hosts.state_spaces"), function)(module)
    except Exception as error:
        _logger.warning(
            "hope-ssm could not register itself in %s: %s: %s", module.__name__, type(error).__name__, error
        )


class _ThenRegister(Loader):
    """The module's own loader, and registration after it."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module looks as if nothing had ever stood between it and its loader.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _register(module)


class HostFinder(MetaPathFinder):
    """Finds the awaited modules through the finders after it, with registration added; knows no other module."""

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec of an awaited module, None for any other."""
        if fullname not in AWAITED:
            return None
        for finder in sys.meta_path:
            if isinstance(finder, HostFinder) or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _ThenRegister(spec.loader)
                return spec
        return None


def install() -> None:
    """Place the finder first on ``sys.meta_path``, once, and register in what is already imported."""
    if not any(isinstance(finder, HostFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, HostFinder())
    for name in AWAITED:
        module = sys.modules.get(name)
        if module is not None:
            _register(module)


def offer_kernels() -> None:
    """Make every kernel that is declared in this environment a choice of ``kernel=``, where no file makes it one.

    Such a choice is the kernel with its own defaults, every feature with parameters of its own.
    """
    files = resources.files("hope_ssm.configs").joinpath("kernel")
    for point in metadata.entry_points(group="state_spaces.kernels"):
        if not files.joinpath(f"{point.name}.yaml").is_file():
            node = {"mode": point.name, "n_ssm": None}
            ConfigStore.instance().store(point.name, node, group="kernel", package="model.layer", provider="hope-ssm")


class HopeSearchPath(SearchPathPlugin):
    """Appends ``pkg://hope_ssm.configs`` to Hydra's search path, in the host only; the host's own files come first."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Append our configuration groups if this process is the host."""
        try:
            layers = getattr(sys.modules.get("src.utils.registry"), "layer", None)
            if isinstance(layers, dict) and "fftconv" in layers:
                search_path.append(provider="hope-ssm", path="pkg://hope_ssm.configs")
        except Exception as error:
            _logger.warning("hope-ssm could not add its configurations: %s: %s", type(error).__name__, error)


try:
    install()
    offer_kernels()
except Exception as error:
    _logger.warning("hope-ssm could not watch for the host: %s: %s", type(error).__name__, error)
