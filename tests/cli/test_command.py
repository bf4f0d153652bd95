"""The hope command in its own process: the override line of the host, sweeps, two ranks, and one sentence an error."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hope_ssm.cli.main import COMMANDS, main
from tiny import TINY


def results(root: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(root.rglob("results.json"))]


@pytest.mark.slow
def test_the_same_override_line_as_in_the_host(hope, tmp_path):
    done = hope("train", *TINY, "model.layer.mode=hope")
    assert done.returncode == 0, done.stderr
    assert "markov_parameters" in done.stdout + done.stderr
    assert "test/accuracy" in done.stdout
    assert len(results(tmp_path / "outputs")) == 1
    assert list((tmp_path / "outputs").rglob("config.yaml"))


@pytest.mark.slow
def test_a_sweep_over_kernels(hope, tmp_path):
    done = hope("train", "-m", *TINY, "kernel=hope,s4d")
    assert done.returncode == 0, done.stderr
    assert len(results(tmp_path / "multirun")) == 2


@pytest.mark.slow
def test_two_ranks_on_the_cpu(hope, tmp_path):
    done = hope("train", *TINY, "kernel=hope", "trainer.devices=2", "trainer.strategy=ddp")
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stdout + done.stderr
    assert len(results(tmp_path / "outputs")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_two_ranks_in_every_job_of_a_sweep(hope, tmp_path, launcher):
    """The second rank is of the present job alone, also where a launcher's worker runs it."""
    two = ["trainer.devices=2", "trainer.strategy=ddp", "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}"]
    alone = ["hydra.launcher.n_jobs=1"] if launcher == "joblib" else []
    done = hope("train", "-m", *TINY, "kernel=hope", "train.seed=0,1", *two, *alone)
    assert done.returncode == 0, done.stderr
    assert sorted(path.parent.name for path in tmp_path.rglob("results.json")) == ["0", "1"]
    assert not list((tmp_path / "outputs").rglob("*.yaml"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "pipeline=nosy-digits"], "got 'nosy-digits'. Did you mean 'noisy-digits'?"),
        (["train", *TINY, "model.layer.mode=hop"], "got 'hop'. Did you mean 'hope'?"),
        (["train", *TINY, "model.layer.d_stat=3"], "Did you mean 'd_state'?"),
        (["train", *TINY, "experiment=hope/noisydigits"], "got 'noisydigits'. Did you mean 'noisy-digits'?"),
        (["train", *TINY, "kernal=hope"], "has no key 'kernal'"),
        (["train", *TINY, "pipeline=noisy-cifar"], "data_batch_1.bin is not there. Unpack cifar-10-binary.tar.gz in"),
        (["train", "pipeline=own"], "must be package.module.function"),
        (["train", *TINY, "kernel=hope", "model.layer.dt_min=-1"], "dt_min must be a finite number above 0; got -1"),
        (["train", *TINY, "kernel=hope", "train.ckpt=nothing.ckpt"], "'nothing.ckpt' is no file"),
        (["trian"], "got 'trian'. Did you mean 'train'?"),
    ],
)
def test_an_error_is_one_sentence_without_traceback(hope, arguments, message):
    done = hope(*arguments)
    assert done.returncode not in (0, None)
    assert message in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr + done.stdout
    assert "Error executing job" not in done.stderr


@pytest.mark.slow
def test_no_traceback_from_the_second_rank_either(hope):
    done = hope("train", *TINY, "kernel=hope", "trainer.devices=2", "trainer.strategy=ddp", "optimizer.lr=1e30")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout


def test_the_full_traceback_on_request(hope):
    done = hope("train", *TINY, "model.layer.mode=hop", HYDRA_FULL_ERROR="1")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_diverging_run_stops_and_names_the_layer(hope, tmp_path):
    done = hope("train", *TINY, "kernel=hope", "optimizer.lr=1e30", "trainer.limit_train_batches=9")
    assert done.returncode == 1
    assert "the loss must stay finite" in done.stderr
    assert "model.layers.0" in done.stderr.strip().splitlines()[-1]
    assert not results(tmp_path)


def test_help_version_and_kernels(hope):
    assert "hope train" in hope("--help").stdout
    assert hope("--version").stdout.startswith("hope-ssm ")
    table = hope("kernels").stdout
    assert "parameters per system" in table
    assert any(line.split()[:2] == ["hope", "hankel"] and "hope-ssm" in line for line in table.splitlines())
    groups = hope("train", "--help").stdout
    (kernels,) = (line for line in groups.splitlines() if line.startswith("kernel: "))
    assert {"hope", "s4", "s4d", "lru", "conv"} <= set(kernels.removeprefix("kernel: ").split(", "))


@pytest.mark.slow
def test_the_demo_prints_what_it_trained(hope, tmp_path):
    tiny = [
        "dataset.l_noise=16",
        "decoder.l_tail=4",
        "trainer.max_epochs=2",
        "trainer.limit_train_batches=2",
        "model.d_model=8",
    ]
    done = hope("demo", "--seeds", "2", "--out", "here", *tiny)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(("| hope", "| s4d", "| s4 "))]
    assert len(rows) == 3
    saved = json.loads((tmp_path / "here" / "results.json").read_text())["rows"]
    runs = list((tmp_path / "here").glob("*-seed*/results.json"))
    assert len(runs) == 6
    measured = {json.loads(run.read_text())["test/accuracy"] for run in runs}
    assert measured == {accuracy for row in saved for accuracy in row["accuracies"]}
    assert (tmp_path / "here" / "memory.png").stat().st_size > 10_000


def test_the_bar_of_the_demo_counts_the_steps_of_a_run(tmp_path):
    """From the first step on it knows how many there are."""
    from hope_ssm.figures import memory_experiment

    seen = []
    tiny = ["dataset.l_noise=16", "decoder.l_tail=4", "trainer.max_epochs=2", "trainer.limit_train_batches=3"]
    rows = memory_experiment.settings()[:1]
    memory_experiment.run(
        rows,
        [0],
        tmp_path,
        [*tiny, "model.d_model=4"],
        lambda row, seed: lambda done, total: seen.append((done, total)),
    )
    assert seen == [(step, 6) for step in range(1, 7)]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys, monkeypatch):
    """None of them fails, whatever argparse or Hydra makes of the descriptions."""
    monkeypatch.setattr(sys, "argv", ["hope", command, "--help"])
    try:
        status = main([command, "--help"])
    except SystemExit as end:
        status = end.code
    assert status in (0, None)
    assert len(capsys.readouterr().out) > 100
