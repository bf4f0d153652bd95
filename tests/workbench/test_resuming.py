"""Exact resumption under every limit, from every checkpoint: of whole epochs, of the middle of one, of the best."""

from __future__ import annotations

import os
import signal

import pytest
from pytorch_lightning.callbacks import LambdaCallback

from features import needs
from hope_ssm.workbench.resuming import read_checkpoint
from hope_ssm.workbench.run_directory import RunDirectory
from runs import LONGER, At, Stop, StopAt, assert_same, run

SIX = ["trainer.limit_train_batches=6", "trainer.limit_val_batches=1", "optimizer.lr=0.02"]
LIMITS = {
    "max_epochs": [],
    "max_steps": ["trainer.max_epochs=null", "++trainer.max_steps=21", "scheduler.T_max=4"],
    "both": ["++trainer.max_steps=22"],
    "max_time": ["++trainer.max_time=00:01:00:00"],
    "val_check_interval": ["++trainer.val_check_interval=0.5"],
    "check_val_every_n_epoch": ["++trainer.check_val_every_n_epoch=2"],
    "accumulate_grad_batches": ["++trainer.accumulate_grad_batches=4"],
}
CONFIGURATIONS = {
    "averaged": ["train.ema=0.9", "model.norm=batch"],
    "plateau": ["scheduler=plateau", "scheduler.patience=0", "train.monitor=train/loss", "train.mode=min"],
    "chunks": ["loader.chunk_len=40", "++train.state={mode: tbptt}"],
    "workers": ["loader.num_workers=1"],
}


def stop(trainer):
    trainer.should_stop = True


def ask(trainer):
    os.kill(os.getpid(), signal.SIGUSR1)


def fail(trainer):
    raise Stop


def last(directory):
    return read_checkpoint(directory / "checkpoints" / "last.ckpt")


@pytest.mark.slow
@pytest.mark.parametrize("limit", LIMITS)
def test_a_run_stopped_in_mid_epoch_and_killed_in_the_next_is_the_undisturbed_one(tmp_path, limit):
    options = [*LONGER, *SIX, *LIMITS[limit]]
    run(tmp_path / "whole", *options)
    run(tmp_path / "run", *options, callbacks=[At(1, 3, stop)])  # a batch after which gradients were used, always
    assert RunDirectory(tmp_path / "run").state == "stopped"
    assert last(tmp_path / "run")["loops"]["fit_loop"]["epoch_loop.batch_progress"]["current"]["ready"] == 4
    with pytest.raises(Stop):
        run(tmp_path / "run", *options, "train.ckpt=auto", callbacks=[At(2, 4, fail)])
    again = run(tmp_path / "run", *options, "train.ckpt=auto")
    assert RunDirectory(tmp_path / "run").state == "finished"
    assert len(again.history.step_seconds) <= 12
    assert_same(tmp_path / "run", tmp_path / "whole")
    assert run(tmp_path / "run", *options, "train.ckpt=auto").history is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "configuration", [pytest.param(c, marks=needs("train.ema") if c == "averaged" else ()) for c in CONFIGURATIONS]
)
def test_a_checkpoint_asked_for_by_a_signal_is_exact(tmp_path, configuration):
    options = [*LONGER, *SIX, "++trainer.val_check_interval=0.5", *CONFIGURATIONS[configuration]]
    if configuration == "chunks":
        options = [option for option in options if "val_check" not in option]
    run(tmp_path / "whole", *options)
    with pytest.raises(Stop):
        run(tmp_path / "run", *options, callbacks=[At(1, 3, ask), At(1, 4, fail)])
    assert last(tmp_path / "run")["global_step"] == 6 + 4
    run(tmp_path / "run", *options, "train.ckpt=auto")
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_a_training_longer_than_its_steps_goes_on_from_the_middle_of_an_epoch(tmp_path):
    options = [*LONGER, *SIX]
    run(tmp_path / "whole", *options)
    run(tmp_path / "run", *options, "++trainer.max_steps=10")
    assert RunDirectory(tmp_path / "run").state == "finished"
    assert last(tmp_path / "run")["global_step"] == 10
    run(tmp_path / "run", *options, "++trainer.max_steps=24", "train.ckpt=auto")
    assert_same(tmp_path / "run", tmp_path / "whole")


