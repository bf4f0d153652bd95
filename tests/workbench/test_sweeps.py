"""Sweeps of the hope command: killed and started again, they leave the table of an undisturbed one."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from hope_ssm.workbench.run_directory import RunDirectory
from tiny import TINY

LONGER = ["trainer.max_epochs=6", "trainer.limit_train_batches=5", "loader.batch_size=20", "model.dropout=0.2"]
QUIET = ["+trainer.enable_progress_bar=false", "train.tensorboard=false"]
SWEEP = ["train", "-m", *TINY, *LONGER, *QUIET, "kernel=hope,s4,s4d", "train.seed=0,1", "train.ckpt=auto"]


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


def test_a_killed_sweep_started_again_gives_the_table_of_an_undisturbed_one(hope, tmp_path):
    whole = hope(*SWEEP, "hydra.sweep.dir=whole")
    assert whole.returncode == 0, whole.stderr
    command = [str(Path(sys.executable).with_name("hope")), *SWEEP, "hydra.sweep.dir=killed"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    process = subprocess.Popen(command, cwd=tmp_path, **quiet)
    jobs = [RunDirectory(tmp_path / "killed" / str(number)) for number in range(6)]
    deadline = time.monotonic() + 200
    while len(jobs[2].epochs) < 2:  # the third job is amid its epochs
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [job.state for job in jobs] == ["finished", "finished", "killed", "unknown", "unknown", "unknown"]
    before = [job.info for job in jobs[:2]]
    again = hope(*SWEEP, "hydra.sweep.dir=killed")
    assert again.returncode == 0, again.stderr
    assert [job.state for job in jobs] == ["finished"] * 6
    assert [job.info for job in jobs[:2]] == before, "finished jobs are skipped"
    assert jobs[2].info["resumed_from"], "the half-done one goes on"
    assert len(jobs[2].epochs) == 6
    assert table(hope, tmp_path / "whole") == table(hope, tmp_path / "killed")
