"""How a block's input x joins the output y of its layer, by the host's names. Both (B, L, H), or (B, H) at one step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.workbench.options import instantiate


class Feedforward(nn.Module):
    """y: no connection."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y."""
        return y


class Residual(nn.Module):
    """αx + βy."""

    def __init__(self, alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add them."""
        return (x if self.alpha == 1 else self.alpha * x) + (y if self.beta == 1 else self.beta * y)


class Affine(nn.Module):
    """αx + c ⊙ y with trained c, at first βl^{-γ} in layer l: one number, or one per feature (``scalar=False``)."""

    def __init__(
        self,
        layer_number: int,
        d_model: int,
        alpha: float = 1.0,
        beta: float = 1.0,
        scalar: bool = True,
        gamma: float = 0.0,
    ) -> None:
        super().__init__()
        self.alpha = alpha
        self.scale = nn.Parameter(torch.full((1 if scalar else d_model,), beta * layer_number**-gamma))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add them."""
        return self.alpha * x + self.scale * y


class Highway(nn.Module):
    """s(1 - r) ⊙ x + r ⊙ z  with  z = W_y y  and  r = σ(W_x x + z); W_y is diagonal if ``elemwise``.

    s = √3 with ``scaling_correction``, else 1.  Source: Lei et al., "Simple Recurrent Units for Highly Parallelizable
    Recurrence", EMNLP 2018 (arXiv 1709.02755).
    """

    def __init__(self, d_model: int, scaling_correction: bool = False, elemwise: bool = False) -> None:
        super().__init__()
        self.scale = math.sqrt(3) if scaling_correction else 1.0
        self.from_input = nn.Linear(d_model, d_model)
        self.from_layer = None if elemwise else nn.Linear(d_model, d_model)
        if elemwise:
            self.weight = nn.Parameter(torch.randn(d_model))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Mix them."""
        z = self.weight * y if self.from_layer is None else self.from_layer(y)
        r = torch.sigmoid(self.from_input(x) + z)
        return self.scale * (1 - r) * x + r * z


class Decay(nn.Module):
    """αx + βy with β = l^{-power} in layer l, and α = √(1 - β²) (``l2``) or 1 - β."""

    def __init__(self, layer_number: int, power: float = 0.5, l2: bool = True) -> None:
        super().__init__()
        self.beta = layer_number**-power
        self.alpha = math.sqrt(1 - self.beta**2) if l2 else 1 - self.beta

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add them."""
        return self.alpha * x + self.beta * y


RESIDUALS = {
    "R": Residual, "residual": Residual, "A": Affine, "affine": Affine, "H": Highway, "highway": Highway,
    "D": Decay, "decay": Decay, "F": Feedforward, "N": Feedforward, "none": Feedforward, "ff": Feedforward,
    "feedforward": Feedforward,
}  # fmt: skip


def make_residual(config: str | Mapping[str, Any] | None, layer_number: int, d_model: int) -> nn.Module:
    """Return the connection of a name, or of a mapping with ``_name_`` and options, for layer 1, 2, …; None is none."""
    config = "none" if config is None else config
    return instantiate("residual", RESIDUALS, config, layer_number=layer_number, d_model=d_model)
