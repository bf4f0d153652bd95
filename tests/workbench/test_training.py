"""Training in one process: parameter groups, every parameter trains, results, resume, non-finite losses."""

from __future__ import annotations

import csv
import json
import math
import os
from contextlib import nullcontext

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from hope_ssm.layers.parameter_groups import parameter_groups
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.optimization import cosine_warmup
from hope_ssm.workbench.task import NonFiniteLossError
from hope_ssm.workbench.training import build, describe, train
from tiny import TINY

QUIET = "+trainer.enable_progress_bar=false"
EXPERIMENTS = [(e, k) for e in ("hope/noisy-digits", "base") for k in ("hope", "s4d", "s4")]


def trained(tmp_path, *overrides):
    return train(compose([*TINY, QUIET, *overrides]), tmp_path)


def test_markov_parameters_are_in_the_global_group():
    task, _ = build(compose([*TINY, "model.layer.mode=hope", "model.n_layers=2", "optimizer.weight_decay=0.05"]))
    groups = parameter_groups(task)
    first = groups[0]
    assert set(first) == {"params", "names"}
    held = [p for n, p in zip(first["names"], first["params"], strict=True) if n.endswith("markov_parameters")]
    assert [p.numel() for p in held] == [8 * 8, 8 * 8]
    periods = next(g for g in groups if any(n.endswith("raw_sampling_period") for n in g["names"]))
    assert periods["lr"] == 0.001
    assert periods["weight_decay"] == 0.0
    no_decay = next(g for g in groups if any(n.endswith("bias") for n in g["names"]))
    assert no_decay["weight_decay"] == 0.0
    assert "lr" not in no_decay
    assert sum(len(g["params"]) for g in groups) == len(list(task.parameters()))
    assert "lr 0.001" in describe(task)


@pytest.mark.parametrize(("experiment", "kernel"), EXPERIMENTS)
def test_every_parameter_trains_under_every_shipped_configuration(experiment, kernel):
    small = ["model.d_model=8", "model.n_layers=2", "dataset.l_noise=16"]
    task, data = build(compose([f"experiment={experiment}", f"kernel={kernel}", *small]))
    before = {name: parameter.detach().clone() for name, parameter in task.named_parameters()}
    optimizer = task.configure_optimizers()["optimizer"]
    x, y = next(iter(data.train_dataloader()))
    for _ in range(2):
        optimizer.zero_grad()
        task.loss(task(x), y).backward()
        optimizer.step()
    still = [name for name, parameter in task.named_parameters() if torch.equal(parameter, before[name])]
    assert not still


SWITCHES = ["+trainer.deterministic=true", "+trainer.deterministic=warn", "+trainer.benchmark=true"]


def switches():
    return (
        torch.get_deterministic_debug_mode(),
        torch.backends.cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.mark.parametrize("more", ["train.test=false", "trainer.limit_train_batches=0.0001"], ids=["trained", "refused"])
@pytest.mark.parametrize("override", SWITCHES)
def test_the_next_training_of_the_process_has_none_of_these_options(override, more, tmp_path):
    before, within = switches(), []

    class Look(Callback):
        def on_train_start(self, trainer, module):
            within.append(switches())

    refused = "limit" in more  # after Lightning's trainer was made
    with pytest.raises(ValueError, match="limit_train_batches") if refused else nullcontext():
        train(compose([*TINY, QUIET, "trainer.max_epochs=1", override, more]), tmp_path / "run", callbacks=[Look()])
    assert refused or within != [before]
    assert switches() == before


def test_norms_of_the_layers_are_logged(tmp_path):
    trained(tmp_path, "model.track_norms=true")
    (line,) = csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines())
    assert float(line["norm/0"]) > 0
    assert float(line["norm/1"]) > 0


def test_a_run_leaves_results_metrics_and_checkpoints(tmp_path):
    run = trained(tmp_path, "kernel=hope")
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved == pytest.approx(run.metrics)
    assert 0 <= saved["test/accuracy"] <= 1
    assert math.isfinite(saved["test/loss"])
    assert saved["train/steps_per_second"] > 0
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (tmp_path / "metrics.csv").exists()


def test_the_same_seed_gives_the_same_run_and_another_does_not(tmp_path):
    first = trained(tmp_path / "a", "kernel=hope")
    again = trained(tmp_path / "b", "kernel=hope")
    other = trained(tmp_path / "c", "kernel=hope", "train.seed=1")
    assert first.metrics["val/loss"] == again.metrics["val/loss"]
    assert first.metrics["val/loss"] != other.metrics["val/loss"]


