"""The options of Lightning's Trainer: what each takes here, and which are the workbench's own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hope_ssm.workbench.validation.kinds import (
    Batches,
    Count,
    Flag,
    Limit,
    Natural,
    NonNegative,
    Refused,
    SomeBatches,
    Text,
)

_TIME = Annotated[str, Field(pattern=r"^\d+:\d\d:\d\d:\d\d$")]  # days:hours:minutes:seconds
_TIME_PARTS = dict[Literal["weeks", "days", "hours", "minutes", "seconds"], NonNegative]
_PRECISIONS = Literal[
    16, 32, 64, "16", "32", "64", "bf16", "16-true", "16-mixed", "bf16-true", "bf16-mixed", "32-true", "64-true"
]

TRAINER = {
    # where
    "accelerator": Text,
    "strategy": Text,
    "devices": Limit | Annotated[list[Natural], Field(min_length=1)] | Text,
    "num_nodes": Count,
    "precision": _PRECISIONS | None,
    "sync_batchnorm": Flag,
    "use_distributed_sampler": Flag,
    # how long
    "max_epochs": Limit | None,
    "min_epochs": Natural | None,
    "max_steps": Limit,
    "min_steps": Natural | None,
    "max_time": _TIME | _TIME_PARTS | None,
    "fast_dev_run": Flag | Natural,
    "limit_train_batches": SomeBatches | None,
    "limit_val_batches": Batches | None,
    "limit_test_batches": Batches | None,
    "overfit_batches": Batches,
    # validation
    "val_check_interval": SomeBatches | None,
    "check_val_every_n_epoch": Count | None,
    "num_sanity_val_steps": Literal[-1] | Natural | None,
    # a step
    "accumulate_grad_batches": Count,
    "gradient_clip_val": NonNegative | None,
    "gradient_clip_algorithm": Literal["norm", "value"] | None,
    "deterministic": Flag | Literal["warn"] | None,
    "benchmark": Flag | None,
    "detect_anomaly": Flag,
    "inference_mode": Flag,
    # what is said
    "log_every_n_steps": Count | None,
    "enable_progress_bar": Flag | None,
    "enable_model_summary": Flag | None,
    "profiler": Literal["simple", "advanced", "pytorch"] | None,
    "enable_autolog_hparams": Flag,
    # the workbench's own
    "logger": Refused("The workbench keeps metrics.csv and csv/; train.tensorboard and wandb add to them."),
    "callbacks": Refused("The group callbacks names callbacks, as in +callbacks.early_stopping.patience=5."),
    "default_root_dir": Refused("hydra.run.dir is where a run goes."),
    "enable_checkpointing": Refused("A run always keeps best.ckpt and last.ckpt; resuming and testing read them."),
    "limit_predict_batches": Refused("The workbench trains, validates and tests."),
    "reload_dataloaders_every_n_epochs": Refused("A data set with set_epoch(epoch) changes from epoch to epoch."),
    "plugins": Refused("Objects cannot be written in a configuration; precision and strategy name what is needed."),
    "barebones": Refused("It leaves out logging and checkpoints, which are a run's results; hope bench times a step."),
    "model_registry": Refused("The workbench uploads no models."),
}
