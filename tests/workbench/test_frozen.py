"""train.frozen: parts of the model that stay as they began."""

from __future__ import annotations

import pytest
import torch

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.evaluation import load
from hope_ssm.workbench.training import build, describe, train
from tiny import TINY


def test_what_is_named_stays_and_the_rest_trains(tmp_path):
    config = compose([*TINY, "kernel=hope", "train.frozen=[encoder,model]"])
    begun, run = build(config)[0], tmp_path / "run"
    assert "parameters  frozen" in describe(begun)
    before = begun.state_dict()
    train(config, run, callbacks=[])
    for name, value in load(run).state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith("decoder"), name


def test_batch_norms_of_frozen_parts_keep_their_statistics(tmp_path):
    config, run = compose([*TINY, "kernel=hope", "model.norm=batch", "train.frozen=[model.layers.0]"]), tmp_path / "run"
    before = build(config)[0].state_dict()
    train(config, run, callbacks=[])
    after = load(run).state_dict()
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert {name for name in after if name.startswith("model.layers.0.")} <= same
    assert not {name for name in after if name.startswith("model.norm.running")} & same


def test_single_parameters(tmp_path):
    task, _ = build(compose([*TINY, "kernel=hope", "train.frozen=[encoder.weight]"]))
    assert [name for name, parameter in task.named_parameters() if not parameter.requires_grad] == ["encoder.weight"]


@pytest.mark.parametrize(
    ("frozen", "sentence"),
    [
        ("[encodr]", "train.frozen must list parts of the model with parameters.*got 'encodr'. Did you mean 'encoder'"),
        ("[encoder,model,decoder]", "train.frozen must leave parameters to train; encoder, model, decoder are all"),
        ("encoder", r"train\.frozen must be a list"),
    ],
)
def test_a_part_that_is_not_there_and_all_parts_are_refused(frozen, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        build(compose([*TINY, "kernel=hope", f"train.frozen={frozen}"]))
