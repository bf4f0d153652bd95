"""eSSM: heads with several inputs and outputs around one-mode systems. Axes: B batch, L steps, H features, S heads."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hope_ssm import registry
from hope_ssm.checks import check_known, check_positive_integer, log_once, option_names
from hope_ssm.kernels.base import S4_OPTIONS
from hope_ssm.kernels.hippo import legs, normal_modes
from hope_ssm.kernels.modal import Diagonal, ModalKernel, zero_order_hold
from hope_ssm.kernels.optimizer_options import ModuleWithOptions, OptimizerOption
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.input_memory import with_input_memory
from hope_ssm.layers.padding import check_input, without_padding
from hope_ssm.layers.pointwise import make_dropout
from hope_ssm.layers.s4block import S4Block

_logger = logging.getLogger("hope_ssm.layers")

LEAST_DECAY = 1e-4
RATE = 0.001  # the published learning rate of Λ, Δ and B


class OneModeKernel(ModalKernel):
    """κ_t = Re[e^{λΔt} (e^{λΔ} - 1)/λ]  with  Re λ = min(raw, -1e-4): one mode and one Δ per feature, no B and no C.

    Args:
        heads: S; all heads begin with the same poles, those of the normal part of HiPPO-LegS.
        **shared: see ``SequenceKernel``; d_model is S·n.

    Source: see ``ESSM``.
    """

    name = "essm"
    optimizer_options = {  # noqa: RUF012
        "raw_sampling_period": OptimizerOption(("dt", "sampling_period")),
        "A_real": OptimizerOption(("A",)),
        "A_imag": OptimizerOption(("A",)),
    }
    idle_optimizer_options = ("B", "C")
    idle_options = S4_OPTIONS | {"init", "n_ssm"}

    def __init__(self, *, heads: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.n = 2
        A, _, P = legs(2 * self.d_model // heads)
        poles = torch.as_tensor(np.tile(normal_modes(A, P)[0], heads)).unsqueeze(-1)
        self.register_sampling_period("raw_sampling_period", self.d_model)
        self.register("A_real", -poles.real.abs())
        self.register("A_imag", -poles.imag.abs())
        C = torch.tensor([0.5, 0.0]).expand(self.channels, self.d_model, 1, 2)  # the kernels' outputs are 2 Re C z
        self.register_buffer("C", C.to(torch.get_default_dtype()).clone(), persistent=False)

    def poles(self) -> Diagonal:
        """λ, each part (S·n, 1), float64."""
        return Diagonal(self.A_real.double().clamp(max=-LEAST_DECAY), self.A_imag.double())

    def discretized(self, rate: float = 1.0) -> tuple[Diagonal, Tensor]:
        """(Ā, B̄ (S·n, 2) in coordinates) by the zero-order hold of B = 1, float64."""
        poles = self.poles()
        one = torch.cat([torch.ones_like(poles.real), torch.zeros_like(poles.real)], dim=-1)
        return zero_order_hold(poles, one, self.periods(rate))


class HeadsOfModes(ModuleWithOptions):
    """y = 2 C x + D ⊙ u  with  x_j = κ_j ∗ (B u)_j  in each of S heads of H/S features and n modes.

    Args:
        d_model: H.
        heads: S.
        d_state: n.
        bidirectional: whether κ also runs backwards, κ(-t-1) for t < 0; it has no parameters of its own.
        lr: learning rates with the keys dt, A and B.
        wd: weight decays, likewise.
        **options: of ``FFTConvolution`` and of ``OneModeKernel``.
    """

    def __init__(
        self, d_model: int, heads: int, d_state: int, bidirectional: bool, lr: Any, wd: Any, **options: Any
    ) -> None:
        super().__init__()
        self.heads, self.d_output, width = heads, d_model, d_model // heads
        self.convolution = FFTConvolution(
            heads * d_state, OneModeKernel, bidirectional=bidirectional, heads=heads, lr=lr, wd=wd,
            feedthrough=False, **options,
        )  # fmt: skip
        A, _, P = legs(2 * d_state)
        projection = torch.as_tensor(normal_modes(A, P)[1].real.copy())
        draws = nn.init.trunc_normal_(torch.empty(heads, 2 * d_state, width, dtype=torch.float64))
        B = (projection @ draws / math.sqrt(width)).to(torch.get_default_dtype())
        rule = OptimizerOption(("B",))
        given = {"lr": rule.of(lr), "weight_decay": rule.of(wd)}
        self.B: Tensor
        if given["lr"] == 0:
            self.register_buffer("B", B)
        else:
            self.parameter_options["B"] = {key: value for key, value in given.items() if value is not None}
            self.register_parameter("B", nn.Parameter(B))
        self.C = nn.Parameter(nn.init.trunc_normal_(torch.empty(heads, width, d_state)) / math.sqrt(d_state))
        self.D = nn.Parameter(torch.randn(d_model))

    @property
    def kernel(self) -> nn.Module:
        """The kernel of S·n modes."""
        return self.convolution.kernel

    def _inputs(self, x: Tensor) -> Tensor:
        """B u, (…, H) to (…, S·n)."""
        u = x.unflatten(-1, (self.heads, -1))
        return torch.einsum("...sh,snh->...sn", u, self.B.to(x.dtype)).flatten(-2)

    def _outputs(self, modes: Tensor, x: Tensor) -> Tensor:
        """2 C x + D ⊙ u, (…, S·n) and (…, H) to (…, H)."""
        modes = modes.unflatten(-1, (self.heads, -1))
        y = 2 * torch.einsum("...sn,shn->...sh", modes, self.C.to(x.dtype)).flatten(-2)
        return y + self.D.to(x.dtype) * x

    def forward(
        self, x: Tensor, state: Tensor | None = None, rate: float = 1.0, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Map (B, L, H) to (B, L, H), and a state to the next; see ``FFTConvolution.forward``."""
        modes, state = self.convolution(self._inputs(x), state=state, rate=rate, lengths=lengths)
        return self._outputs(modes, x), state

    def setup_step(self, **options: Any) -> None:
        """Prepare for ``step``."""
        self.convolution.setup_step(**options)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map one step (B, H) to (B, H)."""
        modes, state = self.convolution.step(self._inputs(x), state)
        return self._outputs(modes, x), state

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state (*batch_shape, S·n, 1), complex."""
        return self.convolution.default_state(*batch_shape)


