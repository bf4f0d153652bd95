"""Jobs of a Slurm that runs: the lines of docs/cluster.md. ``tools/slurm DIRECTORY`` starts one on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tiny import TINY

pytestmark = pytest.mark.slow
HOPE = Path(sys.executable).with_name("hope")
SUBMITIT = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=10", "hydra.launcher.cpus_per_task=1"]
SMALL = [*TINY, "kernel=hope", "+trainer.enable_progress_bar=false"]


@pytest.fixture(autouse=True)
def slurm(request):
    """Skip without a Slurm that answers, or fail under --require-slurm."""
    answers = shutil.which("sinfo") and subprocess.run(["sinfo"], capture_output=True).returncode == 0
    if not answers:
        problem = "no Slurm answers: tools/slurm DIRECTORY starts one, then source DIRECTORY/environment"
        (pytest.fail if request.config.getoption("--require-slurm") else pytest.skip)(problem)


def call(*words, directory, check=True) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(word) for word in words], cwd=directory, env=environment, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done.stdout + done.stderr


def until(condition, seconds=90):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.5)


def state(job: str) -> str:
    return call("squeue", "--noheader", "--job", job, "--format=%T", directory=".", check=False).strip()


def run_json(directory: Path) -> dict:
    return json.loads((directory / "run.json").read_text())


def test_a_sweep_and_the_same_line_again(tmp_path):
    line = [HOPE, "train", "-m", *SMALL, "train.seed=0,1", "hydra.sweep.dir=runs", "train.ckpt=auto", *SUBMITIT]
    call(*line, directory=tmp_path)
    assert sorted(path.parent.name for path in tmp_path.glob("runs/*/results.json")) == ["0", "1"]
    shutil.rmtree(tmp_path / "runs" / "1")
    before = run_json(tmp_path / "runs" / "0")
    call(*line, directory=tmp_path)
    assert run_json(tmp_path / "runs" / "0") == before
    assert run_json(tmp_path / "runs" / "1")["state"] == "finished"


def test_two_tasks_are_two_ranks_of_one_run(tmp_path):
    two = ["hydra.launcher.tasks_per_node=2", "trainer.devices=2", "trainer.strategy=ddp"]
    call(HOPE, "train", "-m", *SMALL, "train.seed=0", "hydra.sweep.dir=runs", *SUBMITIT, *two, directory=tmp_path)
    assert run_json(tmp_path / "runs" / "0")["state"] == "finished"
    logs = "".join(path.read_text() for path in tmp_path.glob("runs/.submitit/*/*.out"))
    assert logs.count("test/accuracy") == 1


def test_two_nodes_are_one_run(tmp_path):
    """By the launcher, and by a script of one's own: four ranks, two on each node, and one test of the model."""
    run = [*SMALL, "train.seed=0", "trainer.devices=2", "+trainer.num_nodes=2", "trainer.strategy=ddp"]
    nodes = ["hydra.launcher.nodes=2", "hydra.launcher.tasks_per_node=2"]
    call(HOPE, "train", "-m", *run, "hydra.sweep.dir=runs", *SUBMITIT, *nodes, directory=tmp_path)
    script = tmp_path / "job.sh"
    line = " ".join([str(HOPE), "train", *run, "hydra.run.dir=runs/1"])
    script.write_text(f"#!/bin/bash\n#SBATCH --nodes=2 --ntasks-per-node=2 --output=job.out\nsrun {line}\n")
    call("sbatch", "--wait", script, directory=tmp_path)
    by_launcher = "".join(path.read_text() for path in tmp_path.glob("runs/.submitit/*/*log.*"))
    for number, logs in enumerate([by_launcher, (tmp_path / "job.out").read_text()]):
        assert run_json(tmp_path / "runs" / str(number))["state"] == "finished"
        assert all(f"MEMBER: {rank}/4" in logs for rank in (1, 2, 3, 4)), logs
        assert logs.count("test/accuracy") == 1


@pytest.mark.parametrize("end", ["requeue", "cancel and submit again"])
def test_a_job_that_is_stopped_goes_on(tmp_path, end):
    """The signal reaches it, it saves after the step in progress, and the next job resumes there."""
    run = tmp_path / "run"
    command = [HOPE, "train", *SMALL, "trainer.max_epochs=2000", "hydra.run.dir=run", "train.ckpt=auto"]
    script = tmp_path / "job.sh"
    lines = [
        "#!/bin/bash",
        "#SBATCH --requeue --open-mode=append --output=job.log",
        "srun " + " ".join(map(str, command)),
    ]
    script.write_text("\n".join(lines) + "\n")
    job = call("sbatch", "--parsable", script, directory=tmp_path).strip()
    try:
        until(lambda: (run / "checkpoints" / "last.ckpt").is_file())
        if end == "requeue":
            call("scontrol", "requeue", job, directory=tmp_path)
            until(lambda: state(job) == "PENDING")
            call("scontrol", "update", f"JobId={job}", "StartTime=now", directory=tmp_path)  # not in two minutes
        else:
            call("scancel", job, directory=tmp_path)
            until(lambda: not state(job))
            assert run_json(run)["state"] == "interrupted"
            job = call("sbatch", "--parsable", script, directory=tmp_path).strip()
        until(lambda: run_json(run)["resumed_from"] and run_json(run)["state"] == "running", 180)
        rows = len((run / "metrics.csv").read_text().splitlines())
        until(lambda: len((run / "metrics.csv").read_text().splitlines()) > rows + 2)
        epochs = [line.split(",")[0] for line in (run / "metrics.csv").read_text().splitlines()[1:]]
        assert epochs == sorted(set(epochs), key=lambda epoch: int(float(epoch)))
    finally:
        call("scancel", job, directory=tmp_path)


def test_a_checkpoint_before_the_time_is_up(tmp_path):
    """``--signal`` sends SIGUSR1 within the first epoch: the run saves after the step in progress, and goes on."""
    run = tmp_path / "run"
    long_epoch = ["loader.batch_size=1", "dataset.l_noise=8000", "model.d_model=128", "trainer.limit_train_batches=1.0"]
    command = [HOPE, "train", *SMALL, *long_epoch, "hydra.run.dir=run", "train.ckpt=auto"]
    script = tmp_path / "job.sh"
    lines = ["#!/bin/bash", "#SBATCH --time=3 --signal=USR1@60", "srun " + " ".join(map(str, command))]
    script.write_text("\n".join(lines) + "\n")
    job = call("sbatch", "--parsable", script, directory=tmp_path).strip()
    try:
        until(lambda: (run / "checkpoints" / "last.ckpt").is_file(), 180)
        assert state(job) == "RUNNING"
        assert run_json(run)["state"] == "running"
        call("scancel", job, directory=tmp_path)
        until(lambda: not state(job))
        assert run_json(run)["state"] == "interrupted"
        assert not (run / "results.json").exists()
    finally:
        call("scancel", job, directory=tmp_path, check=False)
