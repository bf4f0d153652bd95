"""Losses and metrics by the host's names: functions of (prediction, target, lengths).

Axes: B batch, L steps, V classes or numbers. A prediction is (B, V), or (B, L, V) for every step; then ``lengths`` (B,)
says how many steps of each sequence count. Every value is a mean over what counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from hope_ssm.layers.padding import valid_steps

Measure = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True)
class Counted:
    """``measure`` of (N, V) and targets (N, …) as one of all steps that count, of every sequence."""

    measure: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, prediction: Tensor, target: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the measure of predictions (B, V) or (B, L, V)."""
        if lengths is not None:
            valid = valid_steps(prediction, lengths)
            return self.measure(prediction[valid], target[valid])
        steps = prediction.ndim - 1
        return self.measure(prediction.flatten(0, steps - 1), target.flatten(0, steps - 1))


def like(prediction: Tensor, target: Tensor) -> Tensor:
    """(N, 1) as (N,) where the target is."""
    return prediction.squeeze(-1) if target.ndim < prediction.ndim else prediction


def _accuracy(prediction: Tensor, target: Tensor, k: int = 1) -> Tensor:
    """Share of targets among the k likeliest classes."""
    return (
        (prediction.topk(min(k, prediction.shape[-1]), dim=-1).indices == target.unsqueeze(-1)).any(-1).float().mean()
    )


def _binary_accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    return ((like(prediction, target) >= 0) == (target > 0.5)).float().mean()


def _binary_cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    logits = like(prediction, target)
    return functional.binary_cross_entropy_with_logits(logits, target.to(logits.dtype))


def _mse(prediction: Tensor, target: Tensor) -> Tensor:
    return functional.mse_loss(like(prediction, target), target)


def _mae(prediction: Tensor, target: Tensor) -> Tensor:
    return functional.l1_loss(like(prediction, target), target)


def _bits(prediction: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(prediction, target) / math.log(2)


LOSSES: dict[str, Measure] = {
    "cross_entropy": Counted(functional.cross_entropy),
    "binary_cross_entropy": Counted(_binary_cross_entropy),
    "mse": Counted(_mse),
    "mae": Counted(_mae),
}
METRICS: dict[str, Measure] = {
    **LOSSES,
    "accuracy": Counted(_accuracy),
    "accuracy@3": Counted(partial(_accuracy, k=3)),
    "accuracy@5": Counted(partial(_accuracy, k=5)),
    "accuracy@10": Counted(partial(_accuracy, k=10)),
    "binary_accuracy": Counted(_binary_accuracy),
    "bpb": Counted(_bits),
}


def steps_of(x: Tensor, prediction: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Return ``lengths`` if the prediction has every step of x (B, L, …), so that they say which count; or None."""
    return lengths if prediction.ndim == 3 and prediction.shape[1] == x.shape[1] else None


def weight(prediction: Tensor, lengths: Tensor | None) -> int:
    """Return over how many predictions a mean was taken, for means over batches."""
    return len(prediction) if lengths is None else int(torch.as_tensor(lengths).sum())
