"""Lets the host run several jobs in one process.

The host registers the OmegaConf resolver ``eval`` in every job, which OmegaConf allows once per process, so the second
job of a plain ``--multirun`` stops. This callback, given on the command line, clears it before each job:

    python -m train --multirun … +hydra/callbacks=clear_eval
"""

from __future__ import annotations

from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf


class ClearEvalResolver(Callback):
    """Forgets the resolver ``eval`` before a job starts."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Clear the resolver if an earlier job of this process registered it."""
        OmegaConf.clear_resolver("eval")
