"""``hope train``: the host's override grammar on the embedded workbench."""

from __future__ import annotations

import os
import sys
from importlib import resources
from typing import Any

from hope_ssm.checks import nearest
from hope_ssm.cli.main import FULL_ERROR
from hope_ssm.workbench.configuration import CONFIG_MODULE, as_here


def run(arguments: list[str]) -> int:
    """Compose the configuration from ``arguments`` and train; every option of Hydra's own command line works."""
    import hydra
    from omegaconf import DictConfig, OmegaConf

    original = list(sys.argv)
    failure: list[Exception] = []

    def job(config: DictConfig) -> float | None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from hope_ssm.workbench.training import train

        sys.argv = original  # Lightning starts further ranks with the command line as the user typed it
        try:
            begun_in = HydraConfig.get().runtime.cwd
            if begun_in not in sys.path:
                sys.path.append(begun_in)  # a data set of one's own is looked for there, hydra.job.chdir or not
            plain: Any = as_begun(OmegaConf.to_container(config, resolve=True, throw_on_missing=True), begun_in)
            if plain.get("wandb") is not None and HydraConfig.get().mode == RunMode.MULTIRUN:
                plain["wandb"] = {**of_the_sweep(arguments), **plain["wandb"]}
            command = ["hope", "train", *typed_flags(arguments), *overrides()]
            metrics = train(plain, HydraConfig.get().runtime.output_dir, command=command).metrics
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise
            failure.append(error)  # raised below, without Hydra's own report before it
            return None
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            print("\n".join(f"{name:<24} {value:.4f}" for name, value in sorted(metrics.items())))
        return metrics.get(config.train.monitor)

    os.environ.setdefault(FULL_ERROR, os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors to cli.main, which prints them as the user chose
    flags = [word for word in arguments if word in ("-m", "--multirun")]  # Hydra takes them before the overrides only
    sys.argv = [original[0], *flags, *as_here(word for word in arguments if word not in flags)]
    try:
        hydra.main(config_path=f"pkg://{CONFIG_MODULE}", config_name="config", version_base="1.3")(job)()
    except Exception as error:
        sentence = with_nearest_name(error)
        if sentence is error:
            raise
        raise sentence from None
    finally:
        sys.argv = original
    if failure:
        raise failure[0]
    return 0


def as_begun(config: Any, begun_in: str) -> dict[str, Any]:
    """Return a configuration with paths as they were meant where the command was typed, under hydra.job.chdir too."""
    if os.getcwd() == begun_in:
        return config

    def there(group: str, key: str) -> None:
        path = config[group].get(key)
        if isinstance(path, str) and (group, path) != ("train", "auto"):
            config[group] = {**config[group], key: os.path.join(begun_in, path)}

    there("train", "ckpt")
    there("dataset", "data_dir")
    os.environ["DATA_PATH"] = os.path.join(begun_in, os.environ.get("DATA_PATH", "data"))
    return config


def typed_flags(arguments: list[str]) -> list[str]:
    """Return what of a command line Hydra takes beside overrides and a resumed run needs: where its files are."""
    taken, words = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p"), []
    for word, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if word in taken:
            words += [word, value]
        elif word.startswith(taken[::2]) and "=" in word:
            words.append(word)
    return words


def overrides() -> list[str]:
    """Return the overrides of the present job, and those of Hydra that a single run understands."""
    from hydra.core.hydra_config import HydraConfig

    sweeps = ("hydra.sweep", "hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.mode", "hydra.run.dir")
    given = HydraConfig.get().overrides
    return [*given.task, *(word for word in given.hydra if not word.lstrip("+~").startswith(sweeps))]


def of_the_sweep(typed: list[str]) -> dict[str, str]:
    """Return a name for the present job, what was swept in it, and one for the group of all jobs."""
    from hydra.core.hydra_config import HydraConfig

    swept = [word for word in HydraConfig.get().overrides.task if word not in as_here(typed)]
    place = os.path.abspath(HydraConfig.get().sweep.dir)
    return {"name": " ".join(swept), "group": "/".join(place.split(os.sep)[-2:])}


def options_of(group: str) -> list[str]:
    """Return the choices of a configuration group of ours, or the groups themselves for ``""``."""
    folder = resources.files(CONFIG_MODULE).joinpath(group)
    if not folder.is_dir():
        return []
    inside = [entry for entry in folder.iterdir() if not entry.name.startswith("_")]
    if not group:
        return sorted(entry.name for entry in inside if entry.is_dir())
    return sorted(entry.name.removesuffix(".yaml") for entry in inside if entry.name.endswith(".yaml"))


def with_nearest_name(error: Exception) -> Exception:
    """Return Hydra's complaint about an unknown key or choice as a sentence with the nearest valid name."""
    from hydra.errors import ConfigCompositionException, MissingConfigException

    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        valid = options_of(group) or list(error.options or [])
        mend = nearest(name, valid)
        if group == "hydra/launcher":
            mend = " The launchers joblib and submitit_slurm come with pip install 'hope-ssm[launchers]'."
        return ValueError(f"{group} must be one of {', '.join(valid)}; got {name!r}.{mend}")
    cause = error.__cause__
    key, parent = getattr(cause, "full_key", None), getattr(cause, "parent_node", None)
    if isinstance(error, ConfigCompositionException) and key:
        where, _, name = str(key).rpartition(".")
        valid = [str(k) for k in parent or []] + (options_of("") if not where else [])
        mend = nearest(name, valid) or f" To add a new key write +{key}=…"
        listed = f"; valid are {', '.join(sorted(set(valid)))}" if valid else ""
        return ValueError(f"{where or 'the configuration'} has no key {name!r}{listed}.{mend}")
    return error
