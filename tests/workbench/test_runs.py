"""Run directories: what they hold, exact resumption, another configuration, a kill, Ctrl-C, a full disk."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from pytorch_lightning.callbacks import Callback

from features import needs
from hope_ssm.cli.main import main
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.interruption import override
from hope_ssm.workbench.run_directory import RunDirectory
from hope_ssm.workbench.survey import find_runs
from runs import LONGER, QUIET, Stop, StopAt, checkpoint, run
from tiny import TINY


def test_a_run_directory_tells_how_it_came_about(tmp_path):
    command = ["hope", "train", "kernel=hope"]
    done = run(tmp_path, command=command)
    directory = RunDirectory(tmp_path)
    assert directory.state == "finished"
    info = directory.info
    assert info["versions"]["torch"] == torch.__version__
    assert info["overrides"] == ["kernel=hope"]
    assert info["parameters"] == sum(p.numel() for p in done.task.parameters())
    assert info["kernel_parameters"] == 8 * 8 + 8
    assert set(info["git"]) == {"working directory", "hope-ssm"}
    assert info["started"] <= info["ended"]
    assert directory.config == compose([*TINY, *QUIET])
    assert len(directory.epochs) == 1
    assert directory.epochs[0]["val/loss"] == pytest.approx(directory.results["val/loss"])
    assert directory.results["train/peak_memory_mib"] > 50
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert list(tmp_path.glob("csv/version_0/metrics.csv"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        [],
        pytest.param(
            ["train.ema=0.5", "model.norm=batch", "scheduler=cosine_warmup", "scheduler.num_training_steps=12"],
            marks=needs("train.ema"),
        ),
        ["loader.num_workers=2", "+loader.persistent_workers=true"],
    ],
)
def test_a_resumed_run_is_the_undisturbed_one_bit_for_bit(tmp_path, options):
    whole = run(tmp_path / "whole", *LONGER, *options)
    with pytest.raises(Stop):
        run(tmp_path / "broken", *LONGER, *options, callbacks=[StopAt(2)])
    assert RunDirectory(tmp_path / "broken").state == "failed"
    last = tmp_path / "broken" / "checkpoints" / "last.ckpt"
    resumed = run(tmp_path / "broken", *LONGER, *options, f"train.ckpt={last}")
    assert len(resumed.history.step_seconds) == 2 * 3
    assert resumed.history.epochs == whole.history.epochs
    assert RunDirectory(tmp_path / "broken").epochs == RunDirectory(tmp_path / "whole").epochs
    weights = resumed.task.state_dict()
    for name, value in whole.task.state_dict().items():
        assert torch.equal(weights[name], value), name
    for name in ("best", "last"):
        first, second = (checkpoint(tmp_path / d / "checkpoints" / f"{name}.ckpt") for d in ("whole", "broken"))
        assert all(torch.equal(first["state_dict"][key], second["state_dict"][key]) for key in first["state_dict"])


@pytest.mark.slow
def test_a_run_resumed_elsewhere_takes_its_best_checkpoint_along(tmp_path):
    monitor = ["train.monitor=train/loss", "train.mode=max", "optimizer.lr=0.05", "model.dropout=0.0"]
    with pytest.raises(Stop):
        run(tmp_path / "first", *LONGER, *monitor, callbacks=[StopAt(3)])
    losses = [epoch["train/loss"] for epoch in RunDirectory(tmp_path / "first").epochs]
    assert max(losses) == losses[0], "the first epoch is meant to be the best by this measure"
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    run(tmp_path / "second", *LONGER, *monitor, f"train.ckpt={last}")
    first, second = (checkpoint(tmp_path / d / "checkpoints" / "best.ckpt") for d in ("first", "second"))
    assert first["global_step"] == second["global_step"] == 3
    assert len(RunDirectory(tmp_path / "second").epochs) == 4


def test_another_configuration_is_refused_with_its_differences(tmp_path):
    run(tmp_path / "first")
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    changed = ["optimizer.lr=0.02", "model.n_layers=2", "trainer.max_epochs=2", f"train.ckpt={last}"]
    with pytest.raises(ValueError, match=r"must have the configuration of its checkpoint") as refused:
        run(tmp_path / "second", *changed)
    text = str(refused.value)
    assert "model.n_layers: 1 in the checkpoint, 2 here" in text
    assert "optimizer.lr: 0.001 in the checkpoint, 0.02 here" in text
    assert "scheduler.T_max: 1 in the checkpoint, 2 here" in text
    assert "max_epochs" not in text
    assert not (tmp_path / "second").exists()


def test_the_test_of_the_best_checkpoint_leaves_the_history_whole(tmp_path):
    done = run(tmp_path, *LONGER, "optimizer.lr=0.5", "train.test=true", "train.monitor=train/loss", "train.mode=max")
    assert [epoch["epoch"] for epoch in done.history.epochs] == [0, 1, 2, 3]
    assert len(RunDirectory(tmp_path).epochs) == 4


def test_another_global_batch_is_refused(tmp_path):
    run(tmp_path / "first")
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"loader.batch_size times processes: 50 in the checkpoint, 100 here"):
        run(tmp_path / "second", "trainer.devices=2", f"train.ckpt={last}")


def test_a_schedule_that_does_not_fit_is_said(tmp_path, caplog):
    caplog.set_level("WARNING", logger="hope_ssm.workbench")
    options = ["scheduler=cosine_warmup", "trainer.limit_train_batches=1.0", "train.test=false"]
    run(tmp_path / "a", *options, "loader.batch_size=600")
    assert "scheduler.num_training_steps=40000, but the training has about 2" in caplog.text
    caplog.clear()
    run(
        tmp_path / "b",
        *options,
        "loader.batch_size=600",
        "scheduler.num_training_steps=2",
        "scheduler.num_warmup_steps=1",
    )
    assert "num_training_steps" not in caplog.text


def test_paths_are_quoted_where_a_shell_needs_it():
    assert override("train.ckpt", Path("/a/b-c/last.ckpt")) == "train.ckpt=/a/b-c/last.ckpt"
    assert override("train.ckpt", Path("/a/x=1,y 2")) == shlex.quote("train.ckpt='/a/x=1,y 2'")


def test_a_directory_with_a_run_is_refused_and_left_alone(tmp_path):
    run(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(FileExistsError, match=r"holds a run \(finished\). Resume that one with train.ckpt=.*last.ckpt"):
        run(tmp_path)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_a_refused_command_changes_no_file_of_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = ["train", *TINY, *QUIET, "hydra.run.dir=here"]
    assert main(line) == 0
    before = {p: p.read_bytes() for p in Path("here").rglob("*") if p.is_file()}
    assert Path("here/.hydra/overrides.yaml") in before
    assert main([*line, "optimizer.lr=0.5"]) == 1
    assert "holds a run (finished)" in capsys.readouterr().err
    assert before == {p: p.read_bytes() for p in Path("here").rglob("*") if p.is_file()}


class Unwilling(Callback):
    def __init__(self, much: int) -> None:
        raise ValueError(f"much must be little; got {much}.")


def test_a_callback_that_refuses_its_options_leaves_no_run(tmp_path):
    with pytest.raises(Exception, match="much must be little; got 3"):
        run(tmp_path / "run", f"+callbacks.unwilling._target_={__name__}.Unwilling", "+callbacks.unwilling.much=3")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_auto_starts_resumes_and_skips(tmp_path):
    whole = run(tmp_path / "whole", *LONGER)
    with pytest.raises(Stop):
        run(tmp_path / "auto", *LONGER, "train.ckpt=auto", callbacks=[StopAt(1)])
    resumed = run(tmp_path / "auto", *LONGER, "train.ckpt=auto")
    assert resumed.history.epochs == whole.history.epochs
    before = (tmp_path / "auto" / "run.json").read_bytes()
    skipped = run(tmp_path / "auto", *LONGER, "train.ckpt=auto")
    assert skipped.history is None
    assert skipped.metrics == resumed.metrics
    assert (tmp_path / "auto" / "run.json").read_bytes() == before
    with pytest.raises(ValueError, match=r"model.layer.mode: hope in the checkpoint, s4d here"):
        run(tmp_path / "auto", *LONGER, "train.ckpt=auto", "kernel=s4d")
    longer = run(tmp_path / "auto", *LONGER, "train.ckpt=auto", "trainer.max_epochs=5", "scheduler.T_max=4")
    assert len(longer.history.epochs) == 5


@pytest.mark.slow
def test_the_loggers_that_are_asked_for(tmp_path, monkeypatch):
    run(tmp_path / "board", "train.tensorboard=true")
    assert list((tmp_path / "board" / "tensorboard").glob("events.*"))
    run(tmp_path / "none")
    assert not (tmp_path / "none" / "tensorboard").exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install wandb, or set wandb=null"):
        run(tmp_path / "wandb", "wandb={project: hope}")
    with pytest.raises(ImportError, match="needs TensorBoard: pip install tensorboard"):
        run(tmp_path / "absent", "train.tensorboard=true")


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["train.ema=1"], ValueError, "train.ema must be a finite number of at least 0 and below 1, or null; got 1"),
        (["+callbacks.early_stoping.patience=2"], ValueError, "got 'early_stoping'. Did you mean 'early_stopping'"),
        (["+callbacks.early_stopping.patients=2"], TypeError, "no option 'patients'.* Did you mean 'patience'"),
        (["train.tensorboard=maybe"], TypeError, "train.tensorboard must be true or false, or null; got 'maybe'"),
        (["loader.batch_size=0"], ValueError, "loader.batch_size must be a whole number of at least 1; got 0"),
        (["trainer.max_epochs=two"], ValueError, "trainer.max_epochs must be .* a whole number.*got 'two'"),
        (["train.monitor=val/acc"], ValueError, "train.monitor must be one of .* Did you mean 'val/accuracy'"),
        (["loader.batch_size=5000"], ValueError, "at least loader.batch_size=5000 training samples"),
    ],
)
def test_bad_options(tmp_path, overrides, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path, *overrides)


def test_named_callbacks_and_fast_dev_run(tmp_path):
    stopped = run(tmp_path / "early", *LONGER, "+callbacks.early_stopping={patience: 1, min_delta: 10}")
    assert len(stopped.history.epochs) == 2
    run(tmp_path / "fast", "+trainer.fast_dev_run=true", "train.test=true")
    assert not list((tmp_path / "fast").rglob("*.ckpt"))
    assert not (tmp_path / "fast" / "run.json").exists()


@pytest.mark.parametrize("options", [["+trainer.precision=bf16-mixed"], ["trainer.gradient_clip_val=0.1"]])
def test_trainer_options(tmp_path, options):
    done = run(tmp_path, *options)
    assert done.metrics["train/loss"] > 0


def test_runs_are_found_in_the_order_of_their_starts(tmp_path):
    run(tmp_path / "b")
    run(tmp_path / "deep" / "a")
    assert [r.path.name for r in find_runs(tmp_path)] == ["b", "a"]
    (tmp_path / "deep" / "a" / "config.yaml").write_text(yaml.safe_dump({}))
    with pytest.raises(ValueError, match="holds none"):
        find_runs(tmp_path / "b" / "csv")
    with pytest.raises(ValueError, match="is no directory"):
        find_runs(tmp_path / "absent")


def test_results_are_never_half_written(tmp_path):
    run(tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".results")]
