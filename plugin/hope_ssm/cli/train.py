"""``hope train``: the host's override grammar on the embedded workbench."""

from __future__ import annotations

import os
import sys

from hope_ssm.checks import nearest
from hope_ssm.workbench.configuration import CONFIG_MODULE


def run(arguments: list[str]) -> int:
    """Compose the configuration from ``arguments`` and train; every option of Hydra's own command line works."""
    import hydra
    from omegaconf import DictConfig, OmegaConf

    original = list(sys.argv)

    def job(config: DictConfig) -> float | None:
        from hydra.core.hydra_config import HydraConfig

        from hope_ssm.workbench.training import train

        sys.argv = original  # Lightning starts further ranks with the command line as the user typed it
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        directory = HydraConfig.get().runtime.output_dir
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            print(f"Results in {directory}", flush=True)
        results = train(plain, directory).metrics
        if int(os.environ.get("LOCAL_RANK", "0")) == 0:
            print("\n".join(f"{name:<24} {value:.4f}" for name, value in sorted(results.items())))
        return results.get(config.train.monitor)

    os.environ["HYDRA_FULL_ERROR"] = os.environ.get("HYDRA_FULL_ERROR", "1")  # hand errors to cli.main, not to print
    sys.argv = [original[0], *arguments]
    try:
        hydra.main(config_path=f"pkg://{CONFIG_MODULE}", config_name="config", version_base="1.3")(job)()
    except Exception as error:
        sentence = with_nearest_name(error)
        if sentence is error:
            raise
        raise sentence from None
    finally:
        sys.argv = original
    return 0


def with_nearest_name(error: Exception) -> Exception:
    """Return Hydra's complaint about an unknown key or group option as a sentence with the nearest valid name."""
    from hydra.errors import ConfigCompositionException, MissingConfigException

    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = ", ".join(error.options)
        return ValueError(f"{group} must be one of {options}; got {name!r}.{nearest(name, error.options)}")
    cause = error.__cause__
    key = getattr(cause, "full_key", None)
    parent = getattr(cause, "parent_node", None)
    if isinstance(error, ConfigCompositionException) and key and parent is not None:
        valid = [str(k) for k in parent]
        where, _, name = str(key).rpartition(".")
        listed = ", ".join(valid)
        return ValueError(
            f"{where or 'the configuration'} has no key {name!r}; valid are {listed}.{nearest(name, valid)} "
            f"To add a new key write +{key}=…"
        )
    return error
