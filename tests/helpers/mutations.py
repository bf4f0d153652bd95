"""Keys of a configuration, what they mean by hand, and values that nobody should mean.

The table here is not the product's: it is written from torch's and Lightning's documentation, to judge the product's.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser


class Refused:
    """What a key makes of a value that it does not take."""


WORDS = {"yes": True, "on": True, "true": True, "no": False, "off": False, "false": False}


def flag(value: Any) -> Any:
    if isinstance(value, str):
        return WORDS.get(value.lower(), Refused)
    return value if isinstance(value, bool) else Refused


def whole(low: int, high: int = 2**31 - 1, *more: Any) -> Callable[[Any], Any]:
    def meaning(value: Any) -> Any:
        if isinstance(value, float) and math.isfinite(value) and value == int(value):
            value = int(value)
        if type(value) is int and low <= value <= high:
            return value
        return value if any(value is one or (type(value) is type(one) and value == one) for one in more) else Refused

    return meaning


def number(low: float, high: float = math.inf, without_low: bool = False, without_high: bool = False) -> Callable:
    def meaning(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value > 1e30:
            return Refused
        below = value < low or (without_low and value == low)
        above = value > high or (without_high and value == high)
        return Refused if below or above else float(value)

    return meaning


def one_of(*names: Any) -> Callable[[Any], Any]:
    return lambda value: value if any(type(value) is type(name) and value == name for name in names) else Refused


def either(*meanings: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def meaning(value: Any) -> Any:
        found = [one(value) for one in meanings]
        return next((one for one in found if one is not Refused), Refused)

    return meaning


def exact(kind: type, inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Of a number where 1 and 1.0 are not the same."""
    return lambda value: inner(value) if type(value) is kind else Refused


def listed(inner: Callable[[Any], Any], low: int, high: int = 99) -> Callable[[Any], Any]:
    def meaning(value: Any) -> Any:
        if not isinstance(value, list) or not low <= len(value) <= high:
            return Refused
        found = [inner(one) for one in value]
        return Refused if Refused in found else found

    return meaning


null = one_of(None)
count, natural, rate = whole(1), whole(0), number(0, without_low=True)
dropout, share = number(0, 1, without_high=True), number(0, 1)
few = either(exact(float, number(0.5, 1)), one_of(0.0))  # a share of a handful of batches
batches = either(null, exact(int, natural), few)
some_batches = either(null, exact(int, count), exact(float, number(0.05, 1)))


def anything(value: Any) -> Any:
    """Judged by the sentence alone: whether the value is taken is for another test."""
    return ...


