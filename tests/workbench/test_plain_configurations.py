"""Configurations that are not plain, beside a Hydra that runs, and OmegaConf's resolvers left alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.training import train
from hope_ssm.workbench.validation.configuration import checked
from hope_ssm.workbench.validation.plain import plain
from runs import QUIET
from tiny import TINY


def test_numbers_of_numpy_paths_and_containers_become_plain():
    given = {"a": np.float32(0.5), "b": np.int64(3), "c": Path("x/y"), "d": (1, np.bool_(True)), "e": np.arange(2),
             "f": torch.tensor(2.0), "g": OmegaConf.create({"h": "${eval:'2 * 3'}", "i": [1]}), "j": None}  # fmt: skip
    meant = {"a": 0.5, "b": 3, "c": "x/y", "d": [1, True], "e": [0, 1], "f": 2.0, "g": {"h": 6, "i": [1]}, "j": None}
    found = plain(given)
    assert found == meant
    assert yaml.safe_load(yaml.safe_dump(found)) == meant


@pytest.mark.parametrize("value", [object(), {1, 2}, print, 1j, b"x"])
def test_what_is_no_value_is_named(value):
    with pytest.raises(TypeError, match=r"model\.layer\.x\[1\] must be a number, text, true, false, null"):
        plain({"model": {"layer": {"x": [0, value]}}})


def test_keys_are_text():
    with pytest.raises(TypeError, match=r"keys of model must be text; got 1"):
        plain({"model": {1: 2}})


@pytest.mark.slow
def test_a_run_under_numpy_numbers_and_omegaconf(tmp_path):
    config = compose([*TINY, *QUIET])
    first = train(config, tmp_path / "a", callbacks=[])
    config["optimizer"]["lr"], config["model"]["n_layers"] = np.float64(config["optimizer"]["lr"]), np.int32(1)
    config["train"]["ckpt"] = tmp_path / "a" / "checkpoints" / "last.ckpt"
    config["trainer"]["max_epochs"] = np.int64(2)
    config["scheduler"]["T_max"] = first.task.config["scheduler"]["T_max"]
    again = train(OmegaConf.create({key: plain(value) for key, value in config.items()}), tmp_path / "b", callbacks=[])
    assert len(again.history.epochs) == 2
    assert train(config, tmp_path / "c", callbacks=[]).metrics["val/loss"] == again.metrics["val/loss"]


def test_an_unresolved_configuration_of_omegaconf_says_which_key():
    config = OmegaConf.create(compose([*TINY, *QUIET]))
    config.optimizer.lr = "${nowhere}"
    with pytest.raises(
        ValueError, match=r"optimizer\.lr must have a value; got \$\{nowhere\}, but: .*'nowhere' not found"
    ):
        checked(config)


def alone(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_resolver_eval_is_the_user_s():
    """Registered before or after the import; of the user's own in the overrides; gone again after a composition."""
    alone(
        "from hope_ssm.workbench.configuration import compose\n"
        "from omegaconf import OmegaConf\n"
        "compose(['kernel=hope'])\n"
        "assert not OmegaConf.has_resolver('eval')\n"
        "OmegaConf.register_new_resolver('eval', eval)\n"
        "c = OmegaConf.create({'a': \"${eval:'max(3, 4)'}\"})\n"
        "assert compose(['kernel=hope', \"trainer.max_epochs=${eval:'max(3, 4)'}\"])['trainer']['max_epochs'] == 4\n"
        "assert c.a == 4\n"
    )


@pytest.mark.slow
def test_a_composition_inside_a_running_hydra(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("a: 3\n")
    (tmp_path / "app.py").write_text(
        "import hydra\n"
        "from hydra.core.hydra_config import HydraConfig\n"
        "from hydra import compose as own\n"
        "@hydra.main(config_path='conf', config_name='config', version_base=None)\n"
        "def main(config):\n"
        "    from hope_ssm.workbench.configuration import compose\n"
        "    assert compose(['kernel=s4d'])['model']['layer']['mode'] == 's4d'\n"
        "    assert own('config').a == config.a == 3 and HydraConfig.get().job.name == 'app'\n"
        "    print('done')\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "app.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "done", done.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr=[1", r"must be key=value in Hydra's grammar; got 'optimizer\.lr=\[1'"),
        ("optimizer=null", r"optimizer must be one of adam, adamw, sgd; got null"),
        ("optimizer=adamm", r"optimizer must be one of adam, adamw, sgd; got 'adamm'\. Did you mean 'adam'"),
        ("optimizer.lrr=1", r"optimizer has no key 'lrr'; .* Did you mean 'lr'"),
        ("optimizer.lr=${x}", r"optimizer\.lr must have a value; got \$\{x\}, but: Interpolation key 'x' not found"),
        ("optimizer.lr=${eval:'1/0'}", r"optimizer\.lr must have a value; .* got '1/0', where there is a division"),
        ("dataset.l_noise=null", r"\$\{\.l_noise\}"),
        ("optimizer.lr=1,2", r"optimizer\.lr=1,2"),
    ],
)
def test_complaints_of_hydra_in_a_sentence(override, message):
    with pytest.raises(ValueError, match=message) as caught:
        compose([override])
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_refused_command_leaves_nothing_behind(hope, tmp_path):
    for line in (["loader.drop_last=maybe"], ["decoder.l_tail=1000"], ["-m", "optimizer.lr=-1,-2"]):
        done = hope("train", *TINY, "kernel=hope", *line)
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1].startswith("hope train: "), done.stderr
        assert not list(tmp_path.iterdir())
