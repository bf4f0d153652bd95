"""Pooling between layers: fewer steps, more features. Axes: B batch, L steps, H features; s stride, e expand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hope_ssm.checks import check_positive_integer
from hope_ssm.workbench.options import instantiate


class Pool(nn.Module):
    """(B, L, H) to (B, ⌊L/s⌋, d_output): what s steps in turn become; steps left over at the end are dropped.

    With s = 1 it maps each step by itself, and also one alone, (B, H).

    Args:
        d_input: H.
        stride: s.
        expand: e, or None for no change of the features.
    """

    def __init__(self, d_input: int, stride: int = 1, expand: int | None = None) -> None:
        super().__init__()
        self.stride = check_positive_integer("pool.stride", stride)
        self.d_output = d_input * (1 if expand is None else check_positive_integer("pool.expand", expand))

    def windows(self, x: Tensor) -> Tensor:
        """(B, L, H) to (B, ⌊L/s⌋, s, H)."""
        count = x.shape[1] // self.stride
        if count == 0:
            self._refuse(x.shape[1])
        return x[:, : count * self.stride].unflatten(1, (count, self.stride))

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return ⌊length/s⌋ (B,); a window with padding in it is not a step."""
        if (lengths < self.stride).any():
            self._refuse(int(lengths.min()))
        return lengths // self.stride

    def _refuse(self, steps: int) -> None:
        raise ValueError(
            f"every sequence must have at least pool.stride={self.stride} steps where it is pooled; got {steps}. "
            "Lower model.pool.stride or model.n_layers."
        )


class AveragePool(Pool):
    """The mean of s steps, then W x + b if ``expand`` is given."""

    def __init__(self, d_input: int, stride: int = 1, expand: int | None = None) -> None:
        super().__init__(d_input, stride, expand)
        self.linear = nn.Identity() if expand is None else nn.Linear(d_input, self.d_output)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, H) to (B, ⌊L/s⌋, H·e)."""
        return self.linear(x if self.stride == 1 else self.windows(x).mean(2))


class LinearPool(Pool):
    """W x + b of s steps side by side, and H·e features."""

    def __init__(self, d_input: int, stride: int = 1, expand: int | None = None) -> None:
        super().__init__(d_input, stride, expand)
        self.linear = nn.Linear(d_input * self.stride, self.d_output)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, H) to (B, ⌊L/s⌋, H·e)."""
        return self.linear(x if self.stride == 1 else self.windows(x).flatten(2))


class SamplePool(Pool):
    """Steps 0, s, 2s, …, ⌈L/s⌉ of them, each feature e times."""

    def __init__(self, d_input: int, stride: int = 1, expand: int | None = None) -> None:
        super().__init__(d_input, stride, expand)
        self.repeats = self.d_output // d_input

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, H) to (B, ⌈L/s⌉, H·e)."""
        x = x if self.stride == 1 else x[:, :: self.stride]
        return x if self.repeats == 1 else x.repeat_interleave(self.repeats, dim=-1)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return ⌈length/s⌉ (B,)."""
        return (lengths + self.stride - 1) // self.stride


POOLS = {"pool": AveragePool, "avg": AveragePool, "linear": LinearPool, "sample": SamplePool}


def make_pool(config: str | Mapping[str, Any] | None, d_input: int) -> Pool:
    """Return the pool of a name or of a mapping with ``_name_`` and options; None leaves everything as it is."""
    return instantiate("pool", POOLS, "pool" if config is None else config, d_input=d_input)