class ESSM(nn.Module):
    """z ⊙ σ(W₂ z + b)  with  z = drop(gelu(W y)),  y = 2 C x + D ⊙ u  and  x_j = κ_j ∗ (B u)_j,
    κ_j(t) = Re[e^{λ_jΔ_jt} (e^{λ_jΔ_j} - 1)/λ_j].

    B and C are block-diagonal: S heads of H/S inputs and outputs and n modes each. W mixes the heads, where S > 1. The
    convolutions are one per mode, S·n in all. At the start λ is the normal part of HiPPO-LegS in every head; B is the
    real part of V* W with W truncated normal, C truncated normal, and Δ log-uniform.

    Args:
        d_model: H.
        heads: S, a divisor of H.
        d_state: n, modes of a head, at least 1.
        bidirectional: whether κ also runs backwards, κ(-t-1) for t < 0, without parameters of its own.
        dropout: see ``make_dropout``; on gelu's outputs.
        tie_dropout: see there.
        dt_min: least initial Δ; None means 0.001.
        dt_max: greatest initial Δ; None means 0.1.
        dt_transform: see ``SequenceKernel``; None means ``"exp"``.
        lr: learning rates with the keys dt, A and B, or one number; a missing or null key means 0.001, the published.
        wd: weight decays, likewise; C has the optimizer's.
        l_max: cut the kernels at this length; None: as long as the input.
        drop_kernel: dropout on the samples of the kernels.
        convolution: see ``FFTConvolution``.
        frequency_filter: see ``FFTConvolution``.
        input_memory: see ``S4Block``.
        deterministic: no random Δ.
        verbose: whether to log options that have no effect.
        **idle: options of the S4 block and of its kernels, such as kernel=s4d writes; they have no effect.

    Raises:
        TypeError, ValueError: sizes below 1, heads that do not divide d_model, an option that no layer has.

    Source: "Efficient state space model via fast tensor convolution and block diagonalization" (arXiv 2402.15290) and
    its public code, there called LDNN. The scales of B and C at the start are ours.
    """

    def __init__(
        self,
        d_model: int,
        *,
        heads: int = 8,
        d_state: int = 64,
        bidirectional: bool = False,
        dropout: float | None = 0.0,
        tie_dropout: bool | None = False,
        dt_min: float | None = None,
        dt_max: float | None = None,
        dt_transform: str | None = None,
        lr: float | Mapping[str, float | None] | None = None,
        wd: float | Mapping[str, float | None] | None = 0.0,
        l_max: int | None = None,
        drop_kernel: float = 0.0,
        convolution: str = "auto",
        frequency_filter: Mapping[str, float | None] | None = None,
        input_memory: Mapping[str, Any] | None = None,
        deterministic: bool = False,
        verbose: bool = True,
        **idle: Any,
    ) -> None:
        super().__init__()
        self.d_model = self.d_output = check_positive_integer("d_model", d_model)
        heads, d_state = check_positive_integer("heads", heads), check_positive_integer("d_state", d_state)
        if d_model % heads:
            raise ValueError(f"heads must divide d_model={d_model}; got {heads}.")
        self._check_idle(idle, verbose)
        if lr is None or isinstance(lr, Mapping):
            said = {key: value for key, value in (lr or {}).items() if value is not None}
            lr = {"dt": RATE, "A": RATE, "B": RATE, **said}
        system = HeadsOfModes(
            d_model, heads, d_state, bidirectional, lr, wd, dt_min=dt_min, dt_max=dt_max,
            dt_transform=dt_transform or "exp", l_max=l_max, drop_kernel=drop_kernel, convolution=convolution,
            frequency_filter=frequency_filter, deterministic=deterministic, verbose=verbose,
        )  # fmt: skip
        self.layer: Any = with_input_memory(system, input_memory, d_model)
        self.mixer: nn.Module = nn.Linear(d_model, d_model, bias=False) if heads > 1 else nn.Identity()
        self.drop = make_dropout(dropout, tie_dropout)
        self.gate = nn.Linear(d_model, d_model)

    @staticmethod
    def _check_idle(idle: Mapping[str, Any], verbose: bool) -> None:
        name = idle.get("mode") or idle.get("kernel")
        owners = [S4Block, FFTConvolution, *([registry.get(name)] if name else [])]
        others = S4_OPTIONS.union(*map(option_names, owners))
        check_known("the essm layer", [key for key in idle if key not in others], option_names(ESSM))
        if verbose and name:
            log_once(_logger, logging.INFO, f"essm: {name!r} and other options of a kernel have no effect.")

    def forward(
        self, x: Tensor, state: Tensor | None = None, rate: float = 1.0, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Map (B, L, H) to (B, L, H), and a state to the next; ``lengths`` as in ``FFTConvolution``."""
        check_input(x, "batch", "length", self.d_model)
        y, state = self.layer(without_padding(x, lengths), state=state, rate=rate, lengths=lengths)
        return self._pointwise(y), state

    def _pointwise(self, y: Tensor) -> Tensor:
        z = self.drop(nn.functional.gelu(self.mixer(y)))
        return z * torch.sigmoid(self.gate(z))

    def setup_step(self, **options: Any) -> None:
        """Prepare for ``step``; no need to, and safe at any time."""
        self.layer.setup_step(**options)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map one step (B, H) to (B, H)."""
        check_input(x, "batch", self.d_model)
        y, state = self.layer.step(x, state)
        return self._pointwise(y), state

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state."""
        return self.layer.default_state(*batch_shape)
