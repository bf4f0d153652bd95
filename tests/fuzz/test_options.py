"""Overrides that nobody should mean: taken for what they say, or refused in a sentence before anything begins."""

from __future__ import annotations

import logging
import math
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import Callback

from hope_ssm.workbench.configuration import changed, compose
from hope_ssm.workbench.training import train
from hope_ssm.workbench.validation.configuration import GROUPS, checked
from hope_ssm.workbench.validation.rehearsal import in_memory
from mutations import BROKEN, KEYS, Case, Refused, cases, cases_of, parsed

LINE = [
    "pipeline=noisy-digits", "model=s4", "kernel=hope", "model.d_model=4", "model.n_layers=1", "model.layer.d_state=4",
    "dataset.l_noise=8", "loader.num_workers=0", "optimizer.lr=0.01", "train.test=false", "train.tensorboard=false",
    "trainer.accelerator=cpu", "trainer.max_epochs=1", "+trainer.enable_progress_bar=false",
    "trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "+trainer.limit_test_batches=1",
]  # fmt: skip


class Enough(Exception):  # noqa: N818
    pass


class OneEpoch(Callback):
    """What is taken need not be trained to its end."""

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        if trainer.current_epoch > 0:
            raise Enough


OTHERS = {  # other pipelines and kernels, as their names say
    "copying": "pipeline=copying dataset.n_train=40 dataset.n_eval=20 dataset.l_noise=8 kernel=s4d decoder.mode=pool",
    "adding": "pipeline=adding dataset.n_samples=60 dataset.l_max=20 kernel=lru",
    "delay": "pipeline=delay dataset.n_train=40 dataset.n_eval=20 dataset.l_seq=20 dataset.l_lag=5 kernel=rtf",
    "conv": "kernel=conv scheduler=multistep model.norm=batch",
    "s4": "kernel=s4 optimizer=sgd scheduler=step",
    "dss": "kernel=dss scheduler=plateau",
    "stable": "kernel=stable scheduler=constant_warmup",
    "chunks": "loader.chunk_len=24 train.state.mode=tbptt scheduler=linear_warmup",
}


@cache
def base(schedule: str) -> dict[str, Any]:
    more = OTHERS.get(schedule, f"scheduler={schedule}").split()
    given = {word.partition("=")[0] for word in more}
    line = [word for word in LINE if word.partition("=")[0] not in given]
    if more[0].startswith("pipeline="):  # not of digits
        line = ["loader.batch_size=10", *(word for word in line if not word.startswith("dataset."))]
    return compose([*line, *more])


def same(value: Any, meant: Any) -> bool:
    if isinstance(meant, list):
        return isinstance(value, list) and len(value) == len(meant) and all(map(same, value, meant))
    if isinstance(meant, float):
        return type(value) in (int, float) and math.isclose(value, meant)
    return type(value) is type(meant) and value == meant


def fault(case: Case, directory: Path) -> str | None:
    """What is wrong with how the product takes the case, or None."""
    meant: Any = Refused if case.text in BROKEN else case.meaning(parsed(case.text))
    try:
        config = changed(base(case.schedule), [case.override])
        train(config, directory, callbacks=[OneEpoch()])
    except Enough:
        pass
    except Exception as error:
        said = str(error)
        if directory.exists():
            return f"left a directory behind: {said}"
        named = case.key.split(".")[-1] in said or (meant is ... and any(f"{group}." in said for group in GROUPS))
        if not isinstance(error, (ValueError, TypeError, ImportError)) or not named:
            return f"obscure: {type(error).__name__}: {said}"
        return None if meant is Refused or meant is ... else f"refused wrongly: {said}"
    if meant is ...:
        return None
    if meant is Refused:
        return "silent: accepted"
    value = checked(config)
    for part in case.key.split("."):
        value = value[part]
    return None if same(value, meant) else f"silent: taken as {value!r}, not {meant!r}"


def faults(drawn: list[Case], directory: Path) -> list[str]:
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = [(case, fault(case, directory / str(i))) for i, case in enumerate(drawn)]
    finally:
        logging.disable(logging.NOTSET)
    return [f"{case.override}: {text}" for case, text in found if text]


@pytest.mark.slow
def test_every_option_means_what_it_says_or_is_refused(tmp_path):
    assert faults(cases(0, 200), tmp_path) == []


MEANT = [  # each was once taken for something else
    ("optimizer.maximize", "no", False), ("loader.drop_last", "no", False), ("train.test", "no", False),
    ("model.layer.bidirectional", "off", False), ("trainer.max_steps", "1e3", 1000),
]  # fmt: skip
NOT_MEANT = {
    "step": ["scheduler.gamma=false", "scheduler.gamma=-1"],
    "cosine_warmup": ["scheduler.num_warmup_steps=inf"],
    "multistep": ["scheduler.milestones=''", "scheduler.milestones=[a,b]", "scheduler.milestones=[]"],
    "plateau": ["scheduler.factor=-inf", "scheduler.patience=nan", "scheduler.patience=-1"],
    "cosine": ["trainer.accumulate_grad_batches=inf", "trainer.accumulate_grad_batches=0.5",
               "trainer.accumulate_grad_batches=-2", "scheduler.T_max=-1", "train.ema=''", "train.state.mode=[]",
               "trainer.fast_dev_run=''", "trainer.gradient_clip_val=-1", "model.dropout=[]",
               "trainer.log_every_n_steps=0", "optimizer=5", "model=[]", "trainer=text", "train.state=7",
               "callbacks=no", "wandb=yes", "callbacks.early_stopping=3", "model.layer=5", "dataset=[]"],
}  # fmt: skip


@pytest.mark.parametrize(("key", "text", "meant"), MEANT)
def test_words_and_numbers_are_understood(key, text, meant):
    value: Any = checked(changed(base("cosine"), [f"++{key}={text}"]))
    for part in key.split("."):
        value = value[part]
    assert same(value, meant)


@pytest.mark.parametrize(("schedule", "override"), [(key, line) for key, lines in NOT_MEANT.items() for line in lines])
def test_what_nobody_means_is_refused(schedule, override):
    key = override.partition("=")[0]
    with pytest.raises((ValueError, TypeError), match=key.replace(".", r"\.") + ".* must "):
        checked(changed(base(schedule), [f"++{override}"]))


def test_what_does_not_fit_into_memory_is_said_with_its_sizes():
    wanted = r"model must fit into memory; got .*model\.d_model=4, .*you tried to allocate"
    with pytest.raises(ValueError, match=wanted), in_memory("model", base("cosine")):
        torch.empty(2**46)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 26))
def test_every_option_means_what_it_says_or_is_refused_at_length(seed, tmp_path, request):
    if not request.config.getoption("--every-seed"):
        pytest.skip("5,000 cases take half an hour; --every-seed runs them")
    assert faults(cases(seed, 160), tmp_path) == []
    for name in OTHERS:
        assert faults(cases_of(base(name), name, seed, 5), tmp_path / name) == []


def test_the_fuzz_reaches_every_key():
    drawn = {case.key for seed in range(1, 26) for case in cases(seed, 200)}
    assert set(KEYS) <= drawn
