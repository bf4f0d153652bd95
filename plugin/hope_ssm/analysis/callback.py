"""The callback ``callbacks.hankel``: ranks, singular values and memory of every layer while it trains."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn

from hope_ssm.analysis.inspection import kernel_singular_values, kernels
from hope_ssm.checks import check_positive_integer, check_positive_number
from hope_ssm.hankel import memory_length, numerical_rank
from hope_ssm.kernels.to_state_space import duplicate


class HankelCallback(Callback):
    """Log ``hankel/LAYER/…`` to the run's loggers, over some features: medians of rank and memory, extremes of σ.

    rank: how many σ_k > ε σ_1; memory: steps that hold 99 % of the energy of the response; largest, smallest: σ.

    Args:
        every_n_steps: optimizer steps from one look to the next.
        epsilon: ε.
        features: how many of a layer's features, evenly spaced; the time is proportional to their number.
        length: samples of the impulse response.
    """

    def __init__(self, every_n_steps: int = 200, epsilon: float = 1e-2, features: int = 4, length: int = 512) -> None:
        self.every_n_steps = check_positive_integer("every_n_steps", every_n_steps)
        self.epsilon = check_positive_number("epsilon", epsilon)
        self.features = check_positive_integer("features", features)
        self.length = check_positive_integer("length", length)
        self._seen = 0

    @torch.no_grad()
    def look(self, model: nn.Module) -> dict[str, float]:
        """Return the values of all layers by name; the model stays as it is."""
        values: dict[str, float] = {}
        for name, kernel in kernels(model).items():
            kernel = duplicate(kernel)
            response = kernel(L=self.length)[0]
            features = response.shape[1]
            index = torch.linspace(0, features - 1, min(self.features, features)).round().long()
            sigma, _, _ = kernel_singular_values(kernel, response, index)
            found = {
                "rank": numerical_rank(sigma, self.epsilon).double().median(),
                "memory": memory_length(response[:, index]).double().median(),
                "largest": sigma[..., 0].max(),
                "smallest": sigma[..., -1].min(),
            }
            values |= {f"hankel/{name}/{key}": float(value) for key, value in found.items()}
        return values

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Look, every so many steps, in the first process."""
        step = trainer.global_step  # the same for several batches where gradients are accumulated
        if step % self.every_n_steps == 0 and step != self._seen and trainer.is_global_zero:
            self._seen = step
            values = self.look(module)
            for logger in trainer.loggers:
                logger.log_metrics(values, step=step)
