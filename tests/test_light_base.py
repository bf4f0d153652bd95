"""The base alone (torch, numpy, scipy, opt_einsum, pyyaml, packaging): what works, what the rest says it lacks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from declared import beyond_the_base, declared, project
from hope_ssm import extras

# A process in which no package of an extra is found, as if none were installed.
WITHOUT = """
import sys
from importlib.machinery import PathFinder
BLOCKED = frozenset(sys.argv.pop(1).split(","))
class Without:
    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in BLOCKED else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Without() if finder is PathFinder else finder for finder in sys.meta_path]
"""
BLOCKED = beyond_the_base() | {"lightning", "lightning_utilities", "torchmetrics", "antlr4", "einops", "wandb"}
LIBRARY = """
import torch, hope_ssm
from hope_ssm.hosts import state_spaces
assert hope_ssm.HopeLayer(4, d_state=8)(torch.randn(2, 9, 4)).shape == (2, 9, 4)
for name, entry in hope_ssm.registry.kernels().items():
    options = {"d_state": 8, "l_max": 16} if name != "reduced" else None
    assert options is None or entry(d_model=4, **options)(L=16)[0].shape[-1] == 16, name
assert state_spaces.find_host() is None
try:
    hope_ssm.load
except ImportError as error:
    print(error)
"""
COMMANDS = """
from hope_ssm.cli.main import COMMANDS, main
statuses = {}
for command in COMMANDS:
    try:
        statuses[command] = main([command] if command in ("kernels", "doctor", "train") else [command, "--help"])
    except SystemExit as stop:
        statuses[command] = stop.code
print(statuses)
"""


def with_the_base_alone(code: str, tmp_path) -> tuple[str, str]:
    command = [sys.executable, "-c", WITHOUT + code, ",".join(sorted(BLOCKED))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
def test_kernels_layers_and_the_plug_in_need_the_base_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("STATE_SPACES_HOME", raising=False)
    said, _ = with_the_base_alone(LIBRARY, tmp_path)
    assert said == f"{extras.absent('hope_ssm.load needs', 'pytorch_lightning')}\n"


@pytest.mark.slow
def test_a_command_works_or_says_what_installs_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.delenv("STATE_SPACES_HOME", raising=False)
    said, errors = with_the_base_alone(COMMANDS, tmp_path)
    statuses = eval(said.splitlines()[-1])
    assert {name for name, status in statuses.items() if status == 0} >= {
        "kernels", "doctor", "modes", "bench", "data", "upstream",
    }  # fmt: skip
    for command, status in statuses.items():
        if status != 0:
            assert f"hope {command}: this command needs " in errors
            assert f"which is not installed: {extras.install_line('workbench')}." in errors
    assert "hope train: this command needs hydra-core" in errors


def test_every_extra_of_the_table_brings_its_package():
    for module, (distribution, extra) in extras.EXTRAS.items():
        assert module in declared()[1][extra][distribution], module


def test_every_package_that_the_workbench_needs_is_in_the_table():
    assert beyond_the_base("workbench", "data", "export", "tables", "keops", "triton") - {"tensorboard"} == set(
        extras.EXTRAS
    )


def test_the_extra_all_covers_what_the_project_was_asked_to_use():
    """Directly, by the base or by an extra that it names."""
    (row,) = project()["optional-dependencies"]["all"]
    named = row.partition("[")[2].rstrip("]").split(",")
    packages = set(declared()[0]).union(*(declared()[1][extra] for extra in named))
    assert packages >= {"torch", "hydra-core", "pytorch-lightning", "opt_einsum", "scipy", "pykeops"}
    assert set(declared()[1]) - set(named) == {"all", "host", "docs", "dev"}
