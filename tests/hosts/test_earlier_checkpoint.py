"""A checkpoint that state-spaces/s4 wrote with an earlier version of this package: the same kernels in this one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from hope_ssm.cli.main import main
from hope_ssm.hosts import checkpoints

CHECKPOINT = Path(__file__).parent / "data" / "delay-hope.ckpt"


def test_its_kernels_are_what_they_were():
    expected = json.loads(CHECKPOINT.with_suffix(".json").read_text())
    ((layer, kernel),) = checkpoints.kernels(checkpoints.read(CHECKPOINT)).items()
    assert layer == expected["layer"]
    samples = kernel.double()(L=12)[0][0]
    torch.testing.assert_close(samples, torch.tensor(expected["kernel"], dtype=samples.dtype), rtol=1e-7, atol=1e-8)


@pytest.mark.slow
def test_the_commands_take_it(tmp_path, capsys):
    assert main(["inspect", str(CHECKPOINT), "--length", "64", "--out", str(tmp_path / "pages")]) == 0
    assert main(["reduce", str(CHECKPOINT), "--d-state", "4", "--out", str(tmp_path / "small.ckpt")]) == 0
    assert "model.layer.mode=reduced" in capsys.readouterr().out
