"""What is said of a failure: the first error, not the one of the clean-up after it, and no traceback of a worker."""

from __future__ import annotations

import importlib
import sys

import pytest
import pytorch_lightning

from hope_ssm import requirements
from hope_ssm.cli import main as command_line

MODULE = """
import torch
from torch.utils.data import Dataset
from hope_ssm.workbench.data import Splits, loaders

class Broken(Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, index):
        if index >= 20:
            raise RuntimeError("the disk of my data is gone")
        return torch.zeros(8, 1), index % 2

def data():
    return Splits(Broken(), Broken(), Broken(), d_input=1, d_output=2)

class WithoutNumbers(Broken):
    def __getitem__(self, index):
        return torch.zeros(8, 1), index % 2

def failing(*numbers):
    raise TypeError("ufunc 'right_shift' not supported")

def as_with_an_old_numpy():
    loaders.mixed = failing
    return Splits(*3 * [WithoutNumbers()], d_input=1, d_output=2)
"""
OWN = ["pipeline=own", "model.d_model=8", "model.n_layers=1", "trainer.accelerator=cpu"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["dataset._target_=own_module.as_with_an_old_numpy"], "ufunc 'right_shift' not supported – then: Please call"),
        (["dataset._target_=own_module.data", "loader.num_workers=1"], "the disk of my data is gone\n"),
    ],
    ids=["an error of the clean-up", "a worker of the loader"],
)
def test_the_first_error_is_said_first(hope, tmp_path, arguments, said):
    (tmp_path / "own_module.py").write_text(MODULE)
    done = hope("train", *OWN, *arguments)
    assert done.returncode == 1
    last = done.stderr.splitlines(keepends=True)[-1]
    assert last.startswith(f"hope train: {said}")
    assert "Traceback" not in done.stderr


def test_a_given_cause_ends_the_search():
    def translated():
        try:
            {}["a"]
        except KeyError:
            raise ValueError("a must be given; got none.") from None

    with pytest.raises(ValueError) as caught:
        translated()
    assert command_line.one_line(caught.value) == "a must be given; got none."


def test_a_failure_names_the_imported_packages_that_are_too_old(monkeypatch, capsys):
    class Fails:
        @staticmethod
        def run(arguments):
            raise IndexError("pop from empty list")

    here = {"pytorch-lightning": "2.4.0", "hydra-core": "1.3.8", "hydra-joblib-launcher": "1.0", "torch": "2.13.0+cpu"}
    monkeypatch.setattr(requirements, "version", here.get)
    monkeypatch.setitem(sys.modules, "hope_ssm.cli.train", Fails)
    assert pytorch_lightning.__name__ in sys.modules
    assert command_line.main(["train"]) == 1
    assert capsys.readouterr().err == (
        "hope train: pop from empty list. pytorch-lightning must be >=2.5.3; got 2.4.0: "
        "pip install 'pytorch-lightning>=2.5.3'.\n"
    )


def test_a_package_too_old_to_be_imported_is_named(monkeypatch, capsys, tmp_path):
    """As Lightning 2.0.4 is where setuptools has no pkg_resources: its import fails, so it is not imported."""
    folder = tmp_path / "pytorch_lightning"
    folder.mkdir()
    (folder / "__init__.py").write_text("import hope_ssm_absent")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pytorch_lightning"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(requirements, "version", {"pytorch-lightning": "2.0.4"}.get)

    class Fails:
        @staticmethod
        def run(arguments):
            importlib.import_module("pytorch_lightning")

    monkeypatch.setitem(sys.modules, "hope_ssm.cli.train", Fails)
    assert command_line.main(["train"]) == 1
    assert capsys.readouterr().err == (
        "hope train: No module named 'hope_ssm_absent'. pytorch-lightning must be >=2.5.3; got 2.0.4: "
        "pip install 'pytorch-lightning>=2.5.3'.\n"
    )
