"""Composing a configuration in a program, from the same overrides as on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hope_ssm.checks import nearest

CONFIG_MODULE = "hope_ssm.configs"


def compose(overrides: list[str]) -> dict[str, Any]:
    """Return the plain, resolved configuration that ``hope train OVERRIDES`` would train."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from omegaconf import OmegaConf

    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        config = hydra_compose(config_name="config", overrides=overrides)
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def changed(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a resolved configuration with the values of ``key=value`` (or ``+key=value`` for a new key) replaced.

    Raises: ValueError: no such key; the nearest one is named.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    tree = OmegaConf.create(config)
    for override in OverridesParser.create().parse_overrides(overrides=list(overrides)):
        key = override.key_or_group
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(tree, parent) if parent else tree
        if not override.is_add() and (node is None or name not in node):
            valid = [str(k) for k in node or []]
            raise ValueError(
                f"the run's configuration has no key {key!r}; {parent or 'it'} has {', '.join(valid)}."
                f"{nearest(name, valid)} To add a new key write +{key}=…"
            )
        OmegaConf.update(tree, key, override.value(), force_add=True)
    return OmegaConf.to_container(tree, resolve=True)  # type: ignore[return-value]