KEYS: dict[str, tuple[str, Callable[[Any], Any]]] = {  # key: (the schedule to change it in, what it means)
    "train.seed": ("cosine", whole(0, 2**32 - 1)),
    "train.ema": ("cosine", either(null, dropout)),
    "train.test": ("cosine", flag),
    "train.tensorboard": ("cosine", either(null, flag)),
    "train.interval": ("cosine", one_of("epoch", "step")),
    "train.mode": ("cosine", one_of("min", "max")),
    "train.monitor": ("cosine", one_of("val/accuracy", "val/loss", "train/accuracy", "train/loss")),
    "train.state.mode": ("cosine", one_of(None, "none")),
    "train.state.n_context": ("cosine", either(null, natural)),
    "train.state.n_context_eval": ("cosine", either(null, natural)),
    "loader.batch_size": ("cosine", whole(1, 1437)),
    "loader.num_workers": ("cosine", whole(0, 3)),
    "loader.pin_memory": ("cosine", flag),
    "loader.drop_last": ("cosine", flag),
    "loader.persistent_workers": ("cosine", lambda value: False if flag(value) is False else Refused),
    "loader.prefetch_factor": ("cosine", null),
    "loader.chunk_len": ("cosine", either(null, whole(8))),  # the decoder takes the last 8 steps
    "task.loss": ("cosine", one_of("cross_entropy")),
    "task.metrics": ("cosine", lambda value: value if value == ["accuracy"] else Refused),
    "task._name_": ("cosine", one_of("base")),
    "optimizer.lr": ("constant", rate),
    "optimizer.weight_decay": ("cosine", number(0)),
    "optimizer.betas": ("cosine", listed(dropout, 2, 2)),
    "optimizer.eps": ("cosine", number(0)),
    "optimizer.amsgrad": ("cosine", flag),
    "optimizer.maximize": ("cosine", flag),
    "optimizer.foreach": ("cosine", either(null, flag)),
    "optimizer._name_": ("cosine", one_of("adam", "adamw")),
    "scheduler._name_": ("constant", one_of("constant", "constant_warmup")),
    "scheduler.T_max": ("cosine", count),
    "scheduler.eta_min": ("cosine", number(0, 0.01)),
    "scheduler.num_warmup_steps": ("cosine_warmup", natural),
    "scheduler.num_training_steps": ("linear_warmup", count),
    "scheduler.step_size": ("step", count),
    "scheduler.gamma": ("step", number(0, 1, without_low=True)),
    "scheduler.milestones": ("multistep", listed(count, 1)),
    "scheduler.factor": ("plateau", number(0, 1, without_low=True, without_high=True)),
    "scheduler.patience": ("plateau", natural),
    "scheduler.cooldown": ("plateau", natural),
    "scheduler.threshold": ("plateau", number(0)),
    "scheduler.threshold_mode": ("plateau", one_of("rel", "abs")),
    "scheduler.min_lr": ("plateau", number(0, 0.01)),
    "scheduler.mode": ("plateau", one_of("max")),
    "trainer.max_epochs": ("cosine", either(null, whole(1, 2**31 - 1, -1))),
    "trainer.min_epochs": ("cosine", either(null, whole(0, 1))),
    "trainer.max_steps": ("cosine", whole(1, 2**31 - 1, -1)),
    "trainer.min_steps": ("cosine", either(null, natural)),
    "trainer.max_time": ("cosine", null),
    "trainer.fast_dev_run": ("cosine", either(flag, natural)),
    "trainer.limit_train_batches": ("cosine", some_batches),
    "trainer.limit_val_batches": ("cosine", either(null, exact(int, count), exact(float, number(0.5, 1)))),
    "trainer.limit_test_batches": ("cosine", batches),
    "trainer.overfit_batches": ("cosine", either(exact(int, natural), few)),
    "trainer.val_check_interval": (
        "cosine",
        either(null, exact(int, whole(1, 1)), exact(float, number(0, 1, without_low=True))),
    ),
    "trainer.check_val_every_n_epoch": ("cosine", either(null, count)),
    "trainer.num_sanity_val_steps": ("cosine", either(null, whole(0, 2**31 - 1, -1))),
    "trainer.accumulate_grad_batches": ("cosine", count),
    "trainer.gradient_clip_val": ("cosine", either(null, number(0))),
    "trainer.gradient_clip_algorithm": ("cosine", one_of(None, "norm", "value")),
    "trainer.deterministic": ("cosine", either(null, flag, one_of("warn"))),
    "trainer.benchmark": ("cosine", either(null, flag)),
    "trainer.detect_anomaly": ("cosine", flag),
    "trainer.inference_mode": ("cosine", flag),
    "trainer.log_every_n_steps": ("cosine", either(null, count)),
    "trainer.enable_progress_bar": ("cosine", either(null, flag)),
    "trainer.enable_model_summary": ("cosine", either(null, flag)),
    "trainer.precision": ("cosine", one_of(None, 32, "32")),
    "trainer.accelerator": ("cosine", one_of("cpu", "auto")),
    "trainer.devices": ("cosine", either(one_of(1, "auto", "1"), anything)),
    "trainer.num_nodes": ("cosine", one_of(1, 1.0)),
    "trainer.logger": ("cosine", lambda value: Refused),
    "trainer.enable_checkpointing": ("cosine", lambda value: Refused),
    "trainer.default_root_dir": ("cosine", lambda value: Refused),
    "model.d_model": ("cosine", whole(1, 64)),
    "model.n_layers": ("cosine", whole(1, 4)),
    "model.n_repeat": ("cosine", whole(1, 4)),
    "model.prenorm": ("cosine", flag),
    "model.bidirectional": ("cosine", flag),
    "model.dropout": ("cosine", dropout),
    "model.dropinp": ("cosine", dropout),
    "model.tie_dropout": ("cosine", flag),
    "model.transposed": ("cosine", flag),
    "model.track_norms": ("cosine", flag),
    "model.norm": ("cosine", either(null, one_of("layer", "batch"))),
    "model.residual": ("cosine", either(null, one_of("R", "A", "N"))),
    "model.pool.stride": ("cosine", whole(1, 9)),
    "model.pool.expand": ("cosine", either(null, whole(1, 4))),
    "model.layer.bidirectional": ("cosine", flag),
    "model.layer.deterministic": ("cosine", flag),
    "model.layer.weight_norm": ("cosine", flag),
    "model.layer.verbose": ("cosine", flag),
    "model.layer.channels": ("cosine", whole(1, 4)),
    "model.layer.d_state": ("cosine", whole(1, 64)),
    "model.layer.drop_kernel": ("cosine", dropout),
    "model.layer.l_max": ("cosine", anything),
    "model.layer.lr": ("cosine", anything),
    "model.layer.lr.dt": ("cosine", either(null, number(0))),
    "model.layer.wd": ("cosine", anything),
    "model.layer.init_scale": ("cosine", rate),
    "model.layer.dt_min": ("cosine", anything),
    "model.layer.mode": ("cosine", anything),
    "model.layer.init": ("cosine", anything),
    "model.layer.activation": ("cosine", anything),
    "model.layer.final_act": ("cosine", anything),
    "dataset.seed": ("cosine", whole(0)),
    "dataset.l_noise": ("cosine", whole(1, 64)),
    "decoder.l_tail": ("cosine", whole(1, 72)),
    "encoder": ("cosine", one_of("linear")),
    "callbacks.early_stopping": ("cosine", anything),
    "callbacks.early_stopping.patience": ("cosine", natural),
}

