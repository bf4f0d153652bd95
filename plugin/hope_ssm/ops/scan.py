"""A recurrence whose matrix changes from step to step, in parallel over the steps. Axes: B batch, L steps."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class StepwiseTransition(Protocol):
    """Matrices Ā_t (B, L, …), one per step."""

    def apply(self, x: Tensor) -> Tensor:
        """Ā_t x_t of x (B, L, …)."""
        ...

    def at(self, steps: slice) -> Any:
        """Those of some steps."""
        ...

    def after(self, earlier: Any) -> Any:
        """The products Ā_t Ā'_t."""
        ...


def scan(transition: StepwiseTransition, driven: Tensor, start: Tensor) -> Tensor:
    """x_t = Ā_t x_{t-1} + v_t  for 0 ≤ t < L, in 2 log₂ L rounds and O(L) products.

    Two steps are one step with Ā_{t+1} Ā_t and Ā_{t+1} v_t + v_{t+1}: every second state comes from a scan of half the
    length, the others from their predecessors.

    Args:
        transition: Ā.
        driven: v, (B, L, …).
        start: x_{-1}, (B, …).

    Returns:
        (B, L, …).

    Source: Blelloch, "Prefix sums and their applications", CMU-CS-90-190 (1990).
    """
    length = driven.shape[1]
    if length == 1:
        return transition.apply(start.unsqueeze(1)) + driven
    first, second = transition.at(slice(0, length - length % 2, 2)), transition.at(slice(1, None, 2))
    pairs = second.apply(driven[:, : length - length % 2 : 2]) + driven[:, 1::2]
    odd = scan(second.after(first), pairs, start)
    before = torch.cat([start.unsqueeze(1), odd], dim=1)
    even = transition.at(slice(0, None, 2)).apply(before[:, : (length + 1) // 2]) + driven[:, ::2]
    joined = torch.stack([even[:, : length // 2], odd], dim=2).flatten(1, 2)
    return joined if length % 2 == 0 else torch.cat([joined, even[:, -1:]], dim=1)