def test_an_unreadable_checkpoint_is_refused(tmp_path):
    (tmp_path / "broken.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match=r"broken.ckpt' cannot be read"):
        trained(tmp_path / "run", "kernel=hope", f"train.ckpt={tmp_path / 'broken.ckpt'}")
    torch.save({"weights": 1}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other.ckpt' is another file"):
        trained(tmp_path / "run", "kernel=hope", f"train.ckpt={tmp_path / 'other.ckpt'}")


def test_a_checkpoint_of_another_kernel_is_refused(tmp_path):
    trained(tmp_path / "first", "kernel=hope")
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"model.layer.mode: hope in the checkpoint, s4d here"):
        trained(tmp_path / "second", "kernel=s4d", "trainer.max_epochs=2", f"train.ckpt={last}")


def test_a_non_finite_loss_stops_the_run_and_names_the_parameter(tmp_path):
    task, data = build(compose([*TINY, QUIET, "kernel=hope"]))
    with torch.no_grad():
        task.model.layers[0].layer.layer.kernel.markov_parameters[0, 3, 2] = math.inf
    batch = next(iter(data.train_dataloader()))
    task.log_dict = lambda *args, **kwargs: None
    with pytest.raises(NonFiniteLossError, match=r"parameter model.layers.0.layer.layer.kernel.markov_parameters"):
        task.training_step(batch, 0)


@pytest.mark.parametrize(("part", "place"), [(0, "the input data"), (1, "the targets")])
def test_data_that_is_not_finite_is_no_matter_of_the_learning_rate(part, place):
    task, data = build(
        compose([*TINY, QUIET, "kernel=hope", "task.loss=mse", "task.metrics=[]", "train.monitor=val/loss"])
    )
    x, target = next(iter(data.train_dataloader()))
    batch = [x, target.float().unsqueeze(-1).expand(-1, 10).clone()]
    batch[part].view(-1)[0] = math.nan
    task.log_dict = lambda *args, **kwargs: None
    with pytest.raises(
        NonFiniteLossError, match=f"first in {place}. Look for infinite or NaN numbers in the data; no l"
    ):
        task.training_step(tuple(batch), 0)


def test_what_stands_in_the_padding_is_not_blamed():
    task, data = build(compose([*TINY, "kernel=hope"]))
    x, target = next(iter(data.train_dataloader()))
    lengths = torch.full((len(x),), x.shape[1] - 1)
    x[:, -1] = math.nan
    assert task.first_non_finite(x, target, {"lengths": lengths}) == "the loss itself"


def test_a_non_finite_layer_is_named():
    task, data = build(compose([*TINY, "kernel=hope"]))
    x, _ = next(iter(data.train_dataloader()))
    assert task.first_non_finite(x) == "the loss itself"
    assert task.first_non_finite(x * math.nan) == "the input data"
    with torch.no_grad():
        task.encoder.weight.fill_(3e38)
    assert task.first_non_finite(x).startswith("the layer ")


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["+trainer.max_epoch=3"], TypeError, "trainer has no option 'max_epoch'.* Did you mean 'max_epochs'"),
        (["optimizer.lr=abc"], TypeError, "optimizer.lr must be a finite number above 0; got 'abc'"),
        (["optimizer.lr=-1"], ValueError, "optimizer.lr must be a finite number above 0; got -1"),
        (["+optimizer.momentun=1"], TypeError, "optimizer 'adamw' has no option 'momentun'"),
        (["train.interval=epochs"], ValueError, "train.interval must be one of 'epoch', 'step'"),
        (["+modle.n=1"], ValueError, "no group 'modle'.* Did you mean 'model'"),
        (["~decoder"], ValueError, "it lacks decoder"),
        (["model.prenorm=maybe"], TypeError, "prenorm must be true or false; got 'maybe'"),
        (["train.seed=abc"], TypeError, "train.seed must be a whole number of at least 0; got 'abc'"),
        (["task.metrics=accuracy"], TypeError, "task.metrics must be a list, each one of .*; got 'accuracy'"),
        (["model.norm=laye"], ValueError, "norm must be one of .* Did you mean 'layer'"),
        (["+model.layers=2"], TypeError, "model 'model' has no option 'layers'.* Did you mean 'layer'"),
    ],
)
def test_bad_configurations(overrides, error, message, tmp_path):
    with pytest.raises(error, match=message):
        trained(tmp_path, *overrides)


def test_warmup_schedules():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = cosine_warmup(optimizer, num_training_steps=10, num_warmup_steps=2)
    rates = []
    for _ in range(11):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:3] == [0.0, 0.5, 1.0]
    assert rates[6] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0.0, abs=1e-12)
