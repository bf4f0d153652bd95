"""The check of the first batch of each split: a data set of the wrong shape is refused with one sentence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hope_ssm.checks import check_lengths, nearest

# Lengths (B,); whether a sequence begins; times (B, L) between the samples in sampling periods.
CONTEXT = ("lengths", "reset", "step_scale")


class FirstBatch:
    """Check the first batch of each split; later ones cost nothing.

    Args:
        loss: name of the loss, which says what targets are.
        d_input: sizes of the data, see ``splits.Splits``.
        d_output: sizes of the data, see ``splits.Splits``.
        n_tokens: sizes of the data, see ``splits.Splits``.
    """

    def __init__(self, loss: str, d_input: int, d_output: int, n_tokens: int | None) -> None:
        self.loss, self.d_input, self.d_output, self.n_tokens = loss, d_input, d_output, n_tokens
        self.seen: set[str] = set()

    def batch(self, split: str, batch: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
        """Return inputs, target and context of a batch (x, y) or (x, y, {"lengths": …}); raise if it is none."""
        if split not in self.seen:
            self._check_parts(split, batch)
        x, target, *more = batch
        if split not in self.seen:
            self._check_inputs(f"the inputs of the {split} split", x)
            if more and "lengths" in more[0]:
                check_lengths(more[0]["lengths"], *x.shape[:2])
            if more and "step_scale" in more[0]:
                self._check_step_scale(f"step_scale of the {split} split", more[0]["step_scale"], x)
        return x, target, more[0] if more else {}

    def target(self, split: str, prediction: Tensor, target: Tensor) -> None:
        """Raise unless the target suits the prediction and the loss."""
        if split not in self.seen:
            what = f"the targets of the {split} split, for task.loss={self.loss},"
            if self.loss == "cross_entropy":
                self._check_classes(what, prediction, target)
            else:
                self._check_numbers(what, prediction, target)
            self.seen.add(split)

    def _check_parts(self, split: str, batch: Any) -> None:
        wanted = f'a batch of the {split} split must be (x, y) or (x, y, {{"lengths": …, "step_scale": …}})'
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            got = f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
            raise TypeError(f"{wanted}; got {got}.")
        for place, part in zip("xy", batch, strict=False):
            if not isinstance(part, Tensor):
                raise TypeError(f"{wanted} with tensors x and y; got {type(part).__name__} for {place}.")
        if len(batch) == 3 and not isinstance(batch[2], dict):
            raise TypeError(f"{wanted}; got {type(batch[2]).__name__} as its third part.")
        for key in batch[2] if len(batch) == 3 else ():
            if key not in CONTEXT:
                raise ValueError(f"{wanted}; got the key {key!r}.{nearest(key, CONTEXT)}")

    @staticmethod
    def _check_step_scale(what: str, scale: Any, x: Tensor) -> None:
        if not isinstance(scale, Tensor) or not scale.is_floating_point() or scale.shape != x.shape[:2]:
            got = f"{scale.dtype} of shape {tuple(scale.shape)}" if isinstance(scale, Tensor) else type(scale).__name__
            raise TypeError(f"{what} must be real numbers of shape {tuple(x.shape[:2])}; got {got}.")

    def _check_inputs(self, what: str, x: Tensor) -> None:
        if x.is_floating_point():
            if x.ndim != 3 or x.shape[-1] != self.d_input or x.shape[1] < 1:
                raise ValueError(
                    f"{what} must have shape (batch, length, d_input={self.d_input}); got {tuple(x.shape)}."
                )
            if x.dtype == torch.float64 and torch.get_default_dtype() != torch.float64:
                raise TypeError(f"{what} must be float32; got {x.dtype}. Convert with .float().")
            return
        if self.n_tokens is None:
            raise TypeError(f"{what} must be real numbers; got {x.dtype}. Convert with .float(), or give n_tokens.")
        if x.ndim != 2 or x.shape[1] < 1:
            raise ValueError(f"{what} must be tokens of shape (batch, length); got {tuple(x.shape)}.")
        _check_range(f"{what} must be tokens", x, self.n_tokens, "n_tokens")

    def _check_classes(self, what: str, prediction: Tensor, target: Tensor) -> None:
        wanted = f"{what} must be int64 classes of shape {tuple(prediction.shape[:-1])}"
        if target.dtype != torch.int64:
            raise TypeError(f"{wanted}; got {target.dtype} of shape {tuple(target.shape)}. Convert with .long().")
        if target.shape != prediction.shape[:-1]:
            raise ValueError(f"{wanted}; got shape {tuple(target.shape)}.")
        _check_range(f"{what} must be classes", target, self.d_output, "d_output")

    def _check_numbers(self, what: str, prediction: Tensor, target: Tensor) -> None:
        shapes = [prediction.shape] + [prediction.shape[:-1]] * (prediction.shape[-1] == 1)
        wanted = f"{what} must be real numbers of shape {' or '.join(str(tuple(shape)) for shape in shapes)}"
        binary = self.loss == "binary_cross_entropy"
        if not target.is_floating_point() and not binary:
            raise TypeError(f"{wanted}; got {target.dtype}. Convert with .float().")
        if target.shape not in shapes:
            raise ValueError(f"{wanted}; got shape {tuple(target.shape)}.")
        if binary and ((target < 0) | (target > 1)).any():
            raise ValueError(f"{what} must be from 0 to 1; got {target.min().item()} to {target.max().item()}.")


def _check_range(what: str, values: Tensor, number: int, name: str) -> None:
    outside = values[(values < 0) | (values >= number)]
    if outside.numel():
        raise ValueError(f"{what} from 0 to {number - 1}, for {name}={number}; got {outside.flatten()[0].item()}.")
