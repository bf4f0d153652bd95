"""Normalization that padding does not enter. Axes: B batch, L steps, H features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.layers.padding import valid_steps
from hope_ssm.workbench.options import instantiate


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization of (B, L, H) over B and L, or of one step (B, H)."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalize each feature; where steps are not ``valid`` (B, L), they count for nothing and become 0."""
        if x.ndim == 2:
            return super().forward(x)
        if valid is not None:
            return torch.zeros_like(x).masked_scatter(valid.unsqueeze(-1), super().forward(x[valid]))
        return super().forward(x.flatten(0, 1)).view_as(x)


def _standardized(x: Tensor, valid: Tensor | None, axes: tuple[int, ...], eps: float) -> Tensor:
    """(x - mean) / √(variance + eps) over ``axes`` of (B, L, H), with the valid (B, L) steps alone; 0 elsewhere."""
    valid = x.new_ones(x.shape[:2], dtype=torch.bool) if valid is None else valid
    kept = valid.unsqueeze(-1).expand_as(x)
    count = kept.sum(axes, keepdim=True)
    mean = x.masked_fill(~kept, 0).sum(axes, keepdim=True) / count
    centred = (x - mean).masked_fill(~kept, 0)
    return centred * torch.rsqrt(centred.square().sum(axes, keepdim=True) / count + eps)


class InstanceNorm(nn.Module):
    """Each feature of each sequence to mean 0 and variance 1 over its steps; nothing trained."""

    def __init__(self, d_model: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, L, H) to (B, L, H); ``valid`` (B, L) as in ``BatchNorm``."""
        return _standardized(x, valid, (1,), self.eps)


class GroupNorm(nn.GroupNorm):
    """Each sequence to mean 0 and variance 1 over its steps and features, then a scale and a shift per feature."""

    def __init__(self, d_model: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__(1, d_model, eps=eps, affine=affine)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, L, H) to (B, L, H); ``valid`` (B, L) as in ``BatchNorm``."""
        y = _standardized(x, valid, (1, 2), self.eps)
        return y * self.weight + self.bias if self.affine else y


class NoNorm(nn.Identity):
    """x."""

    def __init__(self) -> None:
        super().__init__()


NORMS = {"layer": nn.LayerNorm, "batch": BatchNorm, "instance": InstanceNorm, "group": GroupNorm, "none": NoNorm}
_SIZES = {"layer": "normalized_shape", "batch": "num_features"}
WHOLE_SEQUENCE = (InstanceNorm, GroupNorm)  # what they give at one step depends on all others


def make_norm(config: str | Mapping[str, Any] | None, d_model: int) -> nn.Module:
    """Return the norm of a name or of a mapping with ``_name_`` and options; None is the identity."""
    config = "none" if config is None else config
    name = config.get("_name_") if isinstance(config, Mapping) else config
    return instantiate("norm", NORMS, config, **{_SIZES.get(str(name), "d_model"): d_model})


def normalize(norm: nn.Module, x: Tensor, lengths: Tensor | None) -> Tensor:
    """Apply a norm to (B, L, H) so that what follows the lengths (B,) does not enter its statistics."""
    if lengths is not None and isinstance(norm, (BatchNorm, *WHOLE_SEQUENCE)):
        return norm(x, valid_steps(x, lengths))
    return norm(x)
