"""Runs that are interrupted, killed or out of disk, and runs in two processes."""

from __future__ import annotations

import errno
import os
import signal

import pytest
import torch

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.run_directory import RunDirectory
from hope_ssm.workbench.training import TrainingInterrupted, train
from processes import in_a_process
from runs import LONGER, QUIET, StopAt, checkpoint, run, train_and_die
from tiny import TINY


def test_ctrl_c_keeps_the_last_checkpoint_and_says_how_to_resume(tmp_path):
    command = ["hope", "train", "kernel=hope", "train.ckpt=null"]
    with pytest.raises(
        TrainingInterrupted, match=r"to resume: hope train kernel=hope train.ckpt=.*last.ckpt hydra.run"
    ):
        run(tmp_path / "late", *LONGER, callbacks=[StopAt(1, KeyboardInterrupt)], command=command)
    assert RunDirectory(tmp_path / "late").state == "interrupted"
    assert checkpoint(tmp_path / "late" / "checkpoints" / "last.ckpt")["epoch"] == 0
    with pytest.raises(TrainingInterrupted, match="no checkpoint yet"):
        run(tmp_path / "early", *LONGER, callbacks=[StopAt(0, KeyboardInterrupt)], command=command)


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_last_checkpoint_stays_whole(tmp_path, monkeypatch):
    from pytorch_lightning import Trainer

    save = Trainer.save_checkpoint

    def full(self, path, *args, **kwargs):
        if self.current_epoch == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return save(self, path, *args, **kwargs)

    monkeypatch.setattr(Trainer, "save_checkpoint", full)
    with pytest.raises(
        OSError, match=r"must have room for checkpoints; got: No space left on device. Free some and go"
    ):
        run(tmp_path, *LONGER)
    assert checkpoint(tmp_path / "checkpoints" / "last.ckpt")["epoch"] == 1
    monkeypatch.undo()
    assert len(run(tmp_path, *LONGER, "train.ckpt=auto").history.epochs) == 4


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    """SIGKILL in a process of its own, in the middle of the third epoch."""
    overrides = [*TINY, *QUIET, *LONGER]
    whole = train(compose(overrides), tmp_path / "whole")
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on it
    killed = in_a_process(train_and_die, str(tmp_path / "killed"), *overrides, directory=tmp_path, environment=threads)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert RunDirectory(tmp_path / "killed").state == "killed"
    resumed = train(compose([*overrides, "train.ckpt=auto"]), tmp_path / "killed")
    assert len(resumed.history.step_seconds) == 2 * 3
    for name, value in whole.task.state_dict().items():
        assert torch.equal(resumed.task.state_dict()[name], value), name


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_on_the_same_global_batch(hope, tmp_path):
    common = ["train", *TINY, *QUIET, "trainer.max_epochs=3", "trainer.limit_train_batches=1.0"]
    common += ["trainer.limit_val_batches=1.0", "loader.num_workers=0"]
    one = hope(*common, "loader.batch_size=100", "hydra.run.dir=one")
    two = hope(*common, "loader.batch_size=50", "hydra.run.dir=two", "trainer.devices=2")
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    assert "2 processes" in two.stdout + two.stderr
    first, second = (RunDirectory(tmp_path / name).epochs for name in ("one", "two"))
    assert len(first) == len(second) == 3
    for a, b in zip(first, second, strict=True):
        assert b["train/loss"] == pytest.approx(a["train/loss"], rel=1e-4)
        assert b["val/loss"] == pytest.approx(a["val/loss"], rel=1e-4)
        assert a["step"] == b["step"]


@pytest.mark.slow
def test_spawned_processes_leave_the_run_of_those_of_the_command(tmp_path, hope):
    common = ["train", *TINY, *QUIET, "trainer.max_epochs=2", "loader.num_workers=0", "trainer.devices=2"]
    common += ["train.test=true", "trainer.limit_val_batches=1.0", "+trainer.limit_test_batches=1.0"]
    common = [word for word in common if word != "train.test=false" and not word.startswith("+trainer.limit_test")]
    for strategy in ("ddp", "ddp_spawn"):
        done = hope(*common, f"trainer.strategy={strategy}", f"hydra.run.dir={strategy}")
        assert done.returncode == 0, done.stderr
    first, second = (RunDirectory(tmp_path / name) for name in ("ddp", "ddp_spawn"))
    rows = [[{k: v for k, v in row.items() if "lr-" not in k} for row in run.epochs] for run in (first, second)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2
    assert set(first.results) == set(second.results)
    assert second.state == "finished"
