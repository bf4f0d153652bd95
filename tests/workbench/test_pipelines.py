"""Every pipeline trains a tiny model for an epoch, on its own data in small."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest
import torch
import yaml

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.data import DATASETS, builtin, lra
from hope_ssm.workbench.training import build, train
from tiny import TINY

ROOT = Path(__file__).parents[2]
MODEL = [option for option in TINY if option.startswith(("model", "trainer", "+trainer"))]
SMALL = {
    "noisy-digits": ["dataset.l_noise=16"],
    "mnist-5000": ["dataset.permute=true"],
    "noisy-mnist": ["dataset.l_noise=16"],
    "cifar": ["dataset.augment=true"],
    "noisy-cifar": ["dataset.l_noise=16", "dataset.grayscale=true"],
    "watch": ["loader.batch_size=3"],
    "delay": ["dataset.l_seq=64", "dataset.l_lag=16", "dataset.n_train=16", "dataset.n_eval=8"],
    "copying": ["dataset.l_noise=20", "dataset.n_train=16", "dataset.n_eval=8"],
    "adding": ["dataset.l_max=32", "dataset.n_samples=40"],
    "tones": ["dataset.l_seq=40", "dataset.l_tone=10", "dataset.n_train=16", "dataset.n_eval=8"],
    "listops": ["dataset.l_max=50"],
    "imdb": ["dataset.l_max=20", "dataset.min_freq=1"],
    "aan": ["dataset.l_max=20"],
    "pathfinder": ["dataset.resolution=16"],
    "listops-small": ["dataset.size=60"],
    "pathfinder-small": ["dataset.size=24"],
}


ALIASES = {"text": SMALL["imdb"], "retrieval": SMALL["aan"], "pathx": ["dataset.pool=16"]}


@pytest.fixture(autouse=True)
def _arena(lra_files, monkeypatch):
    monkeypatch.setenv("DATA_PATH", str(lra_files))


def options_of(pipeline, cifar_files):
    place = [f"+dataset.data_dir={cifar_files[0]}"] if "cifar" in pipeline else []
    return [f"pipeline={pipeline}", *MODEL, "loader.batch_size=4", *{**SMALL, **ALIASES}[pipeline], *place]


def test_every_data_set_has_a_pipeline_and_a_configuration():
    pipelines = {path.stem for path in (ROOT / "configs" / "pipeline").glob("*.yaml")}
    assert pipelines == {*SMALL, *ALIASES, "own", "forecasting"}
    ours = {builtin.__name__, lra.__name__}
    assert {name for name, make in DATASETS.items() if make.__module__ in ours} == set(SMALL)
    for name in SMALL:
        assert yaml.safe_load((ROOT / "configs" / "dataset" / f"{name}.yaml").read_text())["_name_"] == name


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", [*SMALL, *ALIASES])
def test_a_pipeline_trains(pipeline, tmp_path, cifar_files):
    config = compose([*options_of(pipeline, cifar_files), "kernel=hope"])
    metrics = train(config, tmp_path / "run", callbacks=[]).metrics
    wanted = {"loss", *config["task"]["metrics"]}
    assert {name for name in metrics if name.startswith("test/")} == {f"test/{name}" for name in wanted}
    assert all(math.isfinite(value) for value in metrics.values())
    assert config["train"]["monitor"] in metrics


@pytest.mark.parametrize("pipeline", SMALL)
def test_a_batch_gives_every_parameter_a_gradient(pipeline, cifar_files):
    task, data = build(compose([*options_of(pipeline, cifar_files), "kernel=hope"]))
    x, y, *context = next(iter(data.train_dataloader()))
    task.loss(task(x, **(context[0] if context else {})), y).backward()
    assert not [name for name, p in task.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "overrides"),
    [
        ("copying", ["dataset.one_hot=true", "encoder=linear"]),
        ("copying", ["dataset.lag=true", "encoder=onehot", "model.d_model=10"]),
        ("copying", ["dataset.variable=true", "dataset.reverse=true"]),
        ("cifar", ["dataset.grayscale=true", "dataset.tokenize=true", "encoder=embedding", "dataset.augment=false"]),
        ("delay", ["dataset.n_lag=3", "loader.chunk_len=20", "train.state.mode=tbptt", "dataset.static=true"]),
        ("watch", ["decoder.mode=last", "model.layer.bidirectional=true", "model.norm=batch"]),
        ("aan", ["decoder.nli=false", "decoder.activation=relu", "decoder.mode=last"]),
        ("imdb", ["dataset.val_split=0.5", "dataset.append_bos=true", "encoder=onehot", "model.d_model=64"]),
        ("pathfinder", ["dataset.tokenize=true", "encoder=embedding", "dataset.pool=2"]),
        ("adding", ["decoder.mode=sum", "task.loss=mae", "task.metrics=[mse,mae]"]),
    ],
)
def test_other_options_train_too(pipeline, overrides, tmp_path, cifar_files):
    config = compose([*options_of(pipeline, cifar_files), "kernel=hope", *overrides])
    assert math.isfinite(train(config, tmp_path / "run", callbacks=[]).metrics["test/loss"])


def test_the_memory_experiment_on_mnist_reads_off_the_noise():
    config = compose(["experiment=hope/noisy-mnist", "dataset.l_noise=8"])
    assert config["decoder"]["l_tail"] == 8
    assert compose(["experiment=hope/noisy-mnist", "kernel=s4d"])["model"]["layer"]["mode"] == "s4d"


@pytest.mark.parametrize("name", SMALL)
def test_every_option_of_a_data_set_can_be_given_on_the_command_line(name):
    """Without a "+": it stands in the configuration, but for the folder, which $DATA_PATH says."""
    listed = yaml.safe_load((ROOT / "configs" / "dataset" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert set(inspect.signature(DATASETS[name]).parameters) - {"data_dir"} <= set(listed)
