"""The callback ``callbacks.effective_rank``: a term of the loss for Hankel singular values that are alike."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from hope_ssm.checks import check_positive_number
from hope_ssm.hankel import effective_rank, hankel_singular_values
from hope_ssm.kernels.hope import HopeKernel


class EffectiveRank(Callback):
    """Add  weight · Σ_layers mean(1 - log r / log n)  to the loss, r the effective rank of each system of hope.

    The term is 0 where all Hankel singular values of a system are equal and at most ``weight`` a layer. Its gradient
    is added before every step of the optimizer, so that logged losses stay comparable.

    Args: weight: above 0.
    """

    def __init__(self, weight: float) -> None:
        self.weight = check_positive_number("weight", weight)

    def penalty(self, model: nn.Module) -> Tensor:
        """Return the term; raise ``ValueError`` for a model without a hope kernel that is trained."""
        found = [kernel for kernel in model.modules() if isinstance(kernel, HopeKernel) and not kernel.noncausal]
        found = [kernel.markov_parameters for kernel in found if kernel.markov_parameters.requires_grad]
        shares = [
            (effective_rank(hankel_singular_values(h.float())).log() / h.new_tensor(h.shape[-1]).log()).mean()
            for h in found
            if h.shape[-1] > 1
        ]
        if not shares:
            raise ValueError(
                "callbacks.effective_rank must have a model with trained Markov parameters, two or more a system; "
                "it has none. Leave the callback out, or train kernel=hope."
            )
        return self.weight * sum(1 - share for share in shares)

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Add the gradient of the term to that of the loss, which is not scaled any more at this point."""
        self.penalty(module).backward()
