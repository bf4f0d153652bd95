"""The residual backbone: blocks with a norm before or after. Axes: B batch, L steps, H features."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.checks import check_flag, check_positive_integer, log_once
from hope_ssm.layers.essm import ESSM
from hope_ssm.layers.linoss import LinOSS
from hope_ssm.layers.padding import reversed_steps, valid_steps, without_padding
from hope_ssm.layers.pointwise import make_dropout
from hope_ssm.layers.s4block import S4Block
from hope_ssm.layers.s5 import S5
from hope_ssm.workbench.models.norms import WHOLE_SEQUENCE, make_norm, normalize
from hope_ssm.workbench.models.pooling import make_pool
from hope_ssm.workbench.models.residuals import make_residual
from hope_ssm.workbench.options import instantiate

_logger = logging.getLogger("hope_ssm.workbench")

LAYERS = {"s4": S4Block, "essm": ESSM, "s5": S5, "linoss": LinOSS}


class ResidualBlock(nn.Module):
    """x ↦ pool(residual(x, f(norm(x)))) with a norm before (prenorm), or x ↦ pool(norm(residual(x, f(x)))).

    The options are those of ``SequenceModel``, and ``number`` counts the blocks from 1.
    """

    def __init__(
        self, d_model: int, number: int, *, layer: Mapping[str, Any], prenorm: bool, bidirectional: bool,
        norm: Any, residual: Any, pool: Any, dropout: float, tie_dropout: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layer = instantiate("model.layer", LAYERS, layer, d_model=d_model)
        self.bidirectional = check_flag("bidirectional", bidirectional)
        if bidirectional:
            self.reverse_layer = instantiate("model.layer", LAYERS, layer, d_model=d_model)
            self.bidirectional_linear = nn.Linear(2 * d_model, d_model)
        self.residual = make_residual(residual, number, d_model)
        self.norm = make_norm(norm, d_model)
        self.prenorm = check_flag("prenorm", prenorm)
        self.drop = make_dropout(dropout, tie_dropout)
        self.pool = make_pool(pool, d_model)

    @property
    def obstacle(self) -> tuple[str, str] | None:
        """What keeps the block from passing a state or a single step and why, and the mend; None if nothing does."""
        if self.bidirectional:
            return "bidirectional=true, whose second layer begins at the end of the sequence", "bidirectional=false"
        if self.pool.stride > 1:
            return f"pool.stride={self.pool.stride}, after which most steps have no output", "pool.stride=1"
        if isinstance(self.norm, WHOLE_SEQUENCE):
            return f"the norm {type(self.norm).__name__}, whose mean and variance are of all steps", "norm=layer"
        return None

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        rate: float = 1.0,
        lengths: Tensor | None = None,
        step_scale: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Map (B, L, H) to (B, L', H'), which the pool makes of it, and a state to the next."""
        y = normalize(self.norm, x, lengths) if self.prenorm else x
        scaled = {} if step_scale is None else {"step_scale": step_scale}  # which layers of others need not have
        forward, state = self.layer(y, state, rate=rate, lengths=lengths, **scaled)
        if self.bidirectional:
            reverse, _ = self.reverse_layer(reversed_steps(y, lengths), rate=rate, lengths=lengths)
            forward = self.bidirectional_linear(torch.cat([forward, reversed_steps(reverse, lengths)], dim=-1))
        y = self.residual(x, self.drop(forward))
        return self.pool(y if self.prenorm else normalize(self.norm, y, lengths)), state

    def step(self, x: Tensor, state: Any, step_scale: Tensor | None = None) -> tuple[Tensor, Any]:
        """Map one step (B, H) to (B, H')."""
        scaled = () if step_scale is None else (step_scale,)
        y, state = self.layer.step(self.norm(x) if self.prenorm else x, state, *scaled)
        y = self.residual(x, self.drop(y))
        return self.pool(y if self.prenorm else self.norm(y)), state


