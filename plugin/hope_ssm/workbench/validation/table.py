"""What the groups of a configuration take: {key: type}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from hope_ssm.workbench.losses import LOSSES, METRICS
from hope_ssm.workbench.validation.kinds import (
    Count,
    Decay,
    Few,
    Flag,
    Natural,
    NonNegative,
    Positive,
    Proportion,
    Seed,
    Text,
    Width,
    choice,
    list_of,
    needed,
)

_NAMED = {"_name_": needed(str)}

TRAIN = {
    "seed": needed(Seed),
    "ckpt": Text | None,
    "init_from": Text | None,
    "pretrained_model_path": Text | None,
    "frozen": list_of(Text) | None,
    "compile": Flag | Literal["inductor", "aot_eager", "eager"] | None,
    "ema": Decay | None,
    "tensorboard": Flag | None,
    "test": Flag,
    "interval": needed(Literal["epoch", "step"]),
    "monitor": needed(Text),
    "mode": needed(Literal["min", "max"]),
    "state": Mapping[str, Any] | None,
}
STATE = {
    "mode": Literal["none", "reset", "bptt", "tbptt"] | None,
    "n_context": Natural | None,
    "n_context_eval": Natural | None,
}
LOADER = {
    "batch_size": needed(Count),
    "num_workers": Literal[0] | Few,
    "pin_memory": Flag,
    "drop_last": Flag,
    "persistent_workers": Flag,
    "prefetch_factor": Count | None,
    "chunk_len": Count | None,
}
TASK = {
    "_name_": Literal["base"],
    "loss": needed(choice(LOSSES)),
    "metrics": needed(list_of(choice(METRICS))),
}
MODEL = {
    **_NAMED,
    "d_model": needed(Width),
    "n_layers": Few,
    "n_repeat": Few,
    "layer": needed(Mapping[str, Any]),
    "prenorm": Flag,
    "norm": Text | Mapping[str, Any] | None,
    "residual": Text | Mapping[str, Any] | None,
    "pool": Text | Mapping[str, Any] | None,
    "bidirectional": Flag,
    "dropout": Decay,
    "dropinp": Decay,
    "tie_dropout": Flag,
    "transposed": Flag,
    "track_norms": Flag,
    "encoder": None,
    "decoder": None,
}

_ALL = {**_NAMED, "lr": needed(Positive), "weight_decay": NonNegative, "maximize": Flag, "foreach": Flag | None}
_MOMENTS = {
    **_ALL,
    "betas": Annotated[list[Decay], Field(min_length=2, max_length=2)],
    "eps": NonNegative,
    "amsgrad": Flag,
    "fused": Flag | None,
}
OPTIMIZER = {
    "adam": {**_MOMENTS, "decoupled_weight_decay": Flag},
    "adamw": _MOMENTS,
    "rmsprop": {**_ALL, "alpha": Decay, "eps": NonNegative, "momentum": Decay, "centered": Flag},
    "sgd": {**_ALL, "momentum": Decay, "dampening": Decay, "nesterov": Flag, "fused": Flag | None},
}
_WARMUP = {**_NAMED, "num_warmup_steps": Natural}
_TO_THE_END = {**_WARMUP, "num_training_steps": needed(Count)}
SCHEDULER = {
    "constant": _NAMED,
    "constant_warmup": _WARMUP,
    "linear_warmup": _TO_THE_END,
    "cosine_warmup": _TO_THE_END,
    "cosine": {**_NAMED, "T_max": needed(Count), "eta_min": NonNegative},
    "multistep": {**_NAMED, "milestones": needed(Annotated[list[Count], Field(min_length=1)]), "gamma": Proportion},
    "step": {**_NAMED, "step_size": needed(Count), "gamma": Proportion},
    "plateau": {
        **_NAMED,
        "mode": Literal["min", "max"],
        "factor": Annotated[float, Field(gt=0, lt=1)],
        "patience": Natural,
        "threshold": NonNegative,
        "threshold_mode": Literal["rel", "abs"],
        "cooldown": Natural,
        "min_lr": NonNegative,
        "eps": NonNegative,
    },
}
# On top of the types in their signatures.
CALLBACKS = {"early_stopping": {"patience": Natural, "min_delta": NonNegative}}
