"""RTF: a rational transfer function by its coefficients."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hope_ssm.checks import check_choice, check_positive_integer, check_positive_number
from hope_ssm.kernels.base import S4_OPTIONS
from hope_ssm.kernels.optimizer_options import OptimizerOption
from hope_ssm.kernels.state_space import StateSpaceKernel, repeated_squares
from hope_ssm.ops.convolution import TRUNCATIONS
from hope_ssm.ops.transforms import largest
from hope_ssm.precision import working_dtype

STARTS = ("scaled", "xavier", "montel")
CONSTRAINTS = ("no", "l1_montel")


@dataclass  # made in compiled graphs, where older compilers know no frozen ones
class Companion:
    """The companion matrix (x_1, …, x_n) → (-Σ_j a_j x_j, x_1, …, x_{n-1}) of a (H, n)."""

    coefficients: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Ā x.

        Args:
            x: (..., H, n).

        Returns:
            the same shape.
        """
        return torch.cat([-(self.coefficients * x).sum(-1, keepdim=True), x[..., :-1]], dim=-1)

    def squares(self, count: int) -> list[Tensor]:
        """Ā, Ā², Ā⁴, … (H, n, n)."""
        a = self.coefficients
        shift = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)[:-1].expand(len(a), -1, -1)
        return repeated_squares(torch.cat([-a.unsqueeze(-2), shift], dim=-2), count)


class RTFKernel(StateSpaceKernel):
    """Σ_t k_t z^{-t} = (b_1 + b_2 z⁻¹ + … + b_n z^{-(n-1)}) / (1 + a_1 z⁻¹ + … + a_n z^{-n}).

    One FFT of the numerator and one of the denominator sample it at M ≥ L roots of unity, without any state. These
    samples belong to the kernel wrapped around after M. So the FFT takes the numerator b - b Ā^M instead, where Ā is
    the companion matrix of a: its kernel is the same up to M and 0 beyond. The result is exact for every L, and the
    same system as the steps s ← Ā s + e_1 u, y = b·s. a (the denominator) is shared by n_ssm, the paper's ``num_a``;
    b is one per feature. There is no Δt: ``rate`` must be 1. Nothing keeps the poles inside the unit circle without
    a ``constraint``.

    The feedthrough h_0 of the paper is the layer's D. ``lr`` and ``wd`` know the keys A or denominator (a bare number
    rules it) and C or numerator.

    Args:
        d_model: H features.
        d_state: n.
        init_scale: √E‖b‖² of a system at the start, where a = 0; 0 for the paper's zero initialization of everything,
            with which a begins to train at the second step.
        start: how a and b begin: ``"scaled"``, a = 0 and b as ``init_scale`` says; or, as in the authors' code by these
            names, both uniform up to ±1/√n (``"xavier"``) or up to ±1/n (``"montel"``).
        constraint: ``"no"``; or ``"l1_montel"``, the denominator a / (Σ|a_j| + |s|) with a trained s, whose poles are
            inside the unit circle.
        truncation: ``"exact"``; or ``"none"`` for the convolution of the paper, which has L roots of unity, wraps
            around, and trains b in place of b - b Ā^L. Then there is neither a state nor ``step``.
        **shared: ``channels``, ``l_max``, ``n_ssm``, ``deterministic``, ``lr``, ``wd``, ``verbose``: see
            ``SequenceKernel``.

    Source: Parnichkun et al., "State-Free Inference of State-Space Models: The Transfer Function Approach", ICML 2024
    (arXiv 2405.06147).
    """

    name = "rtf"
    optimizer_options = {  # noqa: RUF012
        "denominator": OptimizerOption(("A", "denominator")),
        "slack": OptimizerOption(("A", "denominator")),
        "numerator": OptimizerOption(("C", "numerator"), bare="never"),
    }
    idle_optimizer_options = ("dt", "sampling_period", "B")
    idle_options = S4_OPTIONS | {"init", "dt_min", "dt_max", "dt_transform"}
    sampling_period = None
    numerator: Tensor
    denominator: Tensor
    slack: Tensor

    def __init__(
        self,
        *,
        d_state: int = 64,
        init_scale: float = 1.0,
        start: str = "scaled",
        constraint: str = "no",
        truncation: str = "exact",
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.n = n = check_positive_integer("d_state", d_state)
        self.truncation = check_choice("truncation", truncation, TRUNCATIONS)
        if init_scale != 0:
            check_positive_number("init_scale", init_scale)
        b = torch.randn(self.channels, self.d_model, n) / math.sqrt(n)
        if self.deterministic:
            b = torch.eye(n)[0].expand_as(b)
        a, b = torch.zeros(self.n_ssm, n), init_scale * b
        if check_choice("start", start, STARTS) != "scaled":
            bound = 1 / n if start == "montel" else 1 / math.sqrt(n)
            a, b = (bound * (2 * torch.rand_like(part) - 1) for part in (a, b))
        self.constraint = check_choice("constraint", constraint, CONSTRAINTS)
        self.register("denominator", a)
        self.register("numerator", b)
        if self.constraint == "l1_montel":
            self.register("slack", torch.rand(self.n_ssm))

    def coefficients(self) -> Tensor:
        """The denominator's coefficients a_1 … a_n (n_ssm, n) after the constraint, float64."""
        a = self.denominator.double()
        if self.constraint == "no":
            return a
        return a / (a.abs().sum(-1) + self.slack.double().abs() + 1e-6).unsqueeze(-1)

    @property
    def C(self) -> Tensor:  # type: ignore[override]  # noqa: N802, as in the equations
        """The output row of the companion realization: b (C, H, n)."""
        return self.numerator

    def outputs(self) -> Tensor:
        """b (C, H, n), float64."""
        return self.numerator.double()

    def discretized(self, rate: float = 1.0) -> tuple[Companion, Tensor]:
        """(Ā, e_1 (H, n)), float64; the rate must be 1."""
        self.check_no_rate(rate)
        a = self.per_feature(self.coefficients())
        return Companion(a), torch.eye(self.n, dtype=a.dtype, device=a.device)[0].expand_as(a)

    def _samples(self, length: int, rate: float, start: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if start is not None:
            return super()._samples(length, rate, start)
        self.check_no_rate(rate)
        a, b = self.coefficients(), self.outputs()
        points = max(largest(length, self.truncation == "exact"), self.n + 1)
        if self.truncation == "exact":
            doublings = (points - 1).bit_length()
            points = 1 << doublings
            power = self.per_feature(Companion(a).squares(doublings + 1)[-1])
            b = b - torch.einsum("chn,hnm->chm", b, power)
        below = torch.fft.rfft(torch.nn.functional.pad(a, (1, 0), value=1.0), n=points)
        spectrum = torch.fft.rfft(b.unflatten(1, (-1, self.n_ssm)), n=points) / below
        samples = torch.fft.irfft(spectrum, n=points).flatten(1, 2)
        return samples[..., :length].to(working_dtype(self.numerator)), None

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state (*batch_shape, H, n), real, float32 at least, on the parameters' device."""
        if self.truncation == "none":
            raise NotImplementedError(
                "a step or a state must have a kernel that does not wrap around; got truncation='none'. "
                "Build the kernel with truncation='exact' for a recurrent mode: it has the same parameters."
            )
        return super().default_state(*batch_shape)
