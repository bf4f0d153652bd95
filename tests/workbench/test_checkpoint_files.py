"""Checkpoints on the disk: whole, readable without code, and what happens where they cannot be written."""

from __future__ import annotations

import collections
import enum
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback

from hope_ssm.workbench.checkpoint_io import WholeCheckpointIO, plain
from hope_ssm.workbench.run_directory import RunDirectory
from runs import LONGER, QUIET, Stop, StopAt, checkpoint, run
from tiny import TINY


class Colour(str, enum.Enum):
    RED = "red"


def test_a_state_of_numpy_and_others_comes_back(tmp_path):
    state = {
        "double": np.float64(1.5), "half": np.float16(0.5), "whole": np.int64(3), "flag": np.bool_(True),
        "array": np.arange(6, dtype=np.float32).reshape(2, 3), "empty": np.zeros((0, 2)), "path": Path("a/b"),
        "colour": Colour.RED, "set": {1, 2}, "named": collections.namedtuple("Pair", "a b")(1, np.float32(2)),
        "deep": [{"x": (np.float64(0.1), [np.int8(1)])}], np.int64(4): None, "size": torch.Size([2]),
    }  # fmt: skip
    WholeCheckpointIO().save_checkpoint(
        {"callbacks": state, "state_dict": {}, "optimizer_states": [], "loops": {}, "hyper_parameters": {"config": {}}},
        tmp_path / "deep" / "x.ckpt",
    )
    found = WholeCheckpointIO().load_checkpoint(tmp_path / "deep" / "x.ckpt")["callbacks"]
    assert (found["double"], found["half"], found["whole"], found["flag"]) == (1.5, 0.5, 3, True)
    assert type(found["double"]) is float
    assert type(found["flag"]) is bool
    np.testing.assert_array_equal(found["array"], state["array"])
    assert found["array"].dtype == np.float32
    assert found["empty"].shape == (0, 2)
    assert (found["path"], found["colour"], found["set"], found["named"]) == ("a/b", "red", {1, 2}, (1, 2.0))
    assert found["deep"] == [{"x": (0.1, [1])}]
    assert found[4] is None


def test_what_could_not_be_read_back_is_refused_by_name():
    with pytest.raises(
        TypeError, match=r"the checkpoint\['callbacks'\]\['Keeper'\]\['when'\] must hold .*; got object"
    ):
        plain({"callbacks": {"Keeper": {"when": object()}}})
    with pytest.raises(TypeError, match=r"must be an array of numbers; got one of <U1"):
        plain({"names": np.array(["a"])})


def test_the_metadata_of_a_state_dict_stay():
    state = torch.nn.BatchNorm1d(2).state_dict()
    assert plain({"state_dict": state})["state_dict"]._metadata == state._metadata


@pytest.mark.slow
def test_a_callback_with_numpy_in_its_state_is_trained_tested_and_resumed(tmp_path):
    seen = []

    class Keeper(Callback):
        def state_dict(self):
            return {"best": np.float64(1.5), "curve": np.arange(3)}

        def load_state_dict(self, state):
            seen.append(state)

    run(tmp_path, "train.test=true", callbacks=[Keeper()])
    run(
        tmp_path,
        "train.test=true",
        "trainer.max_epochs=2",
        "scheduler.T_max=1",
        "train.ckpt=auto",
        callbacks=[Keeper()],
    )
    assert seen[0]["best"] == 1.5
    np.testing.assert_array_equal(seen[0]["curve"], np.arange(3))


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "empty", "noise", "absent"])
def test_a_last_checkpoint_that_cannot_be_read_gives_way_to_the_one_before(tmp_path, damage, caplog):
    whole = run(tmp_path / "whole", *LONGER)
    with pytest.raises(Stop):
        run(tmp_path / "run", *LONGER, callbacks=[StopAt(3)])
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = last.read_bytes()
    assert checkpoint(last.with_name("previous.ckpt"))["global_step"] == 6
    last.unlink()
    if damage != "absent":
        last.write_bytes({"cut": content[:-100], "empty": b"", "noise": os.urandom(1000)}[damage])
    again = run(tmp_path / "run", *LONGER, "train.ckpt=auto")
    assert damage == "absent" or "cannot be read; going on from" in caplog.text
    assert len(again.history.step_seconds) == 2 * 3
    for name, value in whole.task.state_dict().items():
        assert torch.equal(again.task.state_dict()[name], value), name
    assert not last.with_name("previous.ckpt").exists(), "a finished run needs one"


FULL = """
import resource, sys
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench import training
from pytorch_lightning import Callback
class Fill(Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    training.train(compose(sys.argv[3:]), sys.argv[1], callbacks=[Fill()], command=["hope", "train", "kernel=hope"])
except OSError as error:
    print("SAID", error)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file sizes")
@pytest.mark.parametrize("room", [20_000, 100])
def test_a_full_disk_leaves_the_checkpoints_and_says_so(tmp_path, room):
    """A limit of the size of files stands for the disk; 100 bytes is no room for run.json either."""
    options = [*TINY, *QUIET, *LONGER]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "run"), str(room), *options], capture_output=True, text=True
    )
    said = [line for line in done.stdout.splitlines() if line.startswith("SAID")]
    assert len(said) == 1, done.stdout + done.stderr
    assert "must have room for checkpoints" in said[0]
    assert str(tmp_path / "run") in said[0]
    assert said[0].endswith(f"hydra.run.dir={tmp_path / 'run'}")
    directory = RunDirectory(tmp_path / "run")
    assert checkpoint(directory.path / "checkpoints" / "last.ckpt")["epoch"] == 1
    assert checkpoint(directory.path / "checkpoints" / "best.ckpt")["epoch"] <= 1
    assert directory.state in ("failed", "killed")
    assert not list(directory.path.rglob("*.partial"))
    assert len(run(tmp_path / "run", *LONGER, "train.ckpt=auto").history.epochs) == 4


def test_checkpoints_that_can_no_longer_be_written_end_the_run(tmp_path):
    class Spoil(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 2:
                (tmp_path / "run" / "checkpoints").rename(tmp_path / "gone")
                (tmp_path / "run" / "checkpoints").write_text("a file")

    with pytest.raises(OSError, match=r"the run directory '.*run' must stay writable; got: .* Mend that and go on: "):
        run(tmp_path / "run", *LONGER, callbacks=[Spoil()])
    assert RunDirectory(tmp_path / "run").state == "failed"


def test_a_trained_model_and_its_run_can_be_pickled(tmp_path):
    import io
    import pickle

    import hope_ssm

    done = run(tmp_path)
    model = hope_ssm.load(tmp_path)
    x = torch.rand(2, 20, 1)
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(x), model(x))
    buffer = io.BytesIO()
    torch.save(model, buffer)
    assert pickle.dumps(done.metrics)
