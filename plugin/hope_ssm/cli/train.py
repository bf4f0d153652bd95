"""``hope train``: the host's override grammar on the embedded workbench."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

from hope_ssm.arithmetic import arithmetic_resolver
from hope_ssm.cli.main import FULL_ERROR
from hope_ssm.workbench.configuration import CONFIG_MODULE, as_here, in_a_sentence
from hope_ssm.workbench.run_directory import HYDRA, HYDRA_NEW, RUN

OF_RANKS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")


def run(arguments: list[str]) -> int:
    """Compose the configuration from ``arguments`` and train; every option of Hydra's own command line works."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    original, home = list(sys.argv), Path.cwd()
    failure: list[Exception] = []
    sweep: list[Path] = []

    def job(config: DictConfig) -> float | None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from hope_ssm.workbench.fitting import is_first_process
        from hope_ssm.workbench.training import train

        directory = Path(HydraConfig.get().runtime.output_dir)
        try:
            as_begun(config, HydraConfig.get().runtime.cwd)
            if config.get("wandb") is not None and HydraConfig.get().mode == RunMode.MULTIRUN:
                OmegaConf.update(config, "wandb", {**of_the_sweep(arguments), **config.wandb}, force_add=True)
            command = ["hope", "train", *typed_flags(arguments), *overrides_of_the_job()]
            alone = HydraConfig.get().mode == RunMode.RUN
            with further_ranks(original if alone else [original[0], *command[1:]], directory):
                metrics = train(config, directory, command=command).metrics
        except Exception as error:
            forget(directory, home)
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                sweep.append(Path(HydraConfig.get().sweep.dir))
                raise
            failure.append(error)  # raised below, without Hydra's own report before it
            return None
        finally:
            shutil.rmtree(directory / HYDRA_NEW, ignore_errors=True)
        if is_first_process():
            print("\n".join(f"{name:<24} {value:.4f}" for name, value in sorted(metrics.items())))
        return metrics.get(config.train.monitor)

    os.environ.setdefault(FULL_ERROR, os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands errors to cli.main, which prints them as the user chose
    flags = [word for word in arguments if word in ("-m", "--multirun")]  # Hydra takes them before the overrides only
    overrides = as_here(word for word in arguments if word not in flags)
    sys.argv = [original[0], *flags, *overrides]
    try:
        with arithmetic_resolver() if "--resolve" in arguments else contextlib.nullcontext(), late_help():
            hydra.main(config_path=f"pkg://{CONFIG_MODULE}", config_name="config", version_base="1.3")(job)()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise in_a_sentence(error, overrides) from None
    finally:
        sys.argv = original
        if sweep:
            forget(sweep[0].resolve(), home)
    if failure:
        raise failure[0]
    return 0


@contextlib.contextmanager
def further_ranks(command: list[str], directory: Path) -> Iterator[None]:
    """Let Lightning start further ranks of the present job with ``command``, in ``directory``, whoever began the job.

    It runs sys.argv again, as the module that __main__ is: that of a launcher in a worker of joblib or submitit, and a
    whole sweep in each of its jobs. What it notes in the environment for its ranks is not meant for the next job.
    """
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import read_write

    begun, main = list(sys.argv), sys.modules["__main__"]
    spec, environment = getattr(main, "__spec__", None), {name: os.environ.get(name) for name in OF_RANKS}
    configuration: Any = HydraConfig.instance().cfg
    with read_write(configuration.hydra):
        configuration.hydra.run.dir = str(directory).replace("${", "\\${")
    by_module = Path(command[0]).stem == "main"
    sys.argv, main.__spec__ = command, util.find_spec("hope_ssm.cli.main") if by_module else None
    try:
        yield
        import torch.distributed

        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    finally:
        sys.argv, main.__spec__ = begun, spec
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)


@contextlib.contextmanager
def late_help() -> Iterator[None]:
    """Spare Hydra 1.3's parser the check of help texts that Python 3.14 has: one of them is no string until printed."""
    parser: Any = argparse.ArgumentParser
    check = getattr(parser, "_check_help", None)
    if check is None:  # before Python 3.14
        yield
        return
    parser._check_help = lambda self, action: check(self, action) if isinstance(action.help, str) else None
    try:
        yield
    finally:
        parser._check_help = check


def as_begun(config: Any, begun_in: str) -> None:
    """Let paths mean what they meant where the command was typed, under hydra.job.chdir too."""
    from omegaconf import OmegaConf

    if begun_in not in sys.path:
        sys.path.append(begun_in)  # a data set of one's own is looked for there
    if os.getcwd() == begun_in:
        return
    for key in ("train.ckpt", "train.init_from", "train.pretrained_model_path", "dataset.data_dir", "dataset.path"):
        path = OmegaConf.select(config, key)
        if isinstance(path, str) and (key, path) != ("train.ckpt", "auto"):
            OmegaConf.update(config, key, os.path.join(begun_in, path))
    os.environ["DATA_PATH"] = os.path.join(begun_in, os.environ.get("DATA_PATH", "data"))


def typed_flags(arguments: list[str]) -> list[str]:
    """Return what of a command line Hydra takes beside overrides and a resumed run needs: where its files are."""
    taken, words = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p"), []
    for word, value in zip(arguments, [*arguments[1:], ""], strict=True):
        if word in taken:
            words += [word, value]
        elif word.startswith(taken[::2]) and "=" in word:
            words.append(word)
    return words


def overrides_of_the_job() -> list[str]:
    """Return the overrides of the present job, and those of Hydra that a single run understands."""
    from hydra.core.hydra_config import HydraConfig

    sweeps = ("hydra.sweep", "hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.mode", "hydra.run.dir")
    given = HydraConfig.get().overrides
    return [*given.task, *(word for word in given.hydra if not word.lstrip("+~").startswith(sweeps))]


def of_the_sweep(typed: list[str]) -> dict[str, str]:
    """Return a name for the present job, what was swept in it, and one for the group of all jobs."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.override_parser.overrides_parser import OverridesParser

    given = OverridesParser.create().parse_overrides(
        [word for word in as_here(typed) if "=" in word and word[0] != "-"]
    )
    keys = {override.key_or_group for override in given if override.is_sweep_override()}
    swept = [word for word in HydraConfig.get().overrides.task if word.lstrip("+").partition("=")[0] in keys]
    place = os.path.abspath(HydraConfig.get().sweep.dir)
    return {"name": " ".join(swept), "group": "/".join(place.split(os.sep)[-2:])}


def forget(directory: Path, home: Path) -> None:
    """Remove a directory that no run began in, of a job or a sweep, and what that leaves empty below ``home``."""
    hydras = {HYDRA, HYDRA_NEW, "multirun.yaml", "train.log"}
    try:
        if (directory / RUN).exists() or not {path.name for path in directory.iterdir()} <= hydras:
            return
        shutil.rmtree(directory)
        for above in directory.parents:
            if home in above.parents:
                above.rmdir()
    except OSError:  # not empty, or not ours to remove
        return
