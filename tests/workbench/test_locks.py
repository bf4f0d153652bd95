"""One writer at a time: in a run directory, and in a folder of data."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from hope_ssm.datasets.lra import listops
from hope_ssm.storage import alone, whole_file
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.run_directory import RunDirectory
from hope_ssm.workbench.training import train
from runs import LONGER, QUIET, Stop, StopAt, assert_same, run
from tiny import TINY

HOLD = """
import sys, time
from pathlib import Path
from hope_ssm.storage import alone
with alone(Path(sys.argv[1]), lambda: None):
    print("held", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def held_elsewhere(lock):
    with subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_run_directory_has_one_writer_and_a_killed_one_leaves_it_free(tmp_path):
    run(tmp_path / "whole", *LONGER)
    with pytest.raises(Stop):
        run(tmp_path / "run", *LONGER, callbacks=[StopAt(2)])
    with held_elsewhere(tmp_path / "run" / ".lock"):
        before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
        machine = RunDirectory(tmp_path / "run").info["machine"]
        with pytest.raises(
            FileExistsError, match=rf"must be free; another run writes to '.*run', process {machine['process']} on"
        ):
            run(tmp_path / "run", *LONGER, "train.ckpt=auto")
        assert before == {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    run(tmp_path / "run", *LONGER, "train.ckpt=auto")
    assert_same(tmp_path / "run", tmp_path / "whole")


def test_two_runs_begun_together_are_one(tmp_path):
    configurations = {seed: compose([*TINY, *QUIET, *LONGER, f"train.seed={seed}"]) for seed in (1, 2)}

    def begin(seed):
        try:
            return train(configurations[seed], tmp_path, callbacks=[])
        except FileExistsError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(begin, (1, 2)))
    (message,) = [end for end in ended if isinstance(end, str)]
    assert "must be" in message
    winner = 1 if ended[1] == message else 2
    assert RunDirectory(tmp_path).config["train"]["seed"] == winner


def test_makers_of_the_same_data_wait_for_each_other(tmp_path):
    with ThreadPoolExecutor(3) as pool:
        new = list(pool.map(lambda _: listops.make(tmp_path / "listops", seed=3, size=60), range(3)))
    assert sorted(new) == [False, False, True]
    assert sorted(p.name for p in (tmp_path / "listops").iterdir()) == [
        "basic_test.tsv", "basic_train.tsv", "basic_val.tsv", "hope-data.json"
    ]  # fmt: skip


def test_fetchers_of_the_same_archive_wait_for_each_other(tmp_path, monkeypatch):
    import time

    from hope_ssm.datasets.lra import fetching

    unpacked = []

    def slow(archive, source, folder):
        unpacked.append(archive)
        time.sleep(0.2)
        for name in source.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"x")

    monkeypatch.setattr(fetching, "unpack", slow)
    monkeypatch.setattr(fetching, "verify", lambda *_: "md5 0")
    (tmp_path / "archive").write_bytes(b"x")
    with ThreadPoolExecutor(3) as pool:
        new = list(pool.map(lambda _: fetching.fetch("cifar", tmp_path, tmp_path / "archive"), range(3)))
    assert sorted(new) == [False, False, True]
    assert len(unpacked) == 1


def test_a_lock_says_that_it_is_held_and_is_free_after_a_kill(tmp_path):
    said = []
    with held_elsewhere(tmp_path / "lock") as other:

        def busy():
            said.append(1)
            other.kill()

        with alone(tmp_path / "lock", busy, patience=0.05):
            assert said == [1]


def test_a_file_is_there_whole_or_as_it_was(tmp_path):
    path = tmp_path / "x"
    with whole_file(path) as file:
        file.write(b"old")

    def half():
        with whole_file(path) as file:
            file.write(b"new")
            assert path.read_bytes() == b"old"
            raise Stop

    with pytest.raises(Stop):
        half()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
