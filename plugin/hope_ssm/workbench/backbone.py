"""The residual backbone: blocks with a norm before or after. Axes: B batch, L steps, H features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.checks import check_choice, check_flag, check_positive_integer
from hope_ssm.workbench.convolution import valid_steps, without_padding
from hope_ssm.workbench.layers import S4Block, make_dropout
from hope_ssm.workbench.options import instantiate

LAYERS = {"s4": S4Block}


class BatchNorm(nn.BatchNorm1d):
    """Batch normalization of (B, L, H) over B and L, or of one step (B, H)."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Normalize each feature; where steps are not ``valid`` (B, L), they count for nothing and become 0."""
        if x.ndim == 2:
            return super().forward(x)
        if valid is not None:
            return torch.zeros_like(x).masked_scatter(valid.unsqueeze(-1), super().forward(x[valid]))
        return super().forward(x.flatten(0, 1)).view_as(x)


NORMS = {"layer": nn.LayerNorm, "batch": BatchNorm}


def make_norm(name: str | None, d_model: int) -> nn.Module:
    """Return the norm called ``name``; None is the identity."""
    return nn.Identity() if name is None else NORMS[check_choice("norm", name, NORMS)](d_model)


def normalize(norm: nn.Module, x: Tensor, lengths: Tensor | None) -> Tensor:
    """Apply a norm to (B, L, H) or (B, H) so that padding does not enter its statistics."""
    if lengths is not None and isinstance(norm, BatchNorm):
        return norm(x, valid_steps(x, lengths))
    return norm(x)


class ResidualBlock(nn.Module):
    """x ↦ x + f(norm(x)) with a norm before (prenorm), or x ↦ norm(x + f(x))."""

    def __init__(self, d_model: int, layer: nn.Module, norm: str | None, prenorm: bool, drop: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.norm = make_norm(norm, d_model)
        self.prenorm = check_flag("prenorm", prenorm)
        self.drop = drop

    def forward(
        self, x: Tensor, state: Any = None, rate: float = 1.0, lengths: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """Map (B, L, H) to (B, L, H), and a state to the next."""
        y = normalize(self.norm, x, lengths) if self.prenorm else x
        y, state = self.layer(y, state, rate=rate, lengths=lengths)
        y = x + self.drop(y)
        return (y if self.prenorm else normalize(self.norm, y, lengths)), state

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Map one step (B, H) to (B, H)."""
        y, state = self.layer.step(self.norm(x) if self.prenorm else x, state)
        y = x + self.drop(y)
        return (y if self.prenorm else self.norm(y)), state


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

    def forward(
        self, x: Tensor, state: list[Any] | None = None, rate: float = 1.0, lengths: Tensor | None = None
    ) -> tuple[Tensor, list[Any]]:
        """Map (B, L, H) to (B, L, H), and the states to the next ones.

        Args:
            x: inputs, (B, L, H).
            state: one state a layer, or None.
            rate: relative sampling rate.
            lengths: (B,) whole numbers if the sequences end before L. What follows does not change the outputs
                before it, the states or the statistics of norms; the output there is 0.

        Returns: (B, L, H), and one state a layer (None without ``state``).
        """
        states = []
        x = without_padding(x, lengths)
        for block, before in zip(self.layers, self._per_layer(state), strict=True):
            x, after = block(x, before, rate=rate, lengths=lengths)
            states.append(after)
        return without_padding(normalize(self.norm, x, lengths), lengths), states

    def _per_layer(self, state: Any) -> list[Any]:
        if state is None:
            return [None] * len(self.layers)
        if not isinstance(state, (list, tuple)) or len(state) != len(self.layers):
            got = len(state) if isinstance(state, (list, tuple)) else type(state).__name__
            raise ValueError(
                f"the state must be a list of {len(self.layers)}, one a layer; got {got}. "
                "default_state(batch) makes one."
            )
        return list(state)

    def setup_step(self, **options: Any) -> None:
        """Prepare all layers for :meth:`step`, as in the host; no need to, and safe at any time."""
        for block in self.layers:
            block.layer.setup_step(**options)

    def step(self, x: Tensor, state: list[Any]) -> tuple[Tensor, list[Any]]:
        """Map one step (B, H) to (B, H), and the states to the next ones."""
        states = []
        for block, before in zip(self.layers, self._per_layer(state), strict=True):
            x, after = block.step(x, before)
            states.append(after)
        return self.norm(x), states

    def default_state(self, *batch_shape: int) -> list[Any]:
        """Return the zero states of all layers."""
        return [block.layer.default_state(*batch_shape) for block in self.layers]


MODELS = {"model": SequenceModel}
