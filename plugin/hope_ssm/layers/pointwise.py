"""Pointwise parts of a block: activations, linear maps, dropout. Axes: B batch, L steps, H features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hope_ssm.checks import check_choice, check_flag


class SquaredReLU(nn.Module):
    """max(x, 0)²."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return nn.functional.relu(x).square()


class Laplace(nn.Module):
    """(1 + erf((x - μ) / (σ√2))) / 2 with μ = √½ and σ = √(1/4π): near relu(x)², but bounded.

    Source: Ma et al., "Mega: Moving Average Equipped Gated Attention", ICLR 2023 (arXiv 2209.10655).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return (1 + torch.erf((x - math.sqrt(0.5)) * math.sqrt(2 * math.pi))) / 2


class GatedLinearUnit(nn.Module):
    """(x, g) ↦ x ⊙ a(g) for the two halves of the features and an activation a; the sigmoid's is ``glu``."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """(…, 2H) to (…, H)."""
        if isinstance(self.activation, nn.Sigmoid):
            return nn.functional.glu(x)  # one pass forward and one backward
        x, gate = x.chunk(2, dim=-1)
        return x * self.activation(gate)


ACTIVATIONS = {
    "id": nn.Identity, "identity": nn.Identity, "linear": nn.Identity, "none": nn.Identity,
    "gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "swish": nn.SiLU, "elu": nn.ELU, "softplus": nn.Softplus,
    "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "sqrelu": SquaredReLU, "relu2": SquaredReLU, "laplace": Laplace,
}  # fmt: skip
GATED = ("glu", *(f"glu-{name}" for name in ACTIVATIONS))


def make_activation(name: str | None, option: str = "activation") -> nn.Module:
    """Return the activation called ``name``, which keeps the number of features; None is the identity."""
    if name in GATED:
        raise ValueError(f"{option} must keep the number of features; got {name!r}. It fits final_act and gate_act.")
    return ACTIVATIONS[check_choice(option, name or "id", ACTIVATIONS)]()


# Kaiming's gain of an activation; 1 for all others.
NONLINEARITIES = {"relu": "relu", "gelu": "relu", "silu": "relu", "swish": "relu", "tanh": "tanh", "sigmoid": "sigmoid"}
INITIALIZERS = {
    "uniform": lambda weight, kind: nn.init.kaiming_uniform_(weight, nonlinearity=kind),
    "normal": lambda weight, kind: nn.init.kaiming_normal_(weight, nonlinearity=kind),
    "xavier": lambda weight, kind: nn.init.xavier_normal_(weight),
    "zero": lambda weight, kind: nn.init.zeros_(weight),
    "one": lambda weight, kind: nn.init.ones_(weight),
}


def make_linear(
    d_input: int,
    d_output: int,
    activation: str | None = None,
    *,
    option: str = "activation",
    initializer: str | None = None,
    weight_norm: bool = False,
) -> nn.Module:
    """x ↦ a(W x + b), (…, d_input) to (…, d_output).

    Args:
        d_input: features of x.
        d_output: features of the result.
        activation: a; ``"glu"`` or ``"glu-<activation>"`` have twice as many rows in W; None for none.
        option: what the activation is called in a message.
        initializer: ``"uniform"``, ``"normal"`` (Kaiming's, with the gain of the activation), ``"xavier"``, ``"zero"``,
            ``"one"`` for W; None: torch's.
        weight_norm: W = g v / ‖v‖ row by row.
    """
    gated = activation in GATED
    linear: nn.Module = nn.Linear(d_input, 2 * d_output if gated else d_output)
    if initializer is not None:
        kind = NONLINEARITIES.get(str(activation), "linear")
        INITIALIZERS[check_choice("initializer", initializer, INITIALIZERS)](linear.weight, kind)
    if check_flag("weight_norm", weight_norm):
        if initializer == "zero":
            raise ValueError(
                "weight_norm must be false with initializer=zero, because v / ‖v‖ has no value at 0; got true."
            )
        linear = nn.utils.parametrizations.weight_norm(linear)
    if activation is None:
        return linear
    if not gated:
        return nn.Sequential(linear, ACTIVATIONS[check_choice(option, activation, (*ACTIVATIONS, "glu"))]())
    return nn.Sequential(linear, GatedLinearUnit(ACTIVATIONS[activation.partition("-")[2] or "sigmoid"]()))


class TiedDropout(nn.Module):
    """Dropout with one mask for all steps of a sequence (B, L, H)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop features of (B, L, H), or of one step (B, H)."""
        if not self.training or self.p == 0:
            return x
        shape = (x.shape[0], 1, x.shape[-1]) if x.ndim == 3 else x.shape
        return nn.functional.dropout(torch.ones(shape, dtype=x.dtype, device=x.device), self.p) * x


def make_dropout(p: float | None, tied: bool | None = False, option: str = "dropout") -> nn.Module:
    """Return dropout with probability ``p``, its mask shared along the sequence if ``tied``; None is 0 and not tied."""
    p, tied = p or 0.0, check_flag("tie_dropout", tied or False)
    if not 0 <= p < 1:
        raise ValueError(f"{option} must be at least 0 and below 1; got {p}.")
    return TiedDropout(p) if tied else nn.Dropout(p)
