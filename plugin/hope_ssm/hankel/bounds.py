"""How far a transfer function can move when its parameters do: bounds on the H∞ norm of the difference."""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.hankel.norms import h_infinity_norm, resolvent_norm
from hope_ssm.hankel.state_space import StateSpace


def markov_perturbation_bound(difference: Tensor) -> Tensor:
    """‖G - G̃‖_∞ ≤ √n ‖δh‖₂  for HOPE at every sampling period, δh = h - h̃; attained where all δh_k are equal.

    (G - G̃)(z) = Σ_k δh_k P(z)^{k+1} with |P| = 1 on the unit circle, so the gain is at most ‖δh‖₁ ≤ √n ‖δh‖₂.

    Args:
        difference: δh, (..., n).

    Returns:
        (...).

    Source: Yu, Mahoney, Erichson, ICLR 2025 (arXiv 2405.13975), stability of the parameterization.
    """
    return difference.shape[-1] ** 0.5 * torch.linalg.vector_norm(difference, dim=-1)


def state_space_perturbation_bound(system: StateSpace, perturbed: StateSpace, tolerance: float = 1e-3) -> Tensor:
    """‖G - G̃‖_∞ of state spaces, from the resolvent R(z) = (z - A)⁻¹ of the first and δA, δB, δC, δD alone:

        ‖δD‖ + (‖CR‖ ‖δA‖ ‖RB‖ + ‖CR‖ ‖δB‖ + ‖δC‖ ‖RB‖ + ‖δC‖ ‖R‖ ‖δB‖) / (1 - ‖R‖ ‖δA‖),

    with H∞ norms of the functions of z. It is infinite from ‖δA‖ = 1/‖R‖ on, the distance of A to the nearest unstable
    matrix, where no bound by ‖δA‖ can be finite. For poles near the unit circle ‖R‖ is large: 1/(1 - max|λ|) if A is
    normal, otherwise more. Proof: C̃R̃B̃ with R̃ = (1 - RδA)⁻¹R = R(1 - δAR)⁻¹.

    Args:
        system: stable, with one output: A (..., n, n), B (..., n), C (..., 1, n), D (..., 1).
        perturbed: of the same shapes.
        tolerance: of the H∞ norms in it, relative; the bound is raised by as much.

    Returns:
        (...) float64.

    Raises:
        ValueError: different shapes, more outputs, an unstable system.

    Source: Hinrichsen, Pritchard, "Stability radius for structured perturbations", Systems & Control Letters 1986.
    """
    if system.A.shape != perturbed.A.shape or system.C.shape != perturbed.C.shape or system.C.shape[-2] != 1:
        raise ValueError(
            "the two systems must have one output and equal shapes; got A "
            f"{tuple(system.A.shape)}, C {tuple(system.C.shape)} and A {tuple(perturbed.A.shape)}, "
            f"C {tuple(perturbed.C.shape)}."
        )
    raised = 1 + tolerance
    identity = torch.eye(system.A.shape[-1], dtype=system.A.dtype, device=system.A.device).expand_as(system.A)
    none = torch.zeros_like(system.B)
    reach = raised * h_infinity_norm(StateSpace(system.A, system.B, identity, none), tolerance)
    adjoint = StateSpace(system.A.mH, system.C.squeeze(-2).conj().resolve_conj(), identity, none)
    observe = raised * h_infinity_norm(adjoint, tolerance)
    resolvent = raised * resolvent_norm(system.A, tolerance)
    dA = torch.linalg.matrix_norm(perturbed.A - system.A, ord=2)
    dB, dC = ((b - a).flatten(-k).norm(dim=-1) for a, b, k in ((system.B, perturbed.B, 1), (system.C, perturbed.C, 2)))
    moved = observe * dA * reach + observe * dB + dC * reach + dC * resolvent * dB
    room = 1 - resolvent * dA
    bound = torch.where(room > 0, moved / room.clamp(min=1e-300), torch.inf)
    return (perturbed.D - system.D).abs().squeeze(-1) + torch.where(moved == 0, 0.0, bound)
