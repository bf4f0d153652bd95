"""Layers whose features share states: linear maps into and out of systems with one input each.

Axes: B batch, L steps, H features, S heads, N inputs of systems, M their outputs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm import registry
from hope_ssm.checks import check_known, log_once, option_names
from hope_ssm.kernels.base import S4_OPTIONS
from hope_ssm.kernels.optimizer_options import ModuleWithOptions, OptimizerOption
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.input_memory import with_input_memory
from hope_ssm.layers.padding import check_input, without_padding
from hope_ssm.layers.pointwise import make_dropout, make_linear
from hope_ssm.layers.s4block import S4Block

_logger = logging.getLogger("hope_ssm.layers")

Rates = float | Mapping[str, float | None] | None


class SharedState(ModuleWithOptions):
    """y = g C x + D ⊙ u  with  x = κ ∗ (B u), in each of S heads of H/S features; κ is one kernel per row of B.

    Args:
        convolution: κ, without a feedthrough.
        B: at the start, (S, N/S, H/S).
        C: at the start, (S, H/S, M/S), see ``output_matrix``.
        gain: g.
        D: at the start, (H,); None: normal numbers.
        options: of the optimizer, for C and D, by name; what is absent is the global one.
        lr: learning rates; the key B or a number rules B.
        wd: weight decays, likewise.
    """

    def __init__(
        self,
        convolution: FFTConvolution,
        B: Tensor,
        C: Tensor,
        *,
        gain: float,
        lr: Rates,
        wd: Rates,
        D: Tensor | None = None,
        options: Mapping[str, dict[str, float]] | None = None,
    ) -> None:
        super().__init__()
        self.convolution, self.gain = convolution, gain
        self.heads, self.d_output = len(B), len(B) * B.shape[-1]
        rule = OptimizerOption(("B",))
        given = {"lr": rule.of(lr), "weight_decay": rule.of(wd)}  # type: ignore[arg-type]
        self.B: Tensor
        if given["lr"] == 0:
            self.register_buffer("B", B)
        else:
            self.parameter_options["B"] = {key: value for key, value in given.items() if value is not None}
            self.register_parameter("B", nn.Parameter(B))
        self.parameter_options.update(options or {})
        self.C = nn.Parameter(C)
        self.D = nn.Parameter(torch.randn(self.d_output) if D is None else D)

    @property
    def kernel(self) -> nn.Module:
        """The kernel of all systems."""
        return self.convolution.kernel

    def output_matrix(self) -> Tensor:
        """C as it acts on the systems' outputs, (S, H/S, M/S)."""
        return self.C

    def _inputs(self, x: Tensor) -> Tensor:
        """B u, (…, H) to (…, N)."""
        u = x.unflatten(-1, (self.heads, -1))
        return torch.einsum("...sh,snh->...sn", u, self.B.to(x.dtype)).flatten(-2)

    def _outputs(self, states: Tensor, x: Tensor) -> Tensor:
        """g C x + D ⊙ u, (…, M) and (…, H) to (…, H)."""
        states = states.unflatten(-1, (self.heads, -1))
        y = self.gain * torch.einsum("...sm,shm->...sh", states, self.output_matrix().to(x.dtype)).flatten(-2)
        return y + self.D.to(x.dtype) * x

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        rate: float = 1.0,
        lengths: Tensor | None = None,
        step_scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Map (B, L, H) to (B, L, H), and a state to the next; see ``FFTConvolution.forward``."""
        states, state = self.convolution(self._inputs(x), state, rate, lengths, step_scale)
        return self._outputs(states, x), state

    def setup_step(self, **options: Any) -> None:
        """Prepare for ``step``."""
        self.convolution.setup_step(**options)

    def step(self, x: Tensor, state: Tensor, step_scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map one step (B, H) to (B, H)."""
        states, state = self.convolution.step(self._inputs(x), state, step_scale)
        return self._outputs(states, x), state

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state of the convolution."""
        return self.convolution.default_state(*batch_shape)


class SharedStateLayer(nn.Module):
    """z ⊙ σ(W₂ z + b₂)  with  z = drop(gelu(W drop(y) + b))  and y of a ``SharedState``; or (W₁ z + b₁) ⊙ σ(W₂ z + b₂).

    Args:
        system: see there.
        d_model: H.
        mixed: whether there are W and b; otherwise that is z = drop(gelu(y)).
        whole_glu: whether there are W₁ and b₁.
        dropout: see ``make_dropout``; on gelu's outputs.
        tie_dropout: see there.
        input_memory: see ``S4Block``.
    """

    def __init__(
        self,
        system: SharedState,
        d_model: int,
        *,
        mixed: bool = False,
        whole_glu: bool = False,
        dropout: float | None,
        tie_dropout: bool | None,
        input_memory: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        self.d_model = self.d_output = d_model
        self.layer: Any = with_input_memory(system, input_memory, d_model)
        self.mixer: nn.Module | None = nn.Linear(d_model, d_model) if mixed else None
        self.drop = make_dropout(dropout, tie_dropout)
        self.whole_glu = whole_glu
        self.gate: nn.Module = make_linear(d_model, d_model, "glu") if whole_glu else nn.Linear(d_model, d_model)

    @classmethod
    def check_idle(cls, name: str, idle: Mapping[str, Any], verbose: bool) -> None:
        """Raise for options that no layer and no kernel has; log that those of others have no effect."""
        kernel = idle.get("mode") or idle.get("kernel")
        owners = [S4Block, FFTConvolution, *([registry.get(kernel)] if kernel else [])]
        others = S4_OPTIONS.union(*map(option_names, owners))
        check_known(f"the {name} layer", [key for key in idle if key not in others], option_names(cls))
        if verbose and kernel:
            log_once(_logger, logging.INFO, f"{name}: {kernel!r} and other options of a kernel have no effect.")

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
        y, state = self.layer(without_padding(x, lengths), state, rate, lengths, step_scale)
        return self._pointwise(y), state

    def _pointwise(self, y: Tensor) -> Tensor:
        y = y if self.mixer is None else self.mixer(self.drop(y))
        z = self.drop(nn.functional.gelu(y))
        return self.gate(z) if self.whole_glu else z * torch.sigmoid(self.gate(z))

    def setup_step(self, **options: Any) -> None:
        """Prepare for ``step``; no need to, and safe at any time."""
        self.layer.setup_step(**options)

    def step(self, x: Tensor, state: Tensor, step_scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map one step (B, H) to (B, H); ``step_scale`` (B,) as in ``FFTConvolution.forward``."""
        check_input(x, "batch", self.d_model)
        y, state = self.layer.step(x, state, step_scale)
        return self._pointwise(y), state

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state."""
        return self.layer.default_state(*batch_shape)


def slow_rates(lr: Rates, rate: float) -> Rates:
    """Return ``lr`` with ``rate`` for those of dt, A and B that a mapping or None does not name."""
    if lr is not None and not isinstance(lr, Mapping):
        return lr
    said = {key: value for key, value in (lr or {}).items() if value is not None}
    return {"dt": rate, "A": rate, "B": rate, **said}
