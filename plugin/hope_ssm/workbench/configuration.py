"""Composing a configuration in a program, from the same overrides as on the command line."""

from __future__ import annotations

from typing import Any

CONFIG_MODULE = "hope_ssm.configs"


def compose(overrides: list[str]) -> dict[str, Any]:
    """Return the plain, resolved configuration that ``hope train OVERRIDES`` would train."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from omegaconf import OmegaConf

    with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
        config = hydra_compose(config_name="config", overrides=overrides)
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
