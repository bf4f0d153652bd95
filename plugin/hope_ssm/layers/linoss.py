"""LinOSS: forced harmonic oscillators as the state. Axes: B batch, L steps, H features, p = n/2 oscillators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hope_ssm.checks import check_choice, check_positive_integer
from hope_ssm.kernels.base import S4_OPTIONS
from hope_ssm.kernels.optimizer_options import OptimizerOption
from hope_ssm.kernels.state_space import Dense, StateSpaceKernel
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.shared_state import SharedState, SharedStateLayer

COEFFICIENTS = ("complex", "real")
DISCRETIZATIONS = ("im", "imex", "damped")
MARGIN = 1e-6  # of uniform numbers from 0 and 1, whose quantiles of the normal distribution are taken
PLASTIC = 1.2207440846057596  # x⁴ = x + 1: its powers make points that fill a cube evenly
LEAST_RADIUS = 0.9  # of the eigenvalues at the start of damped oscillators


class OscillatorKernel(StateSpaceKernel):
    """y'' = -a y - g y' + u, one oscillator per feature, in steps of Δ = σ(raw); the state is (y', y), the output y.

    | discretization | step |
    |---|---|
    | im | y' ← y' + Δ (u - a y), y ← y + Δ y', both with the new values: a and y fade, g = 0 |
    | imex | y' ← y' + Δ (u - a y) with the old y, then y ← y + Δ y' with the new y': energy stays, g = 0 |
    | damped | y' ← (y' + Δ (u - a y)) / (1 + Δ g), then y ← y + Δ y' |

    a = max(raw, 0) and g = max(raw, 0). For imex and damped Δ²a is kept between (√S - 1)² and (√S + 1)², S = 1 + Δg,
    where both eigenvalues have the modulus 1/√S: beyond 4 imex would explode. At the start a is uniform on [0, 1] and
    Δ = σ(raw) with raw uniform on [0, 1]. For damped, raw is normal with deviation ½, and a and g are such that the
    eigenvalues r e^{±iθ} are uniform on the ring 0.9 ≤ r ≤ 1:  g = (1/r² - 1)/Δ,  a = (1 + r² - 2r cos θ)/(rΔ)².

    Args:
        discretization: see above.
        copies: how many times the features repeat their oscillators; a, Δ and g are those of d_model/copies features.
        **shared: see ``SequenceKernel``.

    Source: see ``LinOSS``.
    """

    name = "linoss"
    optimizer_options = {  # noqa: RUF012
        "raw_sampling_period": OptimizerOption(("dt", "sampling_period")),
        "stiffness": OptimizerOption(("A",)),
        "damping": OptimizerOption(("A",)),
    }
    idle_optimizer_options = ("B", "C")
    idle_options = S4_OPTIONS | {"init", "n_ssm", "dt_min", "dt_max", "dt_transform"}
    stiffness: Tensor
    damping: Tensor

    def __init__(self, *, discretization: str = "imex", copies: int = 1, **shared: Any) -> None:
        super().__init__(**shared)
        self.n, self.discretization = 2, check_choice("discretization", discretization, DISCRETIZATIONS)
        self.stepwise = discretization == "im"  # of the others steps of two lengths can grow together, each alone not
        count = self.d_model // copies
        raw, stiffness = self._uniform(count, 0), self._uniform(count, 1)
        if self.discretization == "damped":
            raw = torch.special.ndtri(raw.clamp(MARGIN, 1 - MARGIN)) / 2
            dt, theta = torch.sigmoid(raw), math.pi * stiffness
            square = LEAST_RADIUS**2 + (1 - LEAST_RADIUS**2) * self._uniform(count, 2)
            stiffness = (1 + square - 2 * square.sqrt() * torch.cos(theta)) / (square * dt.square())
            self.register("damping", (1 / square - 1) / dt)
        self.register("raw_sampling_period", raw)
        self.register("stiffness", stiffness)
        C = torch.tensor([0.0, 1.0]).expand(self.channels, self.d_model, 2)
        self.register_buffer("C", C.to(torch.get_default_dtype()).clone(), persistent=False)

    def _uniform(self, count: int, axis: int) -> Tensor:
        """Numbers uniform on (0, 1); when deterministic, one of three coordinates of points that fill a cube evenly."""
        if self.deterministic:
            return (0.5 + torch.arange(count, dtype=torch.float64) * PLASTIC ** -(axis + 1)) % 1
        return torch.rand(count, dtype=torch.float64)

    def transformed(self, raw: Tensor) -> Tensor:
        """Δ = σ(raw) of every feature."""
        return self.per_feature(torch.sigmoid(raw))

    def outputs(self) -> Tensor:
        """(0, 1) for every feature, (C, H, 2), float64."""
        return self.C.double()

    def discretized(self, rate: float = 1.0) -> tuple[Dense, Tensor]:
        """(Ā, B̄ (H, 2)), float64."""
        dt, a = self.periods(rate).squeeze(-1), self.per_feature(self.stiffness.double().clamp(min=0))
        if self.discretization == "im":
            kept = 1 / (1 + dt * dt * a)
            rows = [torch.stack([kept, -dt * a * kept], -1), torch.stack([dt * kept, kept], -1)]
            return Dense(torch.stack(rows, -2)), torch.stack([dt * kept, dt * dt * kept], -1)
        scale = torch.ones_like(dt)
        if self.discretization == "damped":
            scale = 1 + dt * self.per_feature(self.damping.double().clamp(min=0))
        square = (dt * dt * a).clamp((scale.sqrt() - 1).square(), (scale.sqrt() + 1).square())
        rows = [torch.stack([1 / scale, -square / (dt * scale)], -1), torch.stack([dt / scale, 1 - square / scale], -1)]
        return Dense(torch.stack(rows, -2)), torch.stack([dt / scale, dt * dt / scale], -1)

    def extra_repr(self) -> str:
        """Return the sizes and the choice, for print(model)."""
        return f"d_model={self.d_model}, channels={self.channels}, discretization={self.discretization!r}"


class LinOSS(SharedStateLayer):
    """(W₁ z + b₁) ⊙ σ(W₂ z + b₂)  with  z = drop(gelu(y)),  y = Re C x + D ⊙ u  and  x'' = -a x - g x' + B u.

    All features force p = n/2 oscillators, and all of them read their positions: B (p, H) and C (H, p) are complex and
    dense, and so are the positions. The real and the imaginary part of each number of B begin uniform up to ±1/√H,
    those of C up to ±1/√p. B has the rows of Re B and then those of Im B, C the columns of Re C and then of -Im C.

    Args:
        d_model: H.
        d_state: n, even; with complex coefficients the state has 2n real numbers.
        coefficients: ``"complex"``, or ``"real"`` for real B, C and positions, half of their numbers (ours).
        discretization: ``"im"``, ``"imex"`` or ``"damped"``, see ``OscillatorKernel``; the first two are LinOSS-IM and
            LinOSS-IMEX, the last D-LinOSS.
        bidirectional: whether the same responses also run backwards, without parameters of their own (ours).
        dropout: see ``make_dropout``; on gelu's outputs.
        tie_dropout: see there.
        lr: learning rates with the keys dt, A (a and g) and B, or one number; None: the optimizer's.
        wd: weight decays, likewise; C has the optimizer's.
        l_max: cut the responses at this length; None: as long as the input.
        drop_kernel: dropout on the samples of the responses.
        convolution: see ``FFTConvolution``.
        frequency_filter: see ``FFTConvolution``.
        input_memory: see ``S4Block``.
        deterministic: no random a, Δ and g.
        verbose: whether to log options that have no effect.
        **idle: options of the S4 block and of its kernels, such as kernel=s4d writes; they have no effect.

    Raises:
        TypeError, ValueError: sizes below 1, an odd d_state, an option that no layer has.

    Source: Rusch, Rus, "Oscillatory State-Space Models", ICLR 2025 (arXiv 2410.03943); Boyer, Rusch, Rus, "Learning to
    Dissipate Energy in Oscillatory State-Space Models" (arXiv 2505.12171) for the damping and the range of a; the
    starts are those of the authors' public code.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        discretization: str = "imex",
        coefficients: str = "complex",
        bidirectional: bool = False,
        dropout: float | None = 0.0,
        tie_dropout: bool | None = False,
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
        if check_positive_integer("d_state", d_state) % 2:
            raise ValueError(f"d_state of linoss must be even, two numbers an oscillator; got {d_state}.")
        self.check_idle("linoss", idle, verbose)
        parts = 2 if check_choice("coefficients", coefficients, COEFFICIENTS) == "complex" else 1
        systems = FFTConvolution(
            parts * d_state // 2, OscillatorKernel, discretization=discretization, copies=parts,
            bidirectional=bidirectional, feedthrough=False, lr=lr, wd=wd, l_max=l_max, drop_kernel=drop_kernel,
            convolution=convolution, frequency_filter=frequency_filter, deterministic=deterministic, verbose=verbose,
        )  # fmt: skip
        B = (2 * torch.rand(1, parts * d_state // 2, d_model) - 1) / math.sqrt(d_model)
        C = (2 * torch.rand(1, d_model, parts * d_state // 2) - 1) / math.sqrt(d_state // 2)
        super().__init__(
            SharedState(systems, B, C, gain=1, lr=lr, wd=wd), d_model, whole_glu=True, dropout=dropout,
            tie_dropout=tie_dropout, input_memory=input_memory,
        )  # fmt: skip