VALUES = [
    "no", "off", "yes", "on", "true", "false", "Off", "null", "inf", "-inf", "nan", "0", "1", "2", "-1", "-2", "3.0",
    "0.5", "-0.5", "1.5", "1e3", "1e-3", "1e400", "99999999999999999999", "''", "' '", "text", "[]", "[1]", "[a,b]",
    "[0.5,0.9]", "[1,2,3]", "[null]", "{}", "{a:1}", "'0.1'", "'1'", "max", "min", "epoch", "step", "None", "'é'",
    "1.0", "[yes]", "-1e-9", "0x10", "1_000", "auto", "cpu", "val/accuracy", "batch", "R", "[accuracy]", "warn", "16",
]  # fmt: skip
BROKEN = ["[", "{a", "]", "'", "${", "a b: c}", "${nope}", "${eval:'1/0'}", "${oc.env:NO_SUCH_VARIABLE}", "???", "(1"]
# Values that are right and would train for hours, or start a thousand processes.
LARGE = {"99999999999999999999", "1e3", "1_000", "16"}
SEVERAL = {"2", "3.0", "[1]", "[1,2,3]", "-1"}  # processes, which would each run the tests
COSTLY = {"loader.num_workers", "model.d_model", "model.n_layers", "model.n_repeat", "model.layer.channels",
          "model.layer.d_state", "dataset.l_noise", "trainer.devices", "trainer.num_nodes"}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One override, the schedule it goes with, and what it should come to."""

    key: str
    text: str
    schedule: str
    meaning: Callable[[Any], Any]

    @property
    def override(self) -> str:
        return f"++{self.key}={self.text}"


@cache
def parsed(text: str) -> Any:
    """The value that Hydra makes of a text."""
    return OverridesParser.create().parse_override(f"key={text}").value()


def cases(seed: int, number: int) -> list[Case]:
    """Random overrides, the same for the same seed: a value right or wrong, broken text, or a slip in the key."""
    random_ = random.Random(seed)
    made: list[Case] = []
    while len(made) < number:
        key = random_.choice(list(KEYS))
        schedule, meaning = KEYS[key]
        text = random_.choice(BROKEN) if random_.random() < 0.08 else random_.choice(VALUES)
        if random_.random() < 0.2 and text in VALUES:
            text = random_.choice([other for other in VALUES if meaning(parsed(other)) is not Refused] or [text])
        if random_.random() < 0.05:
            place = random_.randrange(key.rfind(".") + 2, len(key)) if "." in key else len(key)
            key, meaning = key[:place] + "q" + key[place:], lambda value: Refused
        if not (key in COSTLY and text in LARGE) and not (key == "trainer.devices" and text in SEVERAL):
            made.append(Case(key, text, schedule, meaning))
    return made


def like(present: Any) -> Callable[[Any], Any]:
    """What a key takes whose value is ``present``: a flag no number, a number no text; its range is not known."""

    def meaning(value: Any) -> Any:
        if isinstance(present, bool):
            return ... if value is None or flag(value) is not Refused else Refused
        if isinstance(present, (int, float)):
            finite = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            return ... if value is None or finite or isinstance(value, dict) else Refused
        return ...

    return meaning


def cases_of(config: Mapping[str, Any], schedule: str, seed: int, number: int) -> list[Case]:
    """Random values for any key of a configuration."""
    random_ = random.Random(seed)
    keys = {key: value for key, value in leaves(config) if "__" not in key}  # those are the host's
    made: list[Case] = []
    while len(made) < number:
        key, text = random_.choice(list(keys)), random_.choice(VALUES)
        size = isinstance(keys[key], int) and (text in LARGE or key == "trainer.devices")
        if not size and key not in ("train.ckpt", "trainer.strategy", "dataset._name_"):
            sizes = key == "model.layer.horizon"  # of the images of a data set: several
            made.append(
                Case(key, text, schedule, either(like(keys[key]), listed(count, 1)) if sizes else like(keys[key]))
            )
    return made


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
