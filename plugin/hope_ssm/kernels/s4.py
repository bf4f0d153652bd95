"""S4: a diagonal plus low-rank state space."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hope_ssm.checks import check_choice, check_positive_integer, check_positive_number
from hope_ssm.kernels.base import S4_OPTIONS
from hope_ssm.kernels.hippo import BASES, clipped, nplr, timescales
from hope_ssm.kernels.modal import Diagonal, ModalKernel, coordinates
from hope_ssm.kernels.optimizer_options import OptimizerOption
from hope_ssm.kernels.state_space import repeated_squares, times
from hope_ssm.ops.contraction import einsum

COMBINATIONS = {"hippo": ("legs", "fout")}
OTHER_NAMES = {"fourier": "fout"}


def eliminated(core: Tensor, x: Tensor) -> Tensor:
    """M⁻¹ x by elimination without pivots, for matrices with a positive symmetric part, which have no small ones.

    Of a few rows: so it is arithmetic alone, which every exporter knows.

    Args:
        core: M, (H, rank, rank).
        x: (H, rank, n).

    Returns:
        (H, rank, n).
    """
    rows = torch.cat([core, x], dim=-1)
    for i in range(core.shape[-1]):
        pivot = rows[:, i : i + 1] / rows[:, i : i + 1, i : i + 1]
        cleared = rows - rows[..., i : i + 1] * pivot
        rows = torch.cat([cleared[:, :i], pivot, cleared[:, i + 1 :]], dim=-2)
    return rows[..., core.shape[-1] :]


class _Woodbury:
    """(1 - ΔtA/2)⁻¹ = D⁻¹ - Δt N (1 + Δt WᵀN)⁻¹ WᵀD⁻¹  with  D = 1 - ΔtΛ/2  and  N = D⁻¹W  (Woodbury's identity).

    Ā = 2 (1 - ΔtA/2)⁻¹ - 1. In coordinates A = Λ - 2WWᵀ, with W those of P; the conjugate modes give the 2. |D| ≥ 1 and
    the symmetric part of 1 + Δt WᵀN is at least 1, so neither inverse is ill-conditioned at any Δt.

    Args:
        poles: Λ.
        W: (H, rank, n), rows.
        dt: Δt, (H, 1).
    """

    def __init__(self, poles: Diagonal, W: Tensor, dt: Tensor) -> None:
        self.diagonal = Diagonal(1 - dt / 2 * poles.real, -dt / 2 * poles.imaginary).inverse()
        self.right = times(self.diagonal.mT, W.mT).mT  # WᵀD⁻¹
        gain = dt.unsqueeze(-1)
        core = torch.eye(W.shape[-2], dtype=W.dtype, device=W.device) + gain * self.right @ W.mT
        self.left = eliminated(core.mT, gain * times(self.diagonal, W.mT).mT)  # Δt (1 + Δt WᵀN)⁻ᵀ Nᵀ

    def solve(self, x: Tensor) -> Tensor:
        """(1 - ΔtA/2)⁻¹ x.

        Args:
            x: (..., H, n).

        Returns:
            the same shape.
        """
        return self.diagonal.apply(x) - einsum("hrm,hrn,...hn->...hm", self.left, self.right, x)

    def apply(self, x: Tensor) -> Tensor:
        """Ā x.

        Args:
            x: (..., H, n).

        Returns:
            the same shape.
        """
        return 2 * self.solve(x) - x

    def squares(self, count: int) -> list[Tensor]:
        """Ā, Ā², Ā⁴, … (H, n, n)."""
        identity = torch.eye(self.right.shape[-1], dtype=self.right.dtype, device=self.right.device)
        inverse = times(self.diagonal, identity.expand(len(self.right), -1, -1)) - self.left.mT @ self.right
        return repeated_squares(2 * inverse - identity, count)


class S4Kernel(ModalKernel):
    """k_t = C Āᵗ B̄  with the bilinear rule  Ā = (1 - ΔtA/2)⁻¹(1 + ΔtA/2),  B̄ = (1 - ΔtA/2)⁻¹ ΔtB  and  A = Λ - P P*.

    The inverse is Woodbury's (``_Woodbury``), so a step takes O(n) operations; the powers of Ā for the convolution are
    those of the dense matrix (``StateSpaceKernel``). ‖Ā‖₂ ≤ 1, because A + A* ≤ 0: rounding does not grow.

    Λ = -exp(A_real) + i A_imag, P and B are shared by n_ssm; Δt is one per feature. ``lr`` and ``wd`` know the keys dt,
    A (Λ and P), B (a bare number rules these) and C.

    Args:
        d_model: H features.
        d_state: n, even: n/2 modes and their conjugates.
        init: ``"legs"``, ``"legt"`` (of rank 2), ``"lagt"`` or ``"fout"`` (alias ``"fourier"``), see ``hippo``;
            ``"hippo"`` for legs in the first half of the n_ssm copies and fout in the second.
        imag_scale: α, the factor of the imaginary parts of the initial poles (S4D-FT); 1 leaves them.
        rank: rows of P, at least as many as the basis needs.
        B_clip: imaginary parts of the initial B, in the modes' coordinates, are cut off at this, as in state-spaces/s4
            (there |B| of legs ends at 2, not at 41 for n = 64); None for the B of the paper.
        dt_min: least initial Δt; None means 1 / l_max, so that the mean lags 1/Δt of legs, legt and fout cover the
            sequence (``hippo.timescales``).
        dt_max: greatest initial Δt; None means 100 dt_min.
        **shared: ``channels``, ``l_max``, ``dt_transform``, ``n_ssm``, ``deterministic``, ``lr``, ``wd``, ``verbose``:
            see ``SequenceKernel``.

    Source: Gu, Goel, Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", ICLR 2022
    (arXiv 2111.00396); A = Λ - P P* from Goel, Gu, Donahue, Ré, ICML 2022 (arXiv 2202.09729);
    the bases and Δt from Gu, Johnson, Timalsina, Rudra, Ré, ICLR 2023 (arXiv 2206.12037).
    """

    name = "s4"
    optimizer_options = {  # noqa: RUF012
        "raw_sampling_period": OptimizerOption(("dt", "sampling_period")),
        "A_real": OptimizerOption(("A",)),
        "A_imag": OptimizerOption(("A",)),
        "P": OptimizerOption(("A",)),
        "B": OptimizerOption(("B",)),
        "C": OptimizerOption(("C",), bare="never"),
    }
    idle_options = S4_OPTIONS - {"rank", "imag_scale"}
    P: Tensor

    def __init__(
        self,
        *,
        d_state: int = 64,
        dt_min: float | None = 0.001,
        dt_max: float | None = 0.1,
        init: str | None = "legs",
        imag_scale: float = 1.0,
        rank: int = 1,
        B_clip: float | None = 2.0,
        **shared: Any,
    ) -> None:
        dt_min, dt_max = timescales(dt_min, dt_max, shared.get("l_max"))
        super().__init__(dt_min=dt_min, dt_max=dt_max, **shared)
        self.n, self.rank = self.check_order(d_state), check_positive_integer("rank", rank)
        self.B_clip = None if B_clip is None else check_positive_number("B_clip", B_clip)
        poles, P, B = (torch.as_tensor(part) for part in self._copies("legs" if init is None else init))
        self.register_modes(poles, imag_scale)
        self.register("P", torch.view_as_real(P))
        self.register("B", torch.view_as_real(B))

    def _copies(self, init: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Λ (n_ssm, n/2), P (rank, n_ssm, n/2), B (n_ssm, n/2)."""
        init = check_choice("init", OTHER_NAMES.get(str(init), init), [*BASES, *COMBINATIONS])
        bases = COMBINATIONS.get(init, (init,))
        if self.n_ssm % len(bases):
            raise ValueError(
                f"init={init!r} joins {len(bases)} bases ({', '.join(bases)}), so n_ssm must be a multiple of "
                f"{len(bases)}; got {self.n_ssm}."
            )
        found = zip(*(nplr(basis, self.n, self.rank) for basis in bases), strict=True)
        poles, P, B = (np.repeat(np.stack(parts, axis=-2), self.n_ssm // len(bases), axis=-2) for parts in found)
        return poles, P, clipped(B, self.B_clip)

    def discretized(self, rate: float = 1.0) -> tuple[_Woodbury, Tensor]:
        """(Ā, B̄ (H, n) in coordinates) by the bilinear rule, float64."""
        poles, B, dt = self.poles(), self.inputs(), self.periods(rate)
        W = torch.stack([self.per_feature(coordinates(column)) for column in self.P], dim=-2)
        resolvent = _Woodbury(poles, W, dt)
        return resolvent, resolvent.solve(dt * B)

    def extra_repr(self) -> str:
        """Return the sizes, for print(model)."""
        return f"{super().extra_repr()}, rank={self.rank}"
