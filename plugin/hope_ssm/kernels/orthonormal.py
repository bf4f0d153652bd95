"""State spaces whose states answer an impulse by orthonormal sequences: a chain of real all-pass sections.

A section has two states and two reflection coefficients k_1, k_2 in (-1, 1). With c_i = √(1 - k_i²) it is

    s_1 ← -k_1 s_1 - c_1 k_2 s_2 + c_1 c_2 u,   s_2 ← c_1 s_1 - k_1 k_2 s_2 + k_1 c_2 u,   y = c_2 s_2 + k_2 u,

the normalized lattice of two stages: an orthogonal matrix, with the poles p, q of z² + k_1 (1 + k_2) z + k_2. Each
section is driven by the output of the one before. Axes: H features, m sections, n = 2m states, C channels.

Source: Gray, Markel, IEEE TASSP 1975; Ninness, Gustafsson, IEEE TAC 1997.
"""

from __future__ import annotations

from itertools import accumulate

import torch
from torch import Tensor

from hope_ssm.hankel import StateSpace

SLOWEST = 1e-15  # the least 1 - |pole|² that a logarithm is taken of


def reflections(poles: Tensor) -> Tensor:
    """(artanh k_1, artanh k_2) of sections by their poles, without loss of digits where these are near 1.

    Args:
        poles: (..., 2m) complex, inside the unit circle; each two neighbours are a section's: conjugates, or both real.

    Returns:
        (..., m, 2) float64.
    """
    p, q = poles.to(torch.complex128).unflatten(-1, (-1, 2)).unbind(-1)
    product = (p * q).real
    first = ((1 - p) * (1 - q)).real.log() - ((1 + p) * (1 + q)).real.log()
    second = (1 + product).log() - (1 - product).clamp(min=SLOWEST).log()
    return torch.stack([first, second], dim=-1) / 2


def paired(poles: Tensor) -> Tensor:
    """The poles (n,) of a real system in the order of ``reflections``; a real one without a partner gets the pole 0."""
    upper = poles[poles.imag > 0]
    real = poles[poles.imag == 0].real.sort().values
    alone = torch.nn.functional.pad(real, (0, len(real) % 2))
    return torch.cat([torch.stack([upper, upper.conj()], dim=-1).flatten(), alone.to(poles.dtype)])


def all_pass_chain(raw: Tensor) -> tuple[Tensor, Tensor]:
    """(A (H, n, n), B (H, n)) of a chain, with A Aᵀ + B Bᵀ = I.

    Args:
        raw: artanh of the reflection coefficients, (H, m, 2) float64.
    """
    (k1, k2), (c1, c2) = torch.tanh(raw).unbind(-1), (1 / torch.cosh(raw)).unbind(-1)
    features, sections = k1.shape
    zero = torch.zeros_like(k1)
    inner = torch.stack([torch.stack([-k1, -c1 * k2], dim=-1), torch.stack([c1, -k1 * k2], dim=-1)], dim=-2)
    enter, leave = torch.stack([c1 * c2, k1 * c2], dim=-1), torch.stack([zero, c2], dim=-1)
    # gain[i, j]: what comes from the output of section j - 1 (j = 0: from u) to the input of section i ≥ j.
    order = torch.arange(sections, device=raw.device)
    passed = torch.where(order >= torch.arange(sections + 1, device=raw.device).unsqueeze(-1), k2.unsqueeze(1), 1)
    # (H, i, j): through the sections j … i. ONNX has no cumulative product, and sections are few
    gain = torch.stack(list(accumulate(passed.unbind(-1), torch.mul)), dim=-2)
    gain = torch.cat([torch.ones_like(gain[:, :1]), gain[:, :-1]], dim=1)
    below = gain[..., 1:] * (order.unsqueeze(-1) > order)
    A = enter[:, :, :, None, None] * below[:, :, None, :, None] * leave[:, None, None, :, :]
    A = A + inner.unsqueeze(-2) * torch.eye(sections, dtype=raw.dtype, device=raw.device)[:, None, :, None]
    return A.reshape(features, 2 * sections, 2 * sections), (enter * gain[..., :1]).flatten(-2)


def warped(A: Tensor, B: Tensor, C: Tensor, D: Tensor, ratio: Tensor | float) -> tuple[Tensor, ...]:
    """(A, B, C, D) at ``ratio`` times the sampling period: (z - 1) / (z + 1) becomes that over the ratio.

    With W = (r + 1) - (r - 1) A:  A ← W⁻¹ ((r + 1) A - (r - 1)),  B ← 4r W⁻² B,  D ← D + (r - 1) C W⁻¹ B.

    Args:
        A: (..., n, n).
        B: (..., n).
        C: (..., C, n), which stays.
        D: (..., C).
        ratio: r above 0, (...) or a number.
    """
    r = torch.as_tensor(ratio, dtype=A.dtype, device=A.device)[..., None, None]
    eye = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    W = (r + 1) * eye - (r - 1) * A
    once = torch.linalg.solve(W, B.unsqueeze(-1))
    twice = torch.linalg.solve(W, once)
    moved = torch.linalg.solve(W, (r + 1) * A - (r - 1) * eye)
    return moved, (4 * r * twice).squeeze(-1), C, D + ((r - 1) * (C @ once)).squeeze(-1)


def projection(system: StateSpace, A: Tensor, B: Tensor) -> Tensor:
    """C (C, n) of the system with (A, B) of a chain that is next to another: Σ_t k_{t+1} (Aᵗ B)ᵀ, by doubling.

    The states of a chain answer by orthonormal sequences, so these are inner products, and where the poles agree
    the systems are the same but for D.

    Args:
        system: stable, A (m, m), B (m,), C (C, m).
        A: (n, n).
        B: (n,).
    """
    left, right = system.A, A.mT
    cross = torch.outer(system.B, B)
    while True:
        more = left @ cross @ right
        cross = cross + more
        if not more.abs().max() > 1e-18 * cross.abs().max():
            return system.C @ cross
        left, right = left @ left, right @ right
