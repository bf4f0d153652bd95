"""The block around a convolution layer. Axes: B batch, L steps, H features."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hope_ssm import registry
from hope_ssm.checks import check_choice, check_known, check_positive_integer, log_once, option_names
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.input_memory import with_input_memory
from hope_ssm.layers.padding import check_input, without_padding
from hope_ssm.layers.pointwise import make_activation, make_dropout, make_linear

_logger = logging.getLogger("hope_ssm.layers")

INNER_LAYERS = ("fftconv", "grouped_fftconv", "input_memory_fftconv")  # one layer here, three in the host


def renamed(old: str, new: str, old_value: Any, value: Any) -> Any:
    """Return the value of an option that may come under its old name; both names at once are refused."""
    if old_value is None:
        return value
    if value is not None:
        raise ValueError(
            f"{new} and its old name {old} must not both be given; got {new}={value} and {old}={old_value}. "
            f"Use {new} alone."
        )
    log_once(_logger, logging.WARNING, f"{old} is the old name of {new}; use {new}={old_value}.")
    return old_value


def check_options(options: Mapping[str, Any], *owners: type) -> None:
    """Raise ``TypeError`` for an option that no owner has, nor the last, a kernel, among its ``idle_options``."""
    taken = [key for owner in owners for key in option_names(owner)]
    if not hasattr(owners[-1], "idle_options"):
        return  # another distribution's kernel, which says itself what it takes
    valid = list(dict.fromkeys(name for name in taken if name != "d_model"))
    check_known("the layer", [key for key in options if key not in owners[-1].idle_options], valid)


def _one_name(mode: str | None, kernel: str | None) -> str:
    name = kernel if mode is None else mode
    if name is None or None not in (mode, kernel):
        raise ValueError(
            f"the kernel must be named by mode or by kernel, not both; got mode={mode!r}, kernel={kernel!r}."
        )
    return name


class S4Block(nn.Module):
    """y = final_act(W drop(mult_act(z)))  with  z = activation(conv(x)): a convolution, and a map that mixes features.

    With ``gate`` the block is a gated state space, z = (W_y activation(conv(W_u x))) ⊙ gate_act(W_v x). It is gate·H
    features wide, with a convolution of H/bottleneck features. W_u is there with ``bottleneck``, and W_y where the
    convolution is not gate·H wide already. ``gate=4 gate_act=gelu bottleneck=4 final_act=id`` has the widths and
    activations of the paper. Only one activation stands elsewhere: before the convolution in the paper, after it here
    and in the host.

    Args:
        d_model: H.
        mode: name of the kernel, under the default key of the host; or
        kernel: name of the kernel.
        layer: one of ``INNER_LAYERS``, which differ in the host alone.
        activation: see ``make_activation``.
        mult_act: see ``make_activation``.
        bottleneck: a whole number that divides H, or None for none.
        gate: a whole number, or None for none.
        gate_act: an activation's name, ``"glu"`` or ``"glu-<activation>"``.
        final_act: likewise; None leaves out W.
        postact: old name of final_act.
        initializer: of all linear maps, see ``make_linear``.
        weight_norm: of all linear maps, see ``make_linear``.
        dropout: see ``make_dropout``.
        tie_dropout: see ``make_dropout``.
        input_memory: a mapping with size, activation and bias, see ``InputMemory``; None or size 0 for none.
        init: of the kernel.
        measure: old name of init.
        **options: for ``FFTConvolution`` and its kernel.

    Source: Mehta, Gupta, Cutkosky, Neyshabur, "Long Range Language Modeling via Gated State Spaces", ICLR 2023
    (arXiv 2206.13947).
    """

    def __init__(
        self,
        d_model: int,
        *,
        mode: str | None = None,
        kernel: str | None = None,
        layer: str = "fftconv",
        activation: str | None = "gelu",
        bottleneck: int | None = None,
        gate: int | None = None,
        gate_act: str | None = None,
        mult_act: str | None = None,
        final_act: str | None = "glu",
        postact: str | None = None,
        initializer: str | None = None,
        weight_norm: bool = False,
        dropout: float | None = 0.0,
        tie_dropout: bool | None = False,
        input_memory: Mapping[str, Any] | None = None,
        init: str | None = None,
        measure: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        name = _one_name(mode, kernel)
        check_choice("layer", layer, INNER_LAYERS)
        final_act, init = renamed("postact", "final_act", postact, final_act), renamed("measure", "init", measure, init)
        if init is not None:
            options["init"] = init
        check_options(options, S4Block, FFTConvolution, registry.get(name))
        linear: dict[str, Any] = {"initializer": initializer, "weight_norm": weight_norm}
        self.d_model = d_inner = check_positive_integer("d_model", d_model)
        self.input_linear: nn.Module = nn.Identity()
        if bottleneck is not None:
            if d_model % check_positive_integer("bottleneck", bottleneck):
                raise ValueError(f"bottleneck must divide d_model={d_model}; got {bottleneck}.")
            d_inner = d_model // bottleneck
            self.input_linear = make_linear(d_model, d_inner, **linear)
        self.layer: Any = with_input_memory(FFTConvolution(d_inner, name, **options), input_memory, d_inner)
        self.activation, width = make_activation(activation), self.layer.d_output
        self.input_gate: nn.Module | None = None
        if gate is not None:
            width = self._make_gate(gate, gate_act, width, linear)
        self.mult_activation = make_activation(mult_act, "mult_act")
        self.drop = make_dropout(dropout, tie_dropout)
        if final_act is None and width != d_model:
            raise ValueError(
                f"final_act must not be null where the block is {width} features wide inside and {d_model} outside "
                f"(channels={self.layer.channels}, gate={gate}, bottleneck={bottleneck}); got null. Use final_act=id."
            )
        self.output_linear = nn.Identity() if final_act is None else make_linear(
            width, d_model, final_act, option="final_act", **linear
        )  # fmt: skip

    def _make_gate(self, gate: int, gate_act: str | None, width: int, linear: dict[str, Any]) -> int:
        """Make W_v and W_y after a convolution of ``width`` features; return the width of the gated block."""
        d_gate = self.d_model * check_positive_integer("gate", gate)
        self.input_gate = make_linear(self.d_model, d_gate, gate_act or "id", option="gate_act", **linear)
        self.output_gate = nn.Identity() if width == d_gate else make_linear(width, d_gate, **linear)
        return d_gate

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        rate: float = 1.0,
        lengths: Tensor | None = None,
        step_scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Map (B, L, H) to (B, L, H), and a state to the next; the others as in ``FFTConvolution.forward``."""
        check_input(x, "batch", "length", self.d_model)
        if self.input_gate is not None or not isinstance(self.input_linear, nn.Identity):
            x = without_padding(x, lengths)
        y, state = self.layer(self.input_linear(x), state=state, rate=rate, lengths=lengths, step_scale=step_scale)
        return self._pointwise(x, y), state

    def _pointwise(self, x: Tensor, y: Tensor) -> Tensor:
        """Block inputs x (…, H) and outputs of the convolution y (…, C·H/bottleneck) to block outputs (…, H)."""
        z = self.activation(y)
        if self.input_gate is not None:
            z = self.output_gate(z) * self.input_gate(x)
        return self.output_linear(self.drop(self.mult_activation(z)))

    def setup_step(self, **options: Any) -> None:
        """Prepare the kernel for ``step``; see ``FFTConvolution``."""
        self.layer.setup_step(**options)

    def step(self, x: Tensor, state: Tensor, step_scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map one step (B, H) to (B, H); ``step_scale`` (B,) as in ``FFTConvolution.forward``."""
        check_input(x, "batch", self.d_model)
        y, state = self.layer.step(self.input_linear(x), state, step_scale)
        return self._pointwise(x, y), state

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the kernel's zero state."""
        return self.layer.default_state(*batch_shape)
