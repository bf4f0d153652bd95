"""Every parameter of Lightning's Trainer: trained with, or refused before anything begins."""

from __future__ import annotations

import inspect

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.training import train
from hope_ssm.workbench.validation.kinds import Refused
from hope_ssm.workbench.validation.trainer import TRAINER
from runs import run
from tiny import TINY

PARAMETERS = tuple(inspect.signature(pl.Trainer).parameters)
REFUSED = {key: kind for key, kind in TRAINER.items() if isinstance(kind, Refused)}
TOGETHER = [  # values that go together, each key at least once
    {"accelerator": "cpu", "strategy": "auto", "devices": 1, "num_nodes": 1, "precision": "bf16-mixed",
     "sync_batchnorm": "no", "use_distributed_sampler": "yes", "benchmark": "off", "deterministic": "warn",
     "inference_mode": "on", "enable_autolog_hparams": "no"},
    {"max_epochs": 3, "min_epochs": 1, "max_steps": 4, "min_steps": 2, "max_time": "'00:00:10:00'",
     "limit_train_batches": 3, "limit_val_batches": 1, "limit_test_batches": 0, "accumulate_grad_batches": 2,
     "check_val_every_n_epoch": 1, "val_check_interval": 0.5, "num_sanity_val_steps": 1},
    {"overfit_batches": 2, "gradient_clip_val": 0.5, "gradient_clip_algorithm": "value", "detect_anomaly": "yes",
     "log_every_n_steps": 1, "enable_progress_bar": "no", "enable_model_summary": "no", "profiler": "simple"},
    {"fast_dev_run": 2},
]  # fmt: skip
IN_WORDS = ["fast_dev_run", "enable_progress_bar", "inference_mode"]


def test_the_table_has_every_parameter():
    """Also those of a newer Lightning, whose options somebody has to look at."""
    assert set(PARAMETERS) <= set(TRAINER)
    assert {key for options in TOGETHER for key in options} | set(REFUSED) >= set(PARAMETERS)


@pytest.mark.parametrize("options", TOGETHER, ids=lambda options: next(iter(options)))
def test_what_is_taken_trains(options, tmp_path):
    known = {key: value for key, value in options.items() if key in PARAMETERS}
    done = run(tmp_path, *(f"++trainer.{key}={value}" for key, value in known.items()))
    assert done.metrics["train/loss"] > 0


@pytest.mark.parametrize("key", [key for key in REFUSED if key in PARAMETERS])
def test_what_is_the_workbench_s_own_is_refused_with_the_way_to_it(key, tmp_path):
    with pytest.raises(ValueError, match=rf"trainer\.{key} must be left out; got 'x'\. {REFUSED[key].reason[:20]}"):
        run(tmp_path / "run", f"+trainer.{key}=x")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.accelerator=cuda"], r"trainer\.accelerator must suit this machine .*got 'cuda', and Lightning says"),
        (["+trainer.val_check_interval=100"], r"trainer\.val_check_interval must not be above the 2 training batches"),
        (["trainer.limit_train_batches=0.001"], r"trainer\.limit_train_batches must be the share of at least one"),
        (["trainer.limit_val_batches=0"], r"train\.monitor must be a metric of the training .*limit_val_batches=0"),
        (["+trainer.min_epochs=5"], r"trainer\.min_epochs must not be above trainer\.max_epochs; got 5 and 1"),
        (["scheduler=plateau", "train.interval=step"], r"train\.interval must be epoch with scheduler=plateau"),
        (["scheduler=plateau", "scheduler.mode=min"], r"scheduler\.mode must be that of train\.mode"),
        (
            ["scheduler=plateau", "+trainer.check_val_every_n_epoch=null", "+trainer.val_check_interval=3"],
            r"check_val_every_n_epoch must be a whole number with scheduler=plateau",
        ),
        (["optimizer=sgd", "+optimizer.nesterov=yes", "optimizer.momentum=0"], r"optimizer\.nesterov must suit"),
        (["+loader.prefetch_factor=2"], r"loader\.prefetch_factor must be left out without workers"),
        (["++train.compile=banana"], r"train\.compile must be .*inductor.*; got 'banana'"),
        (
            ["+trainer.precision=16", "trainer.accelerator=cpu"],
            r"trainer\.precision must be one that a CPU has; got 16",
        ),
        (["+loader.chunk_len=3", "decoder.l_tail=8"], r"at least l_tail=8 steps; got 3\. It is .* loader\.chunk_len=3"),
        (["decoder.l_tail=1000"], r"at least l_tail=1000 steps; got 80"),
        (["optimizer.lr=1e-7"], r"scheduler\.eta_min must not be above optimizer\.lr; got 1e-06 and 1e-07"),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_begins(overrides, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_train_epoch_start(self, trainer, module):
        self.seen.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_plateau_counts_validations(tmp_path):
    """With patience 0 and a metric that never improves the rate falls after the second and the third validation."""
    rates = Rates()
    line = ["trainer.max_epochs=7", "+trainer.check_val_every_n_epoch=2", "optimizer.lr=1e-9", "scheduler=plateau",
            "scheduler.patience=0", "scheduler.factor=0.5", "+scheduler.threshold=0.5", "+scheduler.eps=0"]  # fmt: skip
    run(tmp_path, *line, callbacks=[rates])
    assert rates.seen == pytest.approx([1e-9] * 4 + [5e-10] * 2 + [2.5e-10])


@pytest.mark.parametrize("more", [["+trainer.val_check_interval=0.5"], ["+trainer.check_val_every_n_epoch=2"]])
def test_a_metric_of_the_training_is_monitored_at_the_end_of_epochs(more, tmp_path):
    line = [
        "train.monitor=train/loss",
        "train.mode=min",
        "trainer.max_epochs=3",
        "+callbacks.early_stopping.patience=5",
    ]
    done = run(tmp_path, *line, *more)
    best = min(row["train/loss"] for row in done.history.epochs)
    callback = done.task.trainer.checkpoint_callbacks[0]
    assert float(callback.best_model_score) == pytest.approx(best)


def test_overfitting_sees_the_same_samples_in_every_epoch(tmp_path):
    seen = []

    class Seen(Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            seen.append(batch[1].tolist())

    config = compose([*(o for o in TINY if "limit" not in o), "+trainer.overfit_batches=2", "trainer.max_epochs=3",
                      "kernel=hope", "train.test=false", "train.tensorboard=false"])  # fmt: skip
    train(config, tmp_path, callbacks=[Seen()])
    assert seen == seen[:2] * 3
    assert seen[0] != seen[1]