@pytest.mark.slow
def test_the_best_checkpoint_of_the_middle_of_an_epoch_can_be_gone_on_with(tmp_path):
    options = [*LONGER, *SIX, "++trainer.val_check_interval=0.5", "train.monitor=val/loss", "train.mode=max"]
    options += ["trainer.limit_val_batches=3", "optimizer.lr=0.002"]  # slow enough for a loss that only falls
    run(tmp_path / "whole", *options)
    best = tmp_path / "whole" / "checkpoints" / "best.ckpt"
    assert read_checkpoint(best)["global_step"] % 6 == 3, "it is meant to be of the middle of an epoch"
    run(tmp_path / "run", *options, f"train.ckpt={best}")
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_a_checkpoint_that_cannot_be_gone_on_with_exactly_is_refused(tmp_path):
    options, midway = [*LONGER, *SIX], tmp_path / "midway.ckpt"
    save = LambdaCallback(on_validation_end=lambda trainer, _: trainer.save_checkpoint(midway))
    run(tmp_path / "run", *options, callbacks=[At(0, 2, stop), save])  # validates where no undisturbed training would
    assert read_checkpoint(midway)["global_step"] == 3
    assert not (tmp_path / "run" / "checkpoints" / "best.ckpt").exists()
    with pytest.raises(ValueError, match=r"cannot: it was made beside a validation that an undisturbed .* Take check"):
        run(tmp_path / "other", *options, f"train.ckpt={midway}")


@pytest.mark.slow
def test_early_stopping_holds_over_a_kill(tmp_path):
    options = [*LONGER, "++callbacks.early_stopping={patience: 1, min_delta: 10}", "train.test=true"]
    whole = run(tmp_path / "whole", *options)
    assert len(whole.history.epochs) == 2

    class Killed(LambdaCallback):
        def __init__(self):
            super().__init__(on_train_end=lambda *_: fail(None))

    with pytest.raises(Stop):
        run(tmp_path / "run", *options, callbacks=[Killed()])
    run(tmp_path / "run", *options, "train.ckpt=auto")
    assert_same(tmp_path / "run", tmp_path / "whole")
    longer = [option.replace("patience: 1", "patience: 2") for option in options]
    assert len(run(tmp_path / "run", *longer, "train.ckpt=auto").history.epochs) == 3, "asked for more"


@pytest.mark.slow
def test_results_of_a_run_killed_before_them_are_those_of_its_history(tmp_path, monkeypatch):
    options = [*LONGER, "train.test=true"]
    whole = run(tmp_path / "whole", *options)
    monkeypatch.setattr("pytorch_lightning.Trainer.test", lambda *_, **__: fail(None))
    with pytest.raises(Stop):
        run(tmp_path / "run", *options)
    monkeypatch.undo()
    assert not (tmp_path / "run" / "results.json").exists()
    again = run(tmp_path / "run", *options, "train.ckpt=auto")
    assert again.history.step_seconds == []
    assert_same(tmp_path / "run", tmp_path / "whole")
    assert set(RunDirectory(tmp_path / "run").results) == set(whole.metrics)


@pytest.mark.slow
def test_a_run_that_its_time_ended_goes_on_and_is_in_the_report(tmp_path):
    from hope_ssm.workbench.reports import report

    options = [*LONGER, "++trainer.max_time={seconds: 1e-6}"]
    run(tmp_path / "run", *options)
    assert RunDirectory(tmp_path / "run").state == "stopped"
    text = report.write(tmp_path, tmp_path / "report")
    assert "1 of 1 runs stopped before their last epoch" in text
    before = last(tmp_path / "run")["global_step"]
    run(tmp_path / "run", *options, "train.ckpt=auto")
    assert last(tmp_path / "run")["global_step"] > before
    run(tmp_path / "alone", *LONGER, "trainer.max_epochs=null", "scheduler.T_max=4", "++trainer.max_time={seconds: 1}")
    assert RunDirectory(tmp_path / "alone").state == "finished", "nothing but the time was to end it"


@pytest.mark.slow
def test_moved_copied_and_exchanged_runs_keep_their_own_best(tmp_path):
    worse = [*LONGER, "train.monitor=train/loss", "train.mode=max", "optimizer.lr=0.05", "model.dropout=0.0"]
    with pytest.raises(Stop):
        run(tmp_path / "a", *worse, callbacks=[StopAt(2)])
    (tmp_path / "a").rename(tmp_path / "b")
    run(tmp_path / "a", *worse, "train.seed=7", "trainer.max_epochs=1")  # another, at the old place
    run(tmp_path / "b", *worse, "train.ckpt=auto")
    best = read_checkpoint(tmp_path / "b" / "checkpoints" / "best.ckpt")
    assert best["global_step"] == 3, "the first epoch is the best by this measure"
    assert best["hyper_parameters"]["config"]["train"]["seed"] == 0


@pytest.mark.slow
def test_a_best_checkpoint_of_another_training_is_not_taken(tmp_path, caplog):
    with pytest.raises(Stop):
        run(tmp_path / "a", *LONGER, callbacks=[StopAt(2)])
    run(tmp_path / "b", *LONGER, "train.seed=7", "trainer.max_epochs=1")
    (tmp_path / "b" / "checkpoints" / "best.ckpt").replace(tmp_path / "a" / "checkpoints" / "best.ckpt")
    run(tmp_path / "a", *LONGER, "train.ckpt=auto", "train.test=true")
    assert "the best begins anew" in caplog.text
    best = read_checkpoint(tmp_path / "a" / "checkpoints" / "best.ckpt")
    assert best["hyper_parameters"]["config"]["train"]["seed"] == 0
