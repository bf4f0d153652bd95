"""eSSM: heads with several inputs and outputs around one-mode systems. Axes: B batch, L steps, H features, S heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hope_ssm.checks import check_positive_integer
from hope_ssm.kernels.base import S4_OPTIONS
from hope_ssm.kernels.hippo import legs, normal_modes
from hope_ssm.kernels.modal import Diagonal, ModalKernel, zero_order_hold
from hope_ssm.kernels.optimizer_options import OptimizerOption
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.shared_state import SharedState, SharedStateLayer, slow_rates

LEAST_DECAY = 1e-4
RATE = 0.001  # the published learning rate of Λ, Δ and B


class OneModeKernel(ModalKernel):
    """κ_t = 2 Re[c e^{λΔt} (e^{λΔ} - 1)/λ]  with  Re λ = min(raw, -1e-4): one mode and one Δ per feature, B = 1.

    Args:
        heads: S; all heads begin with the same poles, those of the normal part of HiPPO-LegS.
        copies: how many times the features repeat their modes; λ and Δ are those of d_model/copies features.
        parts: (Re c, Im c) for every channel, or for all of them: (½, 0) is the real part, (0, -½) the imaginary one.
        **shared: see ``SequenceKernel``.

    Source: see ``ESSM`` and ``S5``.
    """

    name = "essm"
    stepwise = True
    optimizer_options = {  # noqa: RUF012
        "raw_sampling_period": OptimizerOption(("dt", "sampling_period")),
        "A_real": OptimizerOption(("A",)),
        "A_imag": OptimizerOption(("A",)),
    }
    idle_optimizer_options = ("B", "C")
    idle_options = S4_OPTIONS | {"init", "n_ssm"}

    def __init__(
        self, *, heads: int, copies: int = 1, parts: Sequence[tuple[float, float]] = ((0.5, 0.0),), **shared: Any
    ) -> None:
        super().__init__(**shared)
        self.n, modes = 2, self.d_model // copies
        A, _, P = legs(2 * modes // heads)
        poles = torch.as_tensor(np.tile(normal_modes(A, P)[0], heads)).unsqueeze(-1)
        self.register_sampling_period("raw_sampling_period", modes)
        self.register("A_real", -poles.real.abs())
        self.register("A_imag", -poles.imag.abs())
        C = torch.tensor(parts)[:, None, None].expand(self.channels, self.d_model, 1, 2)
        self.register_buffer("C", C.to(torch.get_default_dtype()).clone(), persistent=False)

    def transformed(self, raw: Tensor) -> Tensor:
        """Δ of every feature."""
        return self.per_feature(super().transformed(raw))

    def poles(self) -> Diagonal:
        """λ, each part (H, 1), float64."""
        real, imaginary = self.A_real.double().clamp(max=-LEAST_DECAY), self.A_imag.double()
        return Diagonal(self.per_feature(real), self.per_feature(imaginary))

    def discretized(self, rate: float = 1.0) -> tuple[Diagonal, Tensor]:
        """(Ā, B̄ (H, 2) in coordinates) by the zero-order hold of B = 1, float64."""
        poles = self.poles()
        one = torch.cat([torch.ones_like(poles.real), torch.zeros_like(poles.real)], dim=-1)
        return zero_order_hold(poles, one, self.periods(rate))


class ESSM(SharedStateLayer):
    """z ⊙ σ(W₂ z + b₂)  with  z = drop(gelu(W drop(y) + b)),  y = 2 C x + D ⊙ u  and  x_j = κ_j ∗ (B u)_j,
    κ_j(t) = Re[e^{λ_jΔ_jt} (e^{λ_jΔ_j} - 1)/λ_j].

    B and C are block-diagonal: S heads of H/S inputs and outputs and n modes each. W mixes the heads, where S > 1. The
    convolutions are one per mode, S·n in all. At the start λ is the normal part of HiPPO-LegS in every head; B is the
    real part of V* Z with Z complex and both parts truncated normal, the same in every head; C is truncated normal, D
    is 1, and Δ log-uniform.

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
            D has that of dt, C the optimizer's.
        wd: weight decays, likewise; C and D have none.
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
    its public code, there called LDNN.
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
        check_positive_integer("d_model", d_model)
        heads, d_state = check_positive_integer("heads", heads), check_positive_integer("d_state", d_state)
        if d_model % heads:
            raise ValueError(f"heads must divide d_model={d_model}; got {heads}.")
        self.check_idle("essm", idle, verbose)
        lr = slow_rates(lr, RATE)
        systems = FFTConvolution(
            heads * d_state, OneModeKernel, heads=heads, bidirectional=bidirectional, feedthrough=False,
            dt_min=dt_min, dt_max=dt_max, dt_transform=dt_transform or "exp", lr=lr, wd=wd, l_max=l_max,
            drop_kernel=drop_kernel, convolution=convolution, frequency_filter=frequency_filter,
            deterministic=deterministic, verbose=verbose,
        )  # fmt: skip
        A, _, P = legs(2 * d_state)
        modes, width = torch.as_tensor(normal_modes(A, P)[1].conj()), d_model // heads  # V* (n, 2n)
        draws = nn.init.trunc_normal_(torch.empty(2, 2 * d_state, width, dtype=torch.float64))
        B = (modes @ torch.complex(*draws)).real.to(torch.get_default_dtype()).repeat(heads, 1, 1)
        C = nn.init.trunc_normal_(torch.empty(heads, width, d_state))
        options = {"C": {"weight_decay": 0.0}, "D": {"weight_decay": 0.0}}
        if rate := OptimizerOption(("dt",)).of(lr):  # type: ignore[arg-type]
            options["D"]["lr"] = rate
        super().__init__(
            SharedState(systems, B, C, gain=2, lr=lr, wd=wd, D=torch.ones(d_model), options=options), d_model,
            mixed=heads > 1, dropout=dropout, tie_dropout=tie_dropout, input_memory=input_memory,
        )  # fmt: skip
