"""Short runs, and ways to stop them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch
from pytorch_lightning.callbacks import LambdaCallback

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.resuming import read_checkpoint
from hope_ssm.workbench.run_directory import RunDirectory
from hope_ssm.workbench.training import train
from processes import hope
from tiny import TINY

QUIET = ["+trainer.enable_progress_bar=false", "train.tensorboard=false", "kernel=hope", "train.test=false"]
LONGER = ["trainer.max_epochs=4", "model.dropout=0.2", "loader.batch_size=20", "trainer.limit_train_batches=3"]


def run(directory, *overrides, **options):
    return train(compose([*TINY, *QUIET, *overrides]), directory, **options)


def checkpoint(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


class Stop(Exception):  # noqa: N818
    pass


class StopAt:
    """A callback that ends the training in the middle of an epoch."""

    def __new__(cls, epoch: int, error: type[BaseException] = Stop):
        def stop(trainer, module, outputs, batch, index):
            if trainer.current_epoch == epoch and index == 1:
                raise error

        return LambdaCallback(on_train_batch_end=stop)


def train_and_die(directory: str, *overrides: str) -> None:
    """Train, and in the middle of the third epoch be killed."""
    from pytorch_lightning.callbacks import LambdaCallback

    def die(trainer, module, outputs, batch, index):
        if trainer.current_epoch == 2 and index == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    train(compose(list(overrides)), directory, callbacks=[LambdaCallback(on_train_batch_end=die)])


def sweep_and_die(*arguments: str) -> int:
    """The hope command, killed in the third epoch of a sweep's second job, before its checkpoint is written."""
    from pytorch_lightning import Trainer

    save = Trainer.save_checkpoint

    def save_or_die(self, path, *rest, **options):
        if self.current_epoch == 2 and Path(path).parts[-3] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return save(self, path, *rest, **options)

    Trainer.save_checkpoint = save_or_die
    return hope(*arguments)


class At(LambdaCallback):
    """Does something after batch ``index`` of an epoch."""

    def __init__(self, epoch, index, do):
        def look(trainer, module, outputs, batch, i):
            if (trainer.current_epoch, i) == (epoch, index):
                do(trainer)

        super().__init__(on_train_batch_end=look)


def assert_same(directory, whole):
    """Weights, best checkpoint, epochs and results of two runs, but for speed and memory."""
    for name in ("last", "best"):
        ours, theirs = (read_checkpoint(d / "checkpoints" / f"{name}.ckpt") for d in (directory, whole))
        assert ours["global_step"] == theirs["global_step"], name
        for key, value in theirs["state_dict"].items():
            assert torch.equal(ours["state_dict"][key], value), (name, key)
    assert RunDirectory(directory).epochs == RunDirectory(whole).epochs
    aside = {"train/steps_per_second", "train/peak_memory_mib"}
    ours, theirs = (RunDirectory(d).results for d in (directory, whole))
    assert {k: v for k, v in ours.items() if k not in aside} == {k: v for k, v in theirs.items() if k not in aside}
    assert min(ours[name] for name in aside) > 0
