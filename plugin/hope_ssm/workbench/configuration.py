"""Configurations of the workbench: what the host's command lines and files need beyond plain Hydra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

from omegaconf import OmegaConf

from hope_ssm.arithmetic import arithmetic_resolver
from hope_ssm.checks import nearest
from hope_ssm.extras import install_line

CONFIG_MODULE = "hope_ssm.configs"


def as_here(overrides: Iterable[str]) -> list[str]:
    """Return the overrides with ``+kernel=`` as ``kernel=``: the host has no such group until one is added."""
    there = ("+kernel=", "+variant=")  # in the defaults of our experiments
    return [override.removeprefix("+") if override.startswith(there) else override for override in overrides]


@contextmanager
def _beside_a_running_hydra() -> Iterator[None]:
    """Put away the Hydra that may be running, ``@hydra.main``'s say, and bring it back afterwards."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton
    from hydra.core.utils import JobRuntime
    from hydra.version import VersionBase

    kept = {kind: Singleton._instances.pop(kind, None) for kind in (GlobalHydra, JobRuntime, VersionBase)}
    try:
        yield
    finally:
        for kind, instance in kept.items():
            Singleton._instances.pop(kind, None)
            if instance is not None:
                Singleton._instances[kind] = instance


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the plain, resolved configuration that ``hope train OVERRIDES`` would train.

    Raises:
        ValueError: an override that is no ``key=value``, of an unknown key, or of an unknown choice.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_module
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        with (
            _beside_a_running_hydra(),
            initialize_config_module(CONFIG_MODULE, version_base="1.3"),
            arithmetic_resolver(),
        ):
            config = hydra_compose(config_name="config", overrides=as_here(overrides))
            return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise in_a_sentence(error, overrides) from None


def changed(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a resolved configuration with the values of ``key=value`` (or ``+key=value`` for a new key) replaced.

    Raises:
        ValueError: no such key; the nearest one is named.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    tree = OmegaConf.create(config)
    try:
        parsed = OverridesParser.create().parse_overrides(overrides=list(overrides))
    except HydraException as error:
        raise in_a_sentence(error, overrides) from None
    for override in parsed:
        key = override.key_or_group
        parent, _, name = key.rpartition(".")
        node = OmegaConf.select(tree, parent) if parent else tree
        if not (override.is_add() or override.is_force_add()) and (node is None or name not in node):
            valid = [str(k) for k in node or []]
            raise ValueError(
                f"the run's configuration has no key {key!r}; {parent or 'it'} has {', '.join(valid)}."
                f"{nearest(name, valid)} To add a new key write +{key}=…"
            )
        try:
            OmegaConf.update(tree, key, override.value(), force_add=True)
        except OmegaConfBaseException:
            raise ValueError(f"{key} must be a mapping; got {override.value()!r}.") from None
    try:
        with arithmetic_resolver():
            return OmegaConf.to_container(tree, resolve=True)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        raise in_a_sentence(error, overrides) from None


def options_of(group: str) -> list[str]:
    """Return the choices of a configuration group of ours, or the groups themselves for ``""``."""
    from hydra.core.config_store import ConfigStore

    folder = resources.files(CONFIG_MODULE).joinpath(group)
    if not folder.is_dir():
        return []
    inside = [entry for entry in folder.iterdir() if not entry.name.startswith("_")]
    if not group:
        return sorted(entry.name for entry in inside if entry.is_dir())
    stored = ConfigStore.instance().repo.get(group, {})
    return sorted({name.removesuffix(".yaml") for name in [*stored, *(entry.name for entry in inside)]
                   if name.endswith(".yaml")})  # fmt: skip


def in_a_sentence(error: Exception, overrides: Sequence[str] = ()) -> ValueError:
    """Return Hydra's or OmegaConf's complaint as one sentence: what was expected, what came, the nearest valid name."""
    from hydra.errors import ConfigCompositionException, MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    said = " ".join(str(error).split())
    if isinstance(error, OverrideParseException):
        return ValueError(
            f"an override must be key=value in Hydra's grammar; got {error.override!r}. Put quotes around a value with "
            f"spaces, commas, braces or $, as in \"key='a, b'\"."
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        valid = options_of(group) or list(error.options or [])
        mend = nearest(name, valid)
        if group == "hydra/launcher":
            mend = f" The launchers joblib and submitit_slurm come with {install_line('launchers')}."
        return ValueError(f"{group} must be one of {', '.join(valid)}; got {name!r}.{mend}")
    if said.startswith("Config group override must be"):  # Hydra does not say which
        for group, _, value in (override.lstrip("+").partition("=") for override in overrides):
            valid = options_of(group)
            if valid and value not in valid:
                return ValueError(f"{group} must be one of {', '.join(valid)}; got {value}.{nearest(value, valid)}")
    cause = error if isinstance(error, OmegaConfBaseException) else error.__cause__
    key, parent = getattr(cause, "full_key", None), getattr(cause, "parent_node", None)
    where, _, name = str(key or "").rpartition(".")
    if isinstance(error, ConfigCompositionException) and key:
        valid = [str(k) for k in parent or []] + (options_of("") if not where else [])
        mend = nearest(name, valid) or f" To add a new key write +{key}=…"
        listed = f"; valid are {', '.join(sorted(set(valid)))}" if valid else ""
        return ValueError(f"{where or 'the configuration'} has no key {name!r}{listed}.{mend}")
    if isinstance(error, OmegaConfBaseException) and key:
        raw = OmegaConf.to_container(parent, resolve=False) if parent is not None else {}
        text = raw.get(name, "") if isinstance(raw, dict) else ""
        reason = str(error).splitlines()[0].removeprefix("ValueError raised while resolving interpolation: ")
        return ValueError(
            f"{key} must have a value; got {text}, but: {reason.rstrip('.')}. Set {key}=…, or what it names."
        )
    return ValueError(said)
