"""Override lines of layers, kernels, optimizers and schedulers, from the configuration files to a training step."""

from __future__ import annotations

import math
from importlib import resources

import pytest
import torch

from combinations import diagonal
from hope_ssm.arithmetic import arithmetic
from hope_ssm.workbench.configuration import CONFIG_MODULE, as_here, compose
from hope_ssm.workbench.optimization import SCHEDULERS, linear_warmup
from hope_ssm.workbench.training import build
from tiny import TINY

LINES = {
    "gated": ["+kernel=hope", "model.layer.gate=4", "model.layer.gate_act=gelu", "model.layer.bottleneck=4",
              "model.layer.final_act=id"],
    "gated_s4d": ["+kernel=s4d", "model.layer.gate=2", "model.layer.mult_act=gelu"],
    "rank_2": ["+kernel=s4", "model.layer.rank=2"],
    "legt": ["+kernel=s4", "model.layer.init=legt", "model.layer.rank=2"],
    "hippo": ["kernel=s4-hippo"],
    "hippo_by_length": ["kernel=s4-hippo", "model.layer.dt_min=null", "model.layer.dt_max=null",
                        "model.layer.l_max=80"],
    "s4d_real": ["kernel=s4d-real"],
    "dss": ["kernel=dss"],
    "dss_softmax": ["kernel=dss-softmax"],
    "stable": ["kernel=stable"],
    "stable_direct": ["kernel=stable", "model.layer.reparameterization=direct"],
    "lru": ["kernel=lru"],
    "rtf": ["kernel=rtf"],
    "rtf_as_published": ["kernel=rtf", "model.layer.truncation=none"],
    "conv": ["kernel=conv"],
    "conv_bidirectional": ["+kernel=conv", "model.layer.bidirectional=true", "model.layer.drop_kernel=0.1"],
    "two_layers": ["+kernel=hope", "model.bidirectional=true", "model.residual=A", "model.tie_dropout=false"],
    "pooled": ["+kernel=hope", "model.pool.stride=4", "model.pool.expand=2", "decoder.l_tail=4", "model.norm=batch"],
    "linear_pool": ["+kernel=hope", "model.pool._name_=linear", "model.pool.stride=2", "decoder.l_tail=4"],
    "maps": ["+kernel=hope", "model.layer.weight_norm=true", "model.layer.initializer=xavier", "model.norm=group"],
    "dropout": ["+kernel=hope", "model.dropout=0.2", "+model.layer.dropout=0.1", "+model.dropinp=0.1"],
    "host_layer": ["model/layer=s4d"],
    "rmsprop": ["optimizer=sgd", "optimizer._name_=rmsprop"],
}  # fmt: skip


def groups(name):
    folder = resources.files(CONFIG_MODULE).joinpath(name)
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_every_parameter_trains(line):
    task, data = build(compose([*TINY, *line]))
    before = {name: parameter.detach().clone() for name, parameter in task.named_parameters()}
    optimizer = task.configure_optimizers()["optimizer"]
    x, y = next(iter(data.train_dataloader()))
    for _ in range(2):
        optimizer.zero_grad()
        loss = task.loss(task(x), y)
        loss.backward()
        optimizer.step()
        assert math.isfinite(loss.item())
    still = [name for name, parameter in task.named_parameters() if torch.equal(parameter, before[name])]
    assert not still


@pytest.mark.parametrize(("pipeline", "scheduler"), diagonal(groups("pipeline"), groups("scheduler")))
def test_every_scheduler_goes_with_every_pipeline(pipeline, scheduler):
    """Nothing is left of the scheduler that a pipeline names itself."""
    config = compose([f"pipeline={pipeline}", f"scheduler={scheduler}", "optimizer.lr=0.01"])
    options = dict(config["scheduler"])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    SCHEDULERS[options.pop("_name_")](optimizer, **options)
    assert config["train"]["interval"] in ("epoch", "step")


@pytest.mark.parametrize("optimizer", groups("optimizer"))
def test_every_optimizer_is_built(optimizer):
    task, _ = build(compose([*TINY, f"optimizer={optimizer}"]))
    assert type(task.configure_optimizers()["optimizer"]).__name__.lower() == optimizer


def test_linear_warmup():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = linear_warmup(optimizer, num_training_steps=10, num_warmup_steps=2)
    rates = []
    for _ in range(13):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([0, 0.5, *(1 - k / 8 for k in range(9)), 0, 0])


def test_the_length_of_the_data_reaches_the_kernel_that_has_to_know():
    for l_noise in (16, 100):
        config = compose(["pipeline=noisy-digits", f"dataset.l_noise={l_noise}", "kernel=conv"])
        assert config["model"]["layer"]["l_max"] == 64 + l_noise
        assert compose(["pipeline=noisy-digits", "kernel=hope"])["model"]["layer"]["l_max"] is None
        task, data = build(config)
        assert task.model.layers[0].layer.layer.kernel.samples.shape[-1] == len(data.splits.train[0][0])


def test_the_old_and_the_host_s_way_to_name_a_kernel():
    assert compose([*TINY, "+kernel=s4d"]) == compose([*TINY, "kernel=s4d"])
    assert as_here(["+kernel=hope,s4", "+model.layer.x=1", "kernel=conv"]) == [
        "kernel=hope,s4", "+model.layer.x=1", "kernel=conv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"), [("64 + 16", 80), ("-(7 - 2) // 2 * 1.5", -4.5), (5, 5), ("7 % 4 / 2", 1.5)]
)
def test_arithmetic_in_configurations(text, value):
    assert arithmetic(text) == value


@pytest.mark.parametrize("text", ["__import__('os').getcwd()", "print(1)", "x", "'a' * 3", "True", "1 +", "[1]"])
def test_nothing_else_is_evaluated(text):
    with pytest.raises(ValueError, match="must be arithmetic of numbers"):
        arithmetic(text)


def test_a_padded_and_pooled_batch_is_its_sequences_one_by_one():
    """From the encoder to the decoder, which hears how long the pools leave each sequence."""
    config = compose([*TINY, "+kernel=hope", "model.pool.stride=2", "model.n_layers=2"])
    config["decoder"] = {"_name_": "sequence", "mode": "pool"}
    task = build(config)[0].double().eval()
    x, lengths = torch.randn(3, 24, 1, dtype=torch.float64), torch.tensor([24, 9, 4])
    together = task(x, lengths=lengths)
    alone = torch.cat([task(row[None, :n]) for row, n in zip(x, lengths, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)
