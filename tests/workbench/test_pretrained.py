"""train.init_from: the weights of another run that fit, and a list of those that do not."""

from __future__ import annotations

import logging

import pytest
import torch

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.data import Splits, register
from hope_ssm.workbench.evaluation import load
from hope_ssm.workbench.training import train
from tiny import TINY

MODEL = [option for option in TINY if option.startswith(("model", "trainer", "+trainer"))]


def other_data(classes: int = 3) -> Splits:
    samples = [(torch.randn(20, 1), torch.tensor(i % classes)) for i in range(12)]
    return Splits(samples, samples, samples, d_input=1, d_output=classes)


register("other-data", other_data)
OTHER = ["pipeline=own", "dataset._name_=other-data", "loader.batch_size=4", *MODEL, "optimizer.lr=1e-6"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("first") / "run"
    train(compose([*TINY, "kernel=hope"]), path, callbacks=[])
    return path


def test_other_data_and_another_head(run, tmp_path, caplog):
    """The layers begin as they ended there, the head does not fit, and the log says so once."""
    with caplog.at_level(logging.INFO, logger="hope_ssm.workbench"):
        train(compose([*OTHER, "kernel=hope", f"train.init_from={run}"]), tmp_path / "tuned", callbacks=[])
    before, after = load(run).state_dict(), load(tmp_path / "tuned").state_dict()
    for name in after:
        if not name.startswith("decoder"):  # a learning rate of 1e-6 moves them by no more
            torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-2 if "sampling" in name else 1e-4)
    (said,) = [line for line in caplog.messages if line.startswith("Weights of")]
    assert "tensors taken (model.layers.0, model.norm, encoder). Not taken:" in said
    assert "decoder.output_transform.weight: (3, 8) here, (10, 8) there" in said
    assert len(said.splitlines()) == 3


def test_a_checkpoint_under_the_host_s_name_and_another_kernel(run, tmp_path, caplog):
    """Of another kernel nothing is taken, but all around it."""
    checkpoint = f"train.pretrained_model_path={run / 'checkpoints' / 'last.ckpt'}"
    with caplog.at_level(logging.INFO, logger="hope_ssm.workbench"):
        train(compose([*OTHER, "kernel=s4d", "+dataset.classes=10", checkpoint]), tmp_path / "tuned", callbacks=[])
    (said,) = [line for line in caplog.messages if line.startswith("Weights of")]
    assert "model.layers.0.layer.layer.kernel.markov_parameters: only there" in said
    assert "kernel.C: only here" in said
    assert "taken (model.layers.0, model.norm, encoder, decoder)" in said


def test_parameters_of_one_name_in_another_kernel_are_left(tmp_path, caplog):
    train(compose([*OTHER, "kernel=s4d"]), tmp_path / "s4d", callbacks=[])
    with caplog.at_level(logging.INFO, logger="hope_ssm.workbench"):
        train(compose([*OTHER, "kernel=s4", f"train.init_from={tmp_path / 's4d'}"]), tmp_path / "s4", callbacks=[])
    (said,) = [line for line in caplog.messages if line.startswith("Weights of")]
    assert "model.layers.0.layer.layer.kernel.B: of another kernel" in said


def test_a_resumed_run_keeps_its_own_weights(run, tmp_path, caplog):
    config = compose([*OTHER, "kernel=hope", f"train.init_from={run}"])
    train(config, tmp_path / "tuned", callbacks=[])
    config["train"]["ckpt"], config["trainer"]["max_epochs"] = "auto", 2
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="hope_ssm.workbench"):
        train(config, tmp_path / "tuned", callbacks=[])
    assert not [line for line in caplog.messages if line.startswith("Weights of")]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.init_from=nowhere"], r"train\.init_from must be the directory of a run .*; 'nowhere' is neither"),
        (["train.pretrained_model_path=nowhere"], r"train\.pretrained_model_path must be .*; 'nowhere' is neither"),
        (["train.init_from=a", "train.pretrained_model_path=b"], r"must not both be given; got 'a' and 'b'"),
        (
            ["train.init_from={run}", "model.d_model=6"],
            r"must have weights that fit the layers .*: \(1, 6\).*Set model and",
        ),
        (
            ["train.init_from={run}/config.yaml"],
            r"train\.init_from must be a checkpoint of hope train; .* cannot be read",
        ),
        (["train.init_from=3"], r"train\.init_from must be text, or null|train\.init_from must be the directory"),
    ],
)
def test_refusals_leave_no_run_behind(run, tmp_path, overrides, message):
    overrides = [line.format(run=run) for line in overrides]
    with pytest.raises((ValueError, TypeError), match=message):
        train(compose([*OTHER, "kernel=hope", *overrides]), tmp_path / "run", callbacks=[])
    assert not (tmp_path / "run").exists()
