"""Data sets by name, the host's ``dataset._name_``, or by the dotted path of a function, ``dataset._target_``."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hope_ssm.workbench.data import builtin, lra
from hope_ssm.workbench.data.forecasting import forecasting
from hope_ssm.workbench.data.splits import Splits
from hope_ssm.workbench.options import instantiate

DATASETS: dict[str, Callable[..., Splits]] = {
    "noisy-digits": builtin.noisy_digits,
    "mnist-5000": builtin.small_mnist,
    "noisy-mnist": builtin.noisy_mnist,
    "cifar": builtin.sequential_cifar,
    "noisy-cifar": builtin.noisy_cifar,
    "watch": builtin.watch,
    "delay": builtin.delay,
    "copying": builtin.copying,
    "adding": builtin.adding,
    "tones": builtin.tones,
    "forecasting": forecasting,
    "listops": lra.listops,
    "listops-small": lra.listops_small,
    "imdb": lra.imdb,
    "aan": lra.aan,
    "pathfinder": lra.pathfinder,
    "pathfinder-small": lra.pathfinder_small,
}


_OURS = frozenset(DATASETS)


def register(name: str, factory: Callable[..., Splits]) -> None:
    """Make ``factory`` the data set ``name``, in this process: its options are those of ``dataset``.

    Raises:
        ValueError: the name is one of the workbench's own.
    """
    if name in _OURS:
        raise ValueError(f"a data set of your own must have another name than the workbench's; got {name!r}.")
    DATASETS[name] = factory


def check_trusted(dataset: Mapping[str, Any], given: Sequence[str] = (), trust: bool = False) -> None:
    """Raise unless the function that makes a stored data set is the workbench's own, or somebody answers for it.

    Args:
        dataset: the configuration ``dataset`` of a run, which may be somebody else's.
        given: names of functions that were given anew.
        trust: run any.

    Raises:
        ValueError: the run names a function of its own.
    """
    target = dataset.get("_target_")
    own = {f"{DATASETS[name].__module__}.{DATASETS[name].__qualname__}" for name in _OURS}
    if target is not None and not trust and target not in own and target not in given:
        raise ValueError(
            f"the function that makes a stored run's data must be the workbench's own or given again; the run names "
            f"{target!r}, which was not called. If you trust it, say --trust."
        )


def make_splits(dataset: Mapping[str, Any]) -> Splits:
    """Return the splits that the configuration ``dataset`` names; further keys with leading underscores are dropped."""
    options = {key: value for key, value in dataset.items() if key == "_name_" or not key.startswith("_")}
    datasets, target = DATASETS, dataset.get("_target_")
    if target is not None:
        options["_name_"], datasets = target, {target: _factory(target)}
    elif options.get("_name_") is None:
        raise ValueError(
            "dataset._target_ must be package.module.function, or dataset._name_ the name of a data set; got neither."
        )
    splits = instantiate("dataset", datasets, options)
    if not isinstance(splits, Splits):
        raise TypeError(
            f"the data set {options['_name_']!r} must return hope_ssm.workbench.data.Splits; got "
            f"{type(splits).__name__}."
        )
    return splits


def _factory(target: str) -> Callable[..., Splits]:
    """The function at a dotted path; modules in the working directory are found too."""
    module_name, _, name = str(target).rpartition(".")
    wanted = f"dataset._target_ must be package.module.function; got {target!r}"
    if not module_name:
        raise ValueError(f"{wanted}.")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except ModuleNotFoundError as error:
        raise ValueError(f"{wanted}, but there is no module {error.name!r}.") from error
    if not callable(found):
        raise ValueError(f"{wanted}, but {module_name} has no function {name!r}.")
    return found
