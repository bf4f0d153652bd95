"""Sweeps of the hope command: killed and started again, they leave the table of an undisturbed one."""

from __future__ import annotations

import csv
import signal

import pytest

from hope_ssm.workbench.run_directory import RunDirectory
from processes import in_a_process
from runs import sweep_and_die
from tiny import TINY

LONGER = ["trainer.max_epochs=4", "trainer.limit_train_batches=2", "loader.batch_size=20", "model.dropout=0.2"]
QUIET = ["+trainer.enable_progress_bar=false", "train.tensorboard=false"]
SWEEP = ["train", "-m", *TINY, *LONGER, *QUIET, "kernel=hope,s4d", "train.seed=0,1", "train.ckpt=auto"]


def table(hope, place):
    """The lines of the report without speed and memory."""
    done = hope("report", str(place), "--baseline", "s4d")
    assert done.returncode == 0, done.stderr
    assert "Left out" not in done.stdout
    found = []
    for name in ("report.csv", "comparison.csv"):
        with (place / "report" / name).open() as file:
            found += [{k: v for k, v in line.items() if not k.startswith("train/")} for line in csv.DictReader(file)]
    return found


@pytest.mark.slow
def test_a_killed_sweep_started_again_gives_the_table_of_an_undisturbed_one(hope, tmp_path):
    """SIGKILL in the third epoch of the second job, before its checkpoint is written."""
    whole = hope(*SWEEP, "hydra.sweep.dir=whole")
    assert whole.returncode == 0, whole.stderr
    killed = in_a_process(sweep_and_die, *SWEEP, "hydra.sweep.dir=killed", directory=tmp_path)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    jobs = [RunDirectory(tmp_path / "killed" / str(number)) for number in range(4)]
    assert [job.state for job in jobs] == ["finished", "killed", "unknown", "unknown"]
    before = jobs[0].info
    again = hope(*SWEEP, "hydra.sweep.dir=killed")
    assert again.returncode == 0, again.stderr
    assert [job.state for job in jobs] == ["finished"] * 4
    assert jobs[0].info == before, "finished jobs are skipped"
    assert jobs[1].info["resumed_from"], "the half-done one goes on"
    assert len(jobs[1].epochs) == 4
    assert table(hope, tmp_path / "whole") == table(hope, tmp_path / "killed")
