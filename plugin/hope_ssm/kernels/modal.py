"""What the kernels with a complex state matrix share: n/2 modes, each with its conjugate, and HiPPO-LegS."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from hope_ssm.checks import check_positive_integer
from hope_ssm.kernels.contract import SequenceKernel
from hope_ssm.transfer import working_dtype


def legs_scale(n: int) -> np.ndarray:
    """√(2i + 1), i = 0 … n - 1: the input vector B of HiPPO-LegS."""
    return np.sqrt(2 * np.arange(n) + 1)


def legs_modes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues Λ and eigenvectors V of the normal part A + ppᵀ of HiPPO-LegS, those with Im Λ > 0.

    A_ij = -√(2i+1)√(2j+1) below the diagonal, -(i+1) on it, p_i = √(i+½); so A + ppᵀ is -½ plus a skew matrix.

    Args: n: order, even.
    Returns: Λ (n/2,), ascending in frequency, and V* (n/2, n), complex.
    """
    root = legs_scale(n)
    product = root[:, None] * root[None, :] / 2
    frequency, vectors = scipy.linalg.eigh(-1j * (np.triu(product, 1) - np.tril(product, -1)))
    return -0.5 + 1j * frequency[n // 2 :], vectors[:, n // 2 :].conj().T


class ModalKernel(SequenceKernel):
    """n real states as n/2 complex modes: Λ = -exp(A_real) + i A_imag shared by n_ssm, C and Δt one a feature."""

    def register_modes(self, poles: Tensor) -> None:
        """Register Λ (n/2,) complex, random C, and the sampling periods; C is 1 throughout when deterministic."""
        C = torch.randn(self.channels, self.d_model, self.n // 2, 2) / math.sqrt(2)
        if self.deterministic:
            C = torch.zeros_like(C)
            C[..., 0] = 1.0  # every mode, so that every pole has a gradient
        self.register_sampling_period("raw_sampling_period", self.d_model)
        self.register("A_real", torch.log(-poles.real).repeat(self.n_ssm, 1))
        self.register("A_imag", poles.imag.repeat(self.n_ssm, 1))
        self.register("C", C)

    def check_order(self, d_state: int) -> int:
        """Return n if it is even and at least 2; otherwise raise."""
        n = check_positive_integer("d_state", d_state)
        if n % 2:
            raise ValueError(f"d_state of {self.name} must be even, for its modes come in conjugate pairs; got {n}.")
        return n

    @property
    def sampling_period(self) -> Tensor:
        """Δt of every feature, (H,)."""
        return self.transformed(self.raw_sampling_period)

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state (*batch_shape, H, n/2), complex64 at least, on the parameters' device."""
        dtype = torch.promote_types(working_dtype(self.C), torch.complex32)
        return self.C.detach().new_zeros(*batch_shape, self.d_model, self.n // 2, dtype=dtype)

    def extra_repr(self) -> str:
        """Return the sizes, for print(model)."""
        return f"d_model={self.d_model}, d_state={self.n}, channels={self.channels}, n_ssm={self.n_ssm}"