class SequenceModel(nn.Module):
    """A stack of residual blocks, (B, L, H) to (B, L, H); with pools (B, L', H').

    Args:
        d_model: H.
        layer: configuration of the layer in every block, with ``_name_``.
        n_layers: n_layers·n_repeat blocks in all.
        n_repeat: a pool follows every ``n_repeat`` blocks.
        prenorm: norm before the layer (and one more at the end) instead of after.
        norm: ``"layer"``, ``"batch"``, ``"instance"``, ``"group"``, or None; see ``norms``.
        dropout: on every residual branch, and in layers that do not set their own.
        tie_dropout: one mask for all steps of a sequence; in layers too that do not set their own.
        dropinp: dropout on the inputs.
        bidirectional: two layers per block, the second on each sequence backwards, and a linear map of both. (In the
            host the second hears the sequence forwards too. The layer's own ``bidirectional`` is a two-sided kernel.)
        residual: ``"R"`` and others, see ``residuals``; None for none.
        pool: see ``pooling``; None for none.
        transposed: accepted for the host's sake; the axes are (B, L, H) here either way.
        track_norms: keep the mean square of the inputs and of every block's outputs, in training, in ``metrics``.
        encoder: None; the workbench has a group of this name.
        decoder: None; the workbench has a group of this name.
    """

    def __init__(
        self,
        d_model: int,
        layer: Mapping[str, Any],
        n_layers: int = 1,
        prenorm: bool = True,
        norm: str | Mapping[str, Any] | None = "layer",
        dropout: float = 0.0,
        tie_dropout: bool = False,
        bidirectional: bool = False,
        residual: str | Mapping[str, Any] | None = "R",
        pool: str | Mapping[str, Any] | None = None,
        n_repeat: int = 1,
        dropinp: float = 0.0,
        transposed: bool = False,
        track_norms: bool = False,
        encoder: None = None,
        decoder: None = None,
    ) -> None:
        super().__init__()
        for group, value in (("encoder", encoder), ("decoder", decoder)):
            if value is not None:
                raise ValueError(f"model.{group} must be null; got {value}. Set the group {group} instead.")
        if check_flag("transposed", transposed):
            log_once(_logger, logging.INFO, "model.transposed=true has no effect: the axes are (B, L, H) either way.")
        self.d_model = d = check_positive_integer("d_model", d_model)
        self.track_norms = check_flag("track_norms", track_norms)
        self.metrics: dict[str, Tensor] = {}
        layer = {key: value for key, value in layer.items() if key != "transposed"}
        layer["dropout"] = dropout if layer.get("dropout") is None else layer["dropout"]
        layer["tie_dropout"] = tie_dropout if layer.get("tie_dropout") is None else layer["tie_dropout"]
        self.drop = make_dropout(dropinp, tie_dropout, "dropinp")
        self.layers: Any = nn.ModuleList()
        n_repeat = check_positive_integer("n_repeat", n_repeat)
        for number in range(1, check_positive_integer("n_layers", n_layers) * n_repeat + 1):
            block = ResidualBlock(
                d, number, layer=layer, prenorm=prenorm, bidirectional=bidirectional, norm=norm, residual=residual,
                pool=None if number % n_repeat else pool, dropout=dropout, tie_dropout=tie_dropout,
            )  # fmt: skip
            self.layers.append(block)
            d = block.pool.d_output
        self.d_output = d
        self.norm = make_norm(norm if prenorm else None, d)

    def forward(
        self,
        x: Tensor,
        state: list[Any] | None = None,
        rate: float = 1.0,
        lengths: Tensor | None = None,
        step_scale: Tensor | None = None,
    ) -> tuple[Tensor, list[Any]]:
        """Map (B, L, H) to (B, L', H'), and the states to the next ones.

        Args:
            x: inputs, (B, L, H).
            state: one state per layer, or None.
            rate: relative sampling rate.
            lengths: (B,) whole numbers if the sequences end before L. What follows does not change the outputs
                before it, the states or the statistics of norms; the output there is 0.
            step_scale: (B, L), times between the samples in sampling periods, where they are not all 1; see
                ``FFTConvolution.forward``.

        Returns:
            (B, L', H'), and one state per layer (None without ``state``); see ``output_lengths``.
        """
        if state is not None:
            self._check_recurrent()
        if step_scale is not None:
            self._check_same_steps()
        states, squares = [], []
        x = self.drop(without_padding(x, lengths))
        for block, before in zip(self.layers, self._per_layer(state), strict=True):
            squares.append(self._mean_square(x, lengths))
            x, after = block(x, before, rate=rate, lengths=lengths, step_scale=step_scale)
            lengths = None if lengths is None else block.pool.output_lengths(lengths)
            states.append(after)
        if self.training and self.track_norms:
            squares.append(self._mean_square(x, lengths))
            self.metrics = {f"norm/{i}": square for i, square in enumerate(squares) if square is not None}
        return without_padding(normalize(self.norm, x, lengths), lengths), states

    def output_lengths(self, lengths: Tensor | None) -> Tensor | None:
        """Return the lengths (B,) of the outputs for inputs of ``lengths`` (B,): what the pools leave of them."""
        for block in self.layers if lengths is not None else ():
            lengths = block.pool.output_lengths(lengths)
        return lengths

    def _mean_square(self, x: Tensor, lengths: Tensor | None) -> Tensor | None:
        if not (self.training and self.track_norms):
            return None
        x = x.detach()
        return (x if lengths is None else x[valid_steps(x, lengths)]).square().mean()

    @property
    def awaits_length(self) -> bool:
        """Whether a kernel has windows for which nothing has said yet how long the sequences are."""
        return any(getattr(part, "awaits_length", False) for block in self.layers for part in block.modules())

    def set_length(self, length: int) -> None:
        """Let the windows of all kernels that wait for it suit sequences of ``length`` steps."""
        steps = torch.tensor([length])
        for block in self.layers:
            for part in block.modules():
                if getattr(part, "awaits_length", False):
                    part.set_length(int(steps))
            steps = block.pool.output_lengths(steps)

    def _check_recurrent(self) -> None:
        found = next((block.obstacle for block in self.layers if block.obstacle), None)
        if found is not None:
            raise ValueError(
                f"a model must be called whole, without a state or steps, with {found[0]}; got a state. "
                f"Use model.{found[1]}."
            )

    def _check_same_steps(self) -> None:
        """Raise where blocks do not keep the steps and their order."""
        for block in self.layers:
            for option, found in (("bidirectional=true", block.bidirectional), ("a pool", block.pool.stride > 1)):
                if found:
                    raise ValueError(f"step_scale must be None in a model with {option}; leave out one of them.")

    def _per_layer(self, state: Any) -> list[Any]:
        if state is None:
            return [None] * len(self.layers)
        if not isinstance(state, (list, tuple)) or len(state) != len(self.layers):
            got = len(state) if isinstance(state, (list, tuple)) else type(state).__name__
            raise ValueError(
                f"the state must be a list of {len(self.layers)}, one per layer; got {got}. "
                "default_state(batch) makes one."
            )
        return list(state)

    def setup_step(self, **options: Any) -> None:
        """Prepare all layers for ``step``, as in the host; no need to, and safe at any time."""
        self._check_recurrent()
        for block in self.layers:
            block.layer.setup_step(**options)

    def step(self, x: Tensor, state: list[Any], step_scale: Tensor | None = None) -> tuple[Tensor, list[Any]]:
        """Map one step (B, H) to (B, H'), and the states to the next ones; ``step_scale`` (B,) as in ``forward``."""
        self._check_recurrent()
        states, x = [], self.drop(x)
        for block, before in zip(self.layers, self._per_layer(state), strict=True):
            x, after = block.step(x, before, step_scale)
            states.append(after)
        return self.norm(x), states

    def default_state(self, *batch_shape: int) -> list[Any]:
        """Return the zero states of all layers."""
        return [block.layer.default_state(*batch_shape) for block in self.layers]


MODELS = {"model": SequenceModel}
