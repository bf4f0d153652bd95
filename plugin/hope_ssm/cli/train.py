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
            plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            command = ["hope", "train", *HydraConfig.get().overrides.task]
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
