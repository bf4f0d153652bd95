"""The residual backbone: blocks with a norm before or after. Axes: B batch, L steps, H features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hope_ssm.checks import check_choice, check_flag, check_positive_integer
from hope_ssm.workbench.layers import S4Block, make_dropout
from hope_ssm.workbench.options import instantiate

LAYERS = {"s4": S4Block}


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization of (B, L, H) over B and L, or of one step (B, H)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize each feature."""
        if x.ndim == 2:
            return super().forward(x)
        return super().forward(x.flatten(0, 1)).view_as(x)


NORMS = {"layer": nn.LayerNorm, "batch": BatchNorm}


def make_norm(name: str | None, d_model: int) -> nn.Module:
    """Return the norm called ``name``; None is the identity."""
    return nn.Identity() if name is None else NORMS[check_choice("norm", name, NORMS)](d_model)


class ResidualBlock(nn.Module):
    """x ↦ x + f(norm(x)) with a norm before (prenorm), or x ↦ norm(x + f(x))."""

    def __init__(self, d_model: int, layer: nn.Module, norm: str | None, prenorm: bool, drop: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.norm = make_norm(norm, d_model)
        self.prenorm = check_flag("prenorm", prenorm)
        self.drop = drop

    def _apply_layer(self, x: Tensor, call: Any, state: Any, **options: Any) -> tuple[Tensor, Any]:
        y, state = call(self.norm(x) if self.prenorm else x, state, **options)
        y = x + self.drop(y)
        return (y if self.prenorm else self.norm(y)), state

    def forward(self, x: Tensor, state: Any = None, rate: float = 1.0) -> tuple[Tensor, Any]:
        """Map (B, L, H) to (B, L, H), and a state to the next."""
        return self._apply_layer(x, self.layer, state, rate=rate)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Map one step (B, H) to (B, H)."""
        return self._apply_layer(x, self.layer.step, state)


class SequenceModel(nn.Module):
    """A stack of residual blocks, (B, L, H) to (B, L, H).

    Args:
        d_model: H.
        n_layers: number of blocks.
        layer: configuration of the layer in every block, with ``_name_``.
        prenorm: norm before the layer (and one more at the end) instead of after.
        norm: ``"layer"``, ``"batch"`` or None.
        dropout, tie_dropout: on every residual branch, and in layers that do not set their own.
    """

    def __init__(
        self,
        d_model: int,
        layer: Mapping[str, Any],
        n_layers: int = 1,
        prenorm: bool = True,
        norm: str | None = "layer",
        dropout: float = 0.0,
        tie_dropout: bool = False,
    ) -> None:
        super().__init__()
        self.d_model = self.d_output = check_positive_integer("d_model", d_model)
        layer = dict(layer)
        if layer.get("dropout") is None:
            layer["dropout"] = dropout
        if layer.get("tie_dropout") is None:
            layer["tie_dropout"] = tie_dropout
        self.layers = nn.ModuleList(
            ResidualBlock(
                d_model,
                instantiate("model.layer", LAYERS, layer, d_model=d_model),
                norm,
                prenorm,
                make_dropout(dropout, tie_dropout),
            )
            for _ in range(check_positive_integer("n_layers", n_layers))
        )
        self.norm = make_norm(norm if prenorm else None, d_model)

    def forward(self, x: Tensor, state: list[Any] | None = None, rate: float = 1.0) -> tuple[Tensor, list[Any]]:
        """Map (B, L, H) to (B, L, H); ``state`` is a list with one state a layer, and the next one is returned."""
        states = []
        for block, before in zip(self.layers, state or [None] * len(self.layers), strict=True):
            x, after = block(x, before, rate=rate)
            states.append(after)
        return self.norm(x), states

    def step(self, x: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        """Map one step (B, H) to (B, H)."""
        states = []
        for block, before in zip(self.layers, state, strict=True):
            x, after = block.step(x, before)
            states.append(after)
        return self.norm(x), states

    def default_state(self, *batch_shape: int) -> list[Any]:
        """Return the zero states of all layers."""
        return [block.layer.default_state(*batch_shape) for block in self.layers]


MODELS = {"model": SequenceModel}
