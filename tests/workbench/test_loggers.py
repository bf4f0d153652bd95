"""Runs of Weights & Biases: one for each run, named and grouped."""

from __future__ import annotations

import json

import pytest
from pytorch_lightning import Callback

from runs import LONGER, QUIET, Stop, StopAt, run
from tiny import TINY

wandb = pytest.importorskip("wandb")
OFFLINE = "wandb={project: hope, mode: offline}"


def offline(directory):
    return sorted(directory.rglob("offline-run-*"))


@pytest.mark.slow
def test_every_training_of_a_process_is_a_run_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    run(tmp_path / "first", OFFLINE)
    assert wandb.run is None
    with pytest.raises(Stop):
        run(tmp_path / "second", *LONGER, OFFLINE, callbacks=[StopAt(1)])
    assert wandb.run is None, "a failed one ends too"
    assert [len(offline(tmp_path / name)) for name in ("first", "second")] == [1, 1]


@pytest.mark.slow
def test_jobs_of_a_sweep_are_named_by_what_was_swept(tmp_path, hope):
    (tmp_path / "names.py").write_text(
        "import json, wandb\nfrom pytorch_lightning import Callback\nclass Names(Callback):\n"
        "    def on_train_end(self, trainer, module):\n"
        "        with open('names.jsonl', 'a') as file:\n"
        "            file.write(json.dumps([wandb.run.name, wandb.run.group, wandb.run.id]) + '\\n')\n"
    )
    done = hope(
        *("train", "-m", *TINY, *QUIET, "train.seed=0,1", OFFLINE, "+callbacks.names._target_=names.Names"),
        "hydra.sweep.dir=runs/sweep",
        PYTHONPATH=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "names.jsonl").read_text().splitlines()]
    assert [line[:2] for line in lines] == [["train.seed=0", "runs/sweep"], ["train.seed=1", "runs/sweep"]]
    assert len({line[2] for line in lines}) == 2
    assert len(offline(tmp_path)) == 2


class Interrupt(Callback):
    """Ctrl-C in the second epoch."""

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_an_interrupted_training_ends_its_run_too(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", *LONGER, OFFLINE, callbacks=[Interrupt()])
    assert wandb.run is None
    assert len(offline(tmp_path / "run")) == 1
