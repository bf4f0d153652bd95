"""Gramians of state spaces, as factors, and what follows from them: Hankel singular values and the H2 norm."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.hankel.state_space import StateSpace

DOUBLINGS = 60  # 2⁶⁰ steps: a pole that has not decayed by then is on the unit circle for all float64 can say


def gramian_factor(A: Tensor, columns: Tensor) -> Tensor:
    """F with F F* = Σ_t Aᵗ B B* A*ᵗ, by doubling: F ← [F, A^{2ᵏ} F], cut down to n columns by QR.

    The Gramian itself is never formed, so the small singular values of its factor keep their digits. The state space of
    Markov parameters is nilpotent: its sum ends, and F is exact.

    Args:
        A: (..., n, n).
        columns: B, (..., n, m).

    Returns:
        (..., n, at most n).

    Raises:
        ValueError: A is not stable.

    Source: Smith, "Matrix equation XA + BX = C", SIAM J. Appl. Math. 1968; as factors, Penzl,
    SIAM J. Sci. Comput. 2000.
    """
    n, power, factor = A.shape[-1], A, columns
    for _ in range(DOUBLINGS):
        more = power @ factor
        if not torch.isfinite(more).all():
            break
        scale = factor.abs().amax(dim=(-1, -2), keepdim=True)
        if (more.abs() <= 1e-17 * scale).all():
            return factor
        factor = torch.cat([factor, more], dim=-1)
        if factor.shape[-1] > n:
            factor = torch.linalg.qr(factor.mH, mode="r").R.mH
        power = power @ power
    raise ValueError(
        "a system must be stable, with every pole inside the unit circle; got one whose response does not decay. "
        "Its Hankel operator is not bounded."
    )


def state_space_singular_values(system: StateSpace) -> Tensor:
    """σ_1 ≥ … ≥ σ_n ≥ 0 of the Hankel operator: √eig(W_c W_o), as the singular values of L* R.

    W_c = R R* and W_o = L L* are the Gramians (square-root method); the error is some n·ε·σ_1, not its root.

    Args:
        system: stable, any batch.

    Returns:
        (..., n) float64; 0 beyond the rank of a factor.
    """
    reach = gramian_factor(system.A, system.B.unsqueeze(-1))
    observe = gramian_factor(system.A.mH, system.C.mH)
    values = torch.linalg.svdvals(observe.mH @ reach)
    return torch.nn.functional.pad(values, (0, system.A.shape[-1] - values.shape[-1]))


def h2_norm(system: StateSpace) -> Tensor:
    """‖G‖₂ = √(Σ_t k_t²) = √(‖D‖² + ‖C R‖²) with W_c = R R*.

    Returns:
        (...) float64, over all outputs.
    """
    reach = gramian_factor(system.A, system.B.unsqueeze(-1))
    energy = (system.C @ reach).abs().square().sum(dim=(-1, -2)) + system.D.abs().square().sum(-1)
    return energy.sqrt()
