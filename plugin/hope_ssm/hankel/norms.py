"""The H∞ norm within a tolerance that is proved, not guessed from a grid."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from hope_ssm.checks import check_positive_number
from hope_ssm.hankel.state_space import StateSpace

INTERVALS = 64


class _Circle:
    """One system on the unit circle: gain |G(e^{iθ})| and phase φ(θ) of the all-pass filter with its poles."""

    def __init__(self, system: StateSpace) -> None:
        A, B, C, self.D = (
            part.detach().resolve_conj().cpu().numpy() for part in (system.A, system.B, system.C, system.D)
        )
        self.triangle, basis = scipy.linalg.schur(A, output="complex")
        self.poles, self.B, self.C = np.diag(self.triangle), basis.conj().T @ B, C @ basis
        radius = np.abs(self.poles).max(initial=0.0)
        if radius >= 1:
            raise ValueError(
                f"a system must be stable, with every pole inside the unit circle; got one of modulus {radius:.17g}. "
                "The supremum of its gain is not a norm."
            )

    def gain(self, angle: np.ndarray) -> np.ndarray:
        """‖D + C (e^{iθ} - A)⁻¹ B‖₂ by back substitution.

        Args:
            angle: θ, (K,).

        Returns:
            (K,).
        """
        z = np.exp(1j * angle)
        x = np.empty((len(self.poles), len(z)), dtype=complex)
        for i in range(len(self.poles) - 1, -1, -1):
            x[i] = (self.B[i] + self.triangle[i, i + 1 :] @ x[i + 1 :]) / (z - self.poles[i])
        return np.linalg.norm(self.D[:, None] + self.C @ x, axis=0)

    def phase(self, angle: np.ndarray) -> np.ndarray:
        """φ(θ) = Σ_j θ + 2 arg(1 - λ_j e^{-iθ}), from 0 to 2πn, increasing.

        Args:
            angle: θ, (K,).

        Returns:
            (K,).
        """
        turned = np.exp(-1j * angle)
        phase = np.zeros_like(angle)
        for pole in self.poles:
            phase += angle + 2 * np.angle(1 - pole * turned)
        return phase


class _Resolvent(_Circle):
    """(e^{iθ} - A)⁻¹ on the unit circle: as gain its spectral norm."""

    def gain(self, angle: np.ndarray) -> np.ndarray:
        """1 / σ_min(e^{iθ} - A).

        Args:
            angle: θ, (K,).

        Returns:
            (K,).
        """
        shifted = np.exp(1j * angle)[:, None, None] * np.eye(len(self.poles)) - self.triangle
        return 1 / np.linalg.svd(shifted, compute_uv=False)[:, -1]


def _norm(circle: _Circle, tolerance: float, last: float) -> float:
    nodes = np.linspace(0, last, INTERVALS + 1)
    gains, phases = circle.gain(nodes), circle.phase(nodes)
    ends, gain, phase = np.stack([nodes[:-1], nodes[1:]]), np.stack([gains[:-1], gains[1:]]), None
    phase = np.stack([phases[:-1], phases[1:]])
    best = gains.max()
    while True:
        width = phase[1] - phase[0]
        bound = np.where(width < 3, gain.max(0) / np.cos(np.minimum(width, 3) / 2), np.inf)
        middle = ends.mean(0)
        open_ = (bound > best * (1 + tolerance)) & (ends[0] < middle) & (middle < ends[1])
        if not open_.any():
            return best
        ends, gain, phase, middle = ends[:, open_], gain[:, open_], phase[:, open_], middle[open_]
        new_gain, new_phase = circle.gain(middle), circle.phase(middle)
        best = max(best, new_gain.max())

        def halves(pair: np.ndarray, new: np.ndarray) -> np.ndarray:
            return np.concatenate([np.stack([pair[0], new]), np.stack([new, pair[1]])], axis=1)

        ends, gain, phase = halves(ends, middle), halves(gain, new_gain), halves(phase, new_phase)


def h_infinity_norm(system: StateSpace, tolerance: float = 1e-6) -> Tensor:
    """‖G‖_∞ = max_θ ‖G(e^{iθ})‖₂; the result is at most ``tolerance`` (relative) below the true value.

    Let φ be the phase of the all-pass filter with the poles of G. As a function of φ, the real part of G in any
    direction is as smooth as cos φ: if the maximum M lies between two angles that are Δφ apart, the larger
    of the two gains is at least M cos(Δφ/2) (Bernstein and Szegő's inequality for rational functions). So intervals
    are halved until no interval can hide a larger gain than the largest one seen.

    Args:
        system: stable, any batch (a loop over it).
        tolerance: relative, above 0.

    Returns:
        (...) float64.

    Source: Borwein, Erdélyi, "Sharp extensions of Bernstein's inequality to rational spaces", Mathematika 1996.
    """
    tolerance = check_positive_number("tolerance", tolerance)
    flat = StateSpace(
        system.A.reshape(-1, *system.A.shape[-2:]), system.B.reshape(-1, system.B.shape[-1]),
        system.C.reshape(-1, *system.C.shape[-2:]), system.D.reshape(-1, system.D.shape[-1]),
    )  # fmt: skip
    norms = [_norm(_Circle(flat[i]), tolerance, _last_angle(system.A)) for i in range(len(flat.A))]
    return torch.tensor(norms, dtype=torch.float64).reshape(system.A.shape[:-2])


def resolvent_norm(A: Tensor, tolerance: float = 1e-6) -> Tensor:
    """‖(z - A)⁻¹‖_∞ = max_θ 1/σ_min(e^{iθ} - A): 1 over the distance of A to the nearest matrix that is not stable.

    Args:
        A: stable, (..., n, n) float64 or complex128.
        tolerance: as of ``h_infinity_norm``, whose proof holds here.

    Returns:
        (...) float64.
    """
    tolerance = check_positive_number("tolerance", tolerance)
    norms = []
    for matrix in A.reshape(-1, *A.shape[-2:]):
        none = torch.zeros_like(matrix[0])
        norms.append(_norm(_Resolvent(StateSpace(matrix, none, none[None], none[:1])), tolerance, _last_angle(A)))
    return torch.tensor(norms, dtype=torch.float64).reshape(A.shape[:-2])


def _last_angle(A: Tensor) -> float:
    """2π, or π for a real system, which is symmetric."""
    return 2 * np.pi if A.is_complex() else np.pi
