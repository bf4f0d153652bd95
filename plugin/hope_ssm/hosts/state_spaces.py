"""state-spaces/s4 as a host: where it is, and how our kernels, data sets and decoder join its tables.

With Hydra nothing needs to be called, see ``hope_ssm.hydra_searchpath``. A script without Hydra calls ``register()``
once before it builds a model. The host's own entries always win over ours.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from hope_ssm.checks import check_choice

_logger = logging.getLogger("hope_ssm")

STANDALONE = "models.s4.s4"  # the host's layer in one file, with a table of kernels of its own
HOME = "STATE_SPACES_HOME"
LANDMARKS = ("train.py", "src/models/sequence/kernels/fftconv.py", "src/dataloaders/base.py")


def find_host() -> Path | None:
    """Return the host's checkout: the directory STATE_SPACES_HOME names, else the working directory; None if neither.

    A set STATE_SPACES_HOME that holds no host is not replaced by the working directory.
    """
    named = os.environ.get(HOME)
    directory = Path(named).expanduser() if named else Path.cwd()
    return directory.resolve() if all((directory / mark).is_file() for mark in LANDMARKS) else None


def register() -> None:
    """Add our kernels, data sets and decoder to the host's tables; calling it again changes nothing.

    Returns None, so the host can call it through its own configuration where the Hydra plug-in is not loaded:
    ``+trainer.profiler._target_=hope_ssm.hosts.state_spaces.register``.

    Raises:
        ImportError: the host's ``src`` can be imported neither from ``sys.path`` nor from ``find_host()``.
    """
    make_importable()
    for name, add_to in REGISTRATIONS.items():
        add_to(importlib.import_module(name))
    with contextlib.suppress(ImportError):  # a host without its layer in one file is a host
        register_kernels(importlib.import_module(STANDALONE))


def make_importable() -> None:
    """Put the host's checkout on the path unless its package can be imported already; ImportError without one."""
    if "src.models.sequence.kernels" in sys.modules:
        return
    host = find_host()
    if host is not None and str(host) not in sys.path and not _on_path():
        sys.path.insert(0, str(host))
        importlib.invalidate_caches()
    if not _on_path():
        src = sys.modules.get("src")
        where = getattr(src, "__file__", None)
        other = f" ({where} is another package called src)" if where else ""
        raise ImportError(
            "the host's package src must be importable; no checkout of state-spaces/s4 was found on sys.path"
            f"{other}. Start in the checkout or set {HOME} to it."
        )


def _on_path() -> bool:
    """Whether some directory of ``sys.path`` is a checkout of the host."""
    return any((Path(entry or ".") / LANDMARKS[1]).is_file() for entry in sys.path)


def register_kernels(module: ModuleType) -> None:
    """Add every kernel of our registry, unloaded, to the host's table of kernels in ``module``."""
    from hope_ssm import registry
    from hope_ssm.hosts import tables

    table = tables.replace(module, tables.KERNELS[module.__name__], tables.Kernels)
    tables.add(table, registry.names())


def host_registry(name: str) -> type:
    """Return the class of the host's kernel called ``name``, with ours among them.

    Raises:
        ImportError: no host.
        ValueError: no such kernel.
    """
    try:
        register()
    except ImportError:
        raise ImportError(
            f"the kernel {name!r} of this checkpoint needs state-spaces/s4 itself; no checkout was found. "
            f"Start in it, or set {HOME} to it."
        ) from None
    table = importlib.import_module("src.models.sequence.kernels").registry
    return table[check_choice("the kernel of the checkpoint", name, table)]


def register_datasets(module: ModuleType) -> None:
    """Add the classes of ``state_spaces_data`` to the data sets of the host's ``src.dataloaders``."""
    table = module.SequenceDataset.registry
    before = dict(table)
    # The host's base class enters each subclass into the table when it is defined.
    importlib.import_module("hope_ssm.hosts.state_spaces_data")
    table.update(before)


def register_decoders(module: ModuleType) -> None:
    """Add ``tail_pool`` to the host's ``src.tasks.decoders``, built from the model's and the data set's d_output."""
    from hope_ssm.layers.tail_pool import TailPool

    if "tail_pool" in module.registry and module.registry["tail_pool"] is not TailPool:
        return
    _add(module.registry, {"tail_pool": TailPool})
    _add(module.model_attrs, {"tail_pool": ["d_output"]})
    _add(module.dataset_attrs, {"tail_pool": ["d_output"]})


def register_layers(module: ModuleType) -> None:
    """Add ``CALLBACKS`` and ``LAYERS`` to the host's ``src.utils.registry``.

    Its models are watched from then on: one that was asked for a kernel and has none is refused.
    """
    from hope_ssm.hosts import tables

    _add(module.callbacks, CALLBACKS)
    _add(tables.replace(module, "layer", tables.Layers), LAYERS)
    if isinstance(getattr(module, "model", None), dict):
        tables.replace(module, "model", tables.Models)


def _add(table: dict[str, Any], entries: dict[str, Any]) -> None:
    for name, entry in entries.items():
        table.setdefault(name, entry)


CALLBACKS = {
    "hankel": "hope_ssm.analysis.callback.HankelCallback",
}

# model/layer=essm, s5 or linoss; grouped_fftconv (in model/layer=hope) and input_memory_fftconv: model.layer.layer
LAYERS = {
    "grouped_fftconv": "hope_ssm.hosts.state_spaces_fftconv.GroupedFFTConv",
    "input_memory_fftconv": "hope_ssm.hosts.state_spaces_layers.InputMemoryFFTConv",
    "essm": "hope_ssm.hosts.state_spaces_layers.HostESSM",
    "s5": "hope_ssm.hosts.state_spaces_layers.HostS5",
    "linoss": "hope_ssm.hosts.state_spaces_layers.HostLinOSS",
}

REGISTRATIONS: dict[str, Callable[[ModuleType], None]] = {
    "src.models.sequence.kernels": register_kernels,
    "src.dataloaders": register_datasets,
    "src.tasks.decoders": register_decoders,
    "src.utils.registry": register_layers,
}
