"""Signals, closed pipes, and the line that goes on with a run."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hope_ssm.cli.train import typed_flags
from hope_ssm.workbench.interruption import TrainingInterrupted, override, quoted
from hope_ssm.workbench.resuming import read_checkpoint
from hope_ssm.workbench.run_directory import RunDirectory
from runs import LONGER, QUIET, At, assert_same, run
from tiny import TINY

HOPE = str(Path(sys.executable).with_name("hope"))
ODD = [
    "two  spaces",
    "it's",
    "back\\slash",
    "ends in \\",
    "Übung/données",
    "a=1,b",
    "${x}",
    "\\${x}",
    "#(hash)",
    "{}[]",
]


def terminate(trainer):
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
def test_sigterm_is_an_interruption_with_a_checkpoint_of_its_moment(tmp_path):
    run(tmp_path / "whole", *LONGER)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TrainingInterrupted, match=r"^interrupted; to resume: hope train x=1 train.ckpt=.*") as stopped:
        run(tmp_path / "run", *LONGER, callbacks=[At(1, 1, terminate)], command=["hope", "train", "x=1"])
    assert stopped.value.status == 143
    assert str(stopped.value).endswith(f"hydra.run.dir={tmp_path / 'run'}")
    assert signal.getsignal(signal.SIGTERM) == before
    assert RunDirectory(tmp_path / "run").state == "interrupted"
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 3 + 2
    run(tmp_path / "run", *LONGER, "train.ckpt=auto")
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_a_second_sigterm_does_not_wait(tmp_path):
    def twice(trainer):
        terminate(trainer)
        terminate(trainer)

    with pytest.raises(TrainingInterrupted, match="there is no checkpoint yet"):
        run(tmp_path, *LONGER, callbacks=[At(0, 1, twice)])


def test_handlers_of_others_are_left_alone(tmp_path):
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    try:
        run(tmp_path, callbacks=[At(0, 0, lambda trainer: os.kill(os.getpid(), signal.SIGUSR1))])
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert heard == [1]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_path_survives_shell_and_hydra(tmp_path, name):
    from hydra import compose, initialize_config_module

    (word,) = shlex.split(override("train.ckpt", tmp_path / name))
    with initialize_config_module("hope_ssm.configs", version_base="1.3"):
        assert compose(config_name="config", overrides=[word]).train.ckpt == str(tmp_path / name)
    assert quoted("a", "/plain/path-1.0_b") == "a=/plain/path-1.0_b"


def test_what_hydra_takes_beside_overrides_is_in_the_line():
    typed = ["--config-dir", "my conf", "x=1", "-cn", "other", "--config-path=p", "-m", "--cfg", "job"]
    assert typed_flags(typed) == ["--config-dir", "my conf", "-cn", "other", "--config-path=p"]


@contextlib.contextmanager
def _begun(tmp_path, *words, **options):
    """Start the command and wait for its first checkpoint."""
    where = {"cwd": tmp_path, "env": {**os.environ, "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}, **options}
    command = [HOPE, "train", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **where) as process:
        try:
            deadline = time.monotonic() + 600
            while not list(tmp_path.rglob("last.ckpt")):
                assert process.poll() is None, process.stdout.read()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


ENDLESS = [*TINY, *(word for word in QUIET if not word.startswith("kernel=")), "trainer.max_epochs=100000"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_printed_line_goes_on_with_the_run(tmp_path, number, status):
    """From a configuration in a folder of one's own, in a directory with an odd name."""
    folder = tmp_path / "my conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "my.yaml").write_text("# @package _global_\ndefaults: [hope/noisy-digits]\n")
    words = [word for word in ENDLESS if not word.startswith(("pipeline=", "model="))]
    directory = quoted("hydra.run.dir", tmp_path / "it's  é $x\\")
    with _begun(
        tmp_path, "--config-dir", "my conf", "experiment=my", *words, directory,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:  # fmt: skip
        process.send_signal(number)
        text = process.communicate(timeout=600)[0].decode()
    assert process.returncode == status, text
    line = text.strip().splitlines()[-1]
    assert line.startswith("hope: interrupted; to resume: hope train --config-dir 'my conf' experiment=my"), line
    assert not line.endswith("."), "or the path would be another one"
    steps = read_checkpoint(next(tmp_path.rglob("last.ckpt")))["global_step"]
    command = line.partition("to resume: hope ")[2] + f" +trainer.max_steps={steps + 3}"
    again = subprocess.run(
        ["bash", "-c", f"{shlex.quote(HOPE)} {command}"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert read_checkpoint(next(tmp_path.rglob("last.ckpt")))["global_step"] == steps + 3


@pytest.mark.slow
def test_a_training_outlives_the_reader_of_its_output(tmp_path):
    words = shlex.join([HOPE, "train", *TINY, *QUIET, "trainer.max_epochs=3", "hydra.run.dir=run"])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {words} | head -1"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
    assert RunDirectory(tmp_path / "run").state == "finished"


@pytest.mark.slow
def test_a_process_that_changes_its_directory_finds_data_and_checkpoints(tmp_path, hope):
    (tmp_path / "mydata.py").write_text(
        "import torch\nfrom torch.utils.data import TensorDataset\nfrom hope_ssm.workbench.data import Splits\n"
        "def make():\n    d = [TensorDataset(torch.randn(16, 9, 2), torch.arange(16) % 2) for _ in range(3)]\n"
        "    return Splits(*d, d_input=2, d_output=2)\n"
    )
    words = ["pipeline=own", "dataset._target_=mydata.make", "kernel=hope", "model.d_model=4", "model.n_layers=1"]
    words += ["loader.batch_size=8", "trainer.accelerator=cpu", *QUIET[:2], "hydra.job.chdir=true"]
    done = hope("train", *words, "trainer.max_epochs=1", "scheduler.T_max=2", "hydra.run.dir=a")
    assert done.returncode == 0, done.stderr
    last = "train.ckpt=a/checkpoints/last.ckpt"
    done = hope("train", *words, "trainer.max_epochs=2", "scheduler.T_max=2", last, "hydra.run.dir=b")
    assert done.returncode == 0, done.stderr
    assert len(RunDirectory(tmp_path / "b").epochs) == 2


@pytest.mark.slow
def test_jobs_of_joblib_have_workers(tmp_path, hope):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = [
        *TINY,
        *QUIET,
        "train.seed=0,1",
        "loader.num_workers=1",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    ]
    done = hope("train", "-m", *words, "hydra.sweep.dir=s")
    assert done.returncode == 0, done.stderr
    assert [RunDirectory(tmp_path / "s" / job).state for job in "01"] == ["finished"] * 2
