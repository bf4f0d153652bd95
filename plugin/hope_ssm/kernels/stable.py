"""StableSSM: a diagonal state space whose decay is a function of the trained number, chosen for stable gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hope_ssm.checks import check_choice, check_positive_number
from hope_ssm.kernels.base import S4_OPTIONS, TRANSFORMS
from hope_ssm.kernels.modal import Diagonal, ModalKernel, zero_order_hold
from hope_ssm.kernels.optimizer_options import OptimizerOption
from hope_ssm.kernels.s4d import initial_poles

Map = tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
# name → (w → the decay rate -Re λ, its inverse); all but direct keep it above 0.
FIXED: dict[str, Map] = {**TRANSFORMS, "direct": (torch.neg, torch.neg)}


def best(offset: float) -> Map:
    """The maps w → 1 / (w² + b) and back; a decay rate above 1/b begins just below it, at w = 0.001."""
    return (
        lambda w: 1 / (w.square() + offset),
        lambda decay: (1 / decay - offset).clamp(min=1e-6).sqrt(),
    )


REPARAMETERIZATIONS = ("best", *FIXED)


class StableKernel(ModalKernel):
    """k_t = 2 Re Σ_j C_j B̄_j e^{Δtλ_jt}  with  Re λ = f(w)  and  B̄ = (e^{Δtλ} - 1)/λ · B  (zero-order hold).

    | reparameterization | f(w) |
    |---|---|
    | best | -1 / (w² + b), for which |f'(w)| / f(w)² = 2|w|: the paper's measure of the gradient, in proportion to w |
    | exp | -e^w, S4D's |
    | softplus | -log(1 + e^w) |
    | direct | w, unstable where it becomes positive: the paper's counterexample |

    The initial λ is that of S4D, whatever f is. Im λ is trained directly, and so are B (shared by n_ssm), C and Δt. In
    the paper f acts on real eigenvalues; here it acts on the real part of complex ones, as in the paper's experiments
    on S4-like models.
    ``lr`` and ``wd`` know the keys dt, A, B (a bare number rules these) and C.

    Args:
        d_model: H features.
        d_state: n, even.
        reparameterization: see above.
        offset: b of best: 0.1 as in the authors' code and in ``kernel=stable``. ½ is what configurations of earlier
            versions mean, which do not name it.
        init: as of S4D.
        imag_scale: α, the factor of the imaginary parts of the initial poles (S4D-FT); 1 leaves them.
        **shared: ``channels``, ``l_max``, ``dt_min``, ``dt_max``, ``dt_transform``, ``n_ssm``, ``deterministic``,
            ``lr``, ``wd``, ``verbose``: see ``SequenceKernel``.

    Source: Wang, Li, "StableSSM: Alleviating the Curse of Memory in State-space Models through Stable
    Reparameterization", ICML 2024 (arXiv 2311.14495).
    """

    name = "stable"
    stepwise = True
    optimizer_options = {  # noqa: RUF012
        "raw_sampling_period": OptimizerOption(("dt", "sampling_period")),
        "A_weight": OptimizerOption(("A",)),
        "A_imag": OptimizerOption(("A",)),
        "B": OptimizerOption(("B",)),
        "C": OptimizerOption(("C",), bare="never"),
    }
    idle_options = S4_OPTIONS - {"imag_scale"}
    A_weight: Tensor

    def __init__(
        self,
        *,
        d_state: int = 64,
        init: str | None = "diag-lin",
        imag_scale: float = 1.0,
        reparameterization: str = "best",
        offset: float = 0.5,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        self.n = self.check_order(d_state)
        self.reparameterization = check_choice("reparameterization", reparameterization, REPARAMETERIZATIONS)
        self.offset = check_positive_number("offset", offset)
        self.register_modes(initial_poles(init, self.n, self.deterministic), imag_scale)
        self.register("B", torch.tensor([1.0, 0.0]).repeat(self.n_ssm, self.n // 2, 1))

    def _maps(self) -> Map:
        return best(self.offset) if self.reparameterization == "best" else FIXED[self.reparameterization]

    def register_poles(self, poles: Tensor) -> None:
        """Register w with f(w) = Re Λ, and Im Λ."""
        self.register("A_weight", self._maps()[1](-poles.real))
        self.register("A_imag", poles.imag.clone())

    def poles(self) -> Diagonal:
        """Λ, each part (H, n/2), float64."""
        decay = self._maps()[0](self.A_weight.double())
        return Diagonal(self.per_feature(-decay), self.per_feature(self.A_imag.double()))

    def discretized(self, rate: float = 1.0) -> tuple[Diagonal, Tensor]:
        """(Ā, B̄ (H, n) in coordinates) by the zero-order hold, float64."""
        return zero_order_hold(self.poles(), self.inputs(), self.periods(rate))

    def extra_repr(self) -> str:
        """Return the sizes and the choice, for print(model)."""
        return f"{super().extra_repr()}, reparameterization={self.reparameterization!r}"
