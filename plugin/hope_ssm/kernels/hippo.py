"""The HiPPO bases: x' = Ax + Bu whose states are the coefficients of the past in orthogonal functions of the lag t.

| name | (e^{tA}B)_i | rank of P |
|---|---|---|
| legs | √(2i+1) P_i(2e^{-t} - 1) e^{-t}, Legendre polynomials on an exponentially warped past | 1 |
| legt | ½√(2i+1) P_i(1 - t) on the window [0, 2], nearly: C_i = (-1)ⁱ√(2i+1) makes Padé's approximant of e^{-2s} | 2 |
| lagt | Laguerre functions, Lag_i(t) e^{-t/2} | 1 |
| fout | ½, cos(πkt)/√2 and sin(πkt)/√2 on the window [0, 2], in the limit of large n | 1 |

A + PᵀP is normal. The windows are [0, 2] and not [0, 1], so that legs, legt and fout have one mean lag, 1.

Source: Gu, Johnson, Timalsina, Rudra, Ré, "How to Train Your HiPPO", ICLR 2023 (arXiv 2206.12037); Gu, Dao, Ermon,
Rudra, Ré, "HiPPO", NeurIPS 2020 (arXiv 2008.07669).
"""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg

from hope_ssm.checks import check_positive_number

Matrices = tuple[np.ndarray, np.ndarray, np.ndarray]


def legs(n: int) -> Matrices:
    """A_ij = -√(2i+1)√(2j+1) below the diagonal, -(i+1) on it; B_i = √(2i+1), P_i = √(i+½)."""
    B = np.sqrt(2 * np.arange(n) + 1)
    return -np.tril(np.outer(B, B), -1) - np.diag(np.arange(n) + 1.0), B, B[None] / math.sqrt(2)


def legt(n: int) -> Matrices:
    """A_ij = -½√(2i+1)√(2j+1) (-1)^{i-j if i < j}; B_i = ½√(2i+1); P the odd and the even rows of √(i+½)."""
    B = np.sqrt(2 * np.arange(n) + 1)
    sign = (-1.0) ** np.arange(n)
    product = np.outer(B, B)
    A = -(np.tril(product) + np.triu(product * np.outer(sign, sign), 1)) / 2
    return A, B / 2, np.stack([np.where(sign < 0, B, 0), np.where(sign > 0, B, 0)]) / math.sqrt(2)


def lagt(n: int) -> Matrices:
    """A_ij = -1 below the diagonal, -½ on it; B_i = 1, P_i = √½."""
    return np.eye(n) / 2 - np.tril(np.ones((n, n))), np.ones(n), np.full((1, n), math.sqrt(0.5))


def fout(n: int) -> Matrices:
    """A = S - BBᵀ: S turns (cos πkt, sin πkt), states 2k and 2k + 1, at πk; B = (1, 0, √2, 0, √2, …) = P."""
    B = np.zeros(n)
    B[::2] = math.sqrt(2)
    B[0] = 1
    turns = np.zeros(n - 1)
    turns[::2] = math.pi * np.arange(n // 2)
    return np.diag(turns, -1) - np.diag(turns, 1) - np.outer(B, B), B, B[None]


BASES = {"legs": legs, "legt": legt, "lagt": lagt, "fout": fout}


def normal_modes(A: np.ndarray, P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues Λ and eigenvectors V of A + PᵀP = -d + a skew matrix, one of each conjugate pair (Im Λ ≥ 0).

    Args:
        A: (n, n) real with n even.
        P: (rank, n) real.

    Returns:
        Λ (n/2,), ascending in frequency, and V* (n/2, n), complex: x = 2 Re V z for the coefficients z = V*x.
    """
    n, normal = len(A), A + P.T @ P
    frequency, vectors = scipy.linalg.eigh(-0.5j * (normal - normal.T))
    frequency, vectors = frequency[n // 2 :], vectors[:, n // 2 :]
    if frequency[0] < 1e-9:  # a pair of real null vectors is one mode at rest
        frequency[0] = 0
        vectors[:, 0] = scipy.linalg.null_space(normal - normal.T, rcond=1e-12) @ (1, 1j) / math.sqrt(2)
    return np.trace(normal) / n + 1j * frequency, vectors.conj().T


def clipped(B: np.ndarray, limit: float | None) -> np.ndarray:
    """B with imaginary parts cut off at ±limit, as state-spaces/s4 begins with; B itself where limit is None."""
    return B if limit is None else B.real + 1j * np.clip(B.imag, -limit, limit)


def nplr(basis: str, n: int, rank: int) -> Matrices:
    """A = V (Λ - Σ_r p_r p_rᴴ) Vᴴ, p_r the rows of P, and B in the coordinates of V; the modes with Im Λ ≥ 0.

    Args:
        basis: of ``BASES``.
        n: number of states, even.
        rank: rows of P; those beyond the basis' own are small numbers, random but always the same, for training.

    Returns:
        Λ (n/2,), P (rank, n/2), B (n/2,), complex.

    Raises:
        ValueError: fewer rows than the basis has.
    """
    A, B, P = BASES[basis](n)
    if rank < len(P):
        raise ValueError(f"rank must be at least {len(P)} for init={basis!r}; got {rank}. Set rank={len(P)}.")
    poles, modes = normal_modes(A, P)
    small = np.random.default_rng(0).normal(scale=1e-2, size=(rank - len(P), n // 2, 2)) @ (1, 1j)
    return poles, np.concatenate([P @ modes.T, small]), modes @ B


def timescales(dt_min: float | None, dt_max: float | None, l_max: int | None) -> tuple[float, float]:
    """The range of Δt whose mean lags 1/Δt go from l_max / 100 to l_max, where the configuration leaves it open.

    For l_max = 1000 that is the paper's range from 0.001 to 0.1.

    Args:
        dt_min: least Δt; None means 1 / l_max.
        dt_max: greatest Δt; None means 100 dt_min.
        l_max: longest sequence, or None.

    Raises:
        ValueError: both dt_min and l_max are None.
    """
    if dt_min is None:
        if l_max is None:
            raise ValueError("dt_min=null means 1 / l_max; got l_max=null. Give the kernel one of the two.")
        dt_min = 1 / l_max
    return dt_min, 100 * check_positive_number("dt_min", dt_min) if dt_max is None else dt_max
