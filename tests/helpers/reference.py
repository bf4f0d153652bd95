"""Slow float64 references in numpy, each short enough to check against its paper; nothing here imports hope_ssm."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import scipy.signal


def chain_responses(dt: np.ndarray, n: int, length: int) -> np.ndarray:
    """Impulse responses of P, P², …, Pⁿ, P(z) = (z⁻¹ + a) / (1 + a z⁻¹): Y (..., n, L) for dt (...).

    One all-pass section a stage, y = a x + s, s ← x - a y, sample by sample. The kernel of a HOPE system is
    Σ_k h_k Y_k; Y for a smaller n or L is a corner of this one.
    """
    dt = np.asarray(dt, dtype=np.float64)
    a = (dt - 1) / (dt + 1)
    state = np.zeros((n, *dt.shape))
    responses = np.zeros((length, n, *dt.shape))
    for t in range(length):
        x = np.full(dt.shape, 1.0 if t == 0 else 0.0)
        for k in range(n):
            y = a * x + state[k]
            state[k] = x - a * y
            responses[t, k] = x = y
    return np.moveaxis(responses, (1, 0), (-2, -1))


def laguerre_responses(dt: np.ndarray, n: int, length: int) -> np.ndarray:
    """Impulse responses of Pᵏ / (1 + a z⁻¹), k = 0 … n - 1: (..., n, L) for dt (...), a chain as above."""
    dt = np.asarray(dt, dtype=np.float64)
    a = ((dt - 1) / (dt + 1))[..., None]
    first = (-a) ** np.arange(length)
    responses = np.zeros((*dt.shape, n, length))
    responses[..., 0, :] = first
    for k in range(1, n):  # (1 + a z⁻¹) Y_k = (a + z⁻¹) Y_{k-1}
        for t in range(length):
            before = (responses[..., k - 1, t - 1] - a[..., 0] * responses[..., k, t - 1]) if t else 0
            responses[..., k, t] = a[..., 0] * responses[..., k - 1, t] + before
    return responses


def long_kernel(h: np.ndarray, dt: float, length: int) -> np.ndarray:
    """The same recursion for one system and many samples, a whole section at a time (scipy.signal.lfilter)."""
    a = (dt - 1) / (dt + 1)
    x, kernel = np.eye(1, length)[0], np.zeros(length)
    for coefficient in h:
        x = scipy.signal.lfilter([a, 1], [1, a], x)
        kernel += coefficient * x
    return kernel


def hope_recursion(h: np.ndarray, dt: float, u: np.ndarray, state: np.ndarray | None = None):
    """Outputs (L,) and last state (n,) of one HOPE system for inputs u (L,), by the all-pass chain."""
    a = (dt - 1) / (dt + 1)
    s = np.zeros(len(h)) if state is None else np.array(state, dtype=np.float64)
    outputs = np.zeros(len(u))
    for t, x in enumerate(u):
        for k in range(len(h)):
            y = a * x + s[k]
            s[k] = x - a * y
            outputs[t] += h[k] * y
            x = y
    return outputs, s


def hope_bilinear(h: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """(A, B, C, D) of HOPE by the two bilinear maps: the unit-step shift register to continuous time and back at Δt.

    At Δt = 1 the system is s ← S s + e_0 u, y = hᵀ s, the filter Σ_k h_k z^{-(k+1)}. With z = (1 + s)/(1 - s) it is
    continuous, A_c = (I + S)⁻¹(S - I); s → s/Δt multiplies A_c and B_c by Δt; z = (1 + s)/(1 - s) again samples it.
    """
    n = len(h)
    identity, shift = np.eye(n), np.eye(n, k=-1)
    inverse = np.linalg.inv(identity + shift)
    A_c = inverse @ (shift - identity)
    B_c = inverse @ np.eye(n)[:, 0]
    C_c = 2 * h @ inverse
    D_c = -h @ inverse @ np.eye(n)[:, 0]
    A_c, B_c = A_c * dt, B_c * dt
    back = np.linalg.inv(identity - A_c)
    return (
        back @ (identity + A_c),
        2 * back @ B_c,
        C_c @ back,
        float(D_c + C_c @ back @ B_c),
    )


def hope_angles(dt: float, length: int) -> np.ndarray:
    """θ' = 2 atan2(sin(θ/2), Δt cos(θ/2)) at the L signed angles θ = 2πj/L in (-π, π], in DFT order."""
    j = np.arange(length)
    theta = 2 * np.pi * np.where(2 * j > length, j - length, j) / length
    return 2 * np.arctan2(np.sin(theta / 2), dt * np.cos(theta / 2))


def hope_transfer(h: np.ndarray, dt: float, length: int) -> np.ndarray:
    """g(θ_j) = Σ_k h_k exp(-i(k+1)θ'_j), all L of them, term by term."""
    order = np.arange(1, len(h) + 1)
    return np.exp(-1j * np.outer(hope_angles(dt, length), order)) @ h


def algorithm_1(h: np.ndarray, dt: float, length: int) -> np.ndarray:
    """The kernel of the paper's Algorithm 1, Re iFFT(g), by the direct sum of the inverse DFT."""
    j = np.arange(length)
    fourier = np.exp(2j * np.pi * (np.outer(j, j) % length) / length)
    return (fourier @ hope_transfer(h, dt, length)).real / length


def hankel_singular_values_by_gramians(A: np.ndarray, B: np.ndarray, C: np.ndarray) -> np.ndarray:
    """√eig(W_c W_o), descending, with W_c = A W_c Aᵀ + B Bᵀ and W_o = Aᵀ W_o A + Cᵀ C."""
    controllability = scipy.linalg.solve_discrete_lyapunov(A, np.outer(B, B), method="direct")
    observability = scipy.linalg.solve_discrete_lyapunov(A.T, np.outer(C, C), method="direct")
    eigenvalues = scipy.linalg.eigvals(controllability @ observability).real
    return np.sqrt(np.sort(np.clip(eigenvalues, 0, None))[::-1])


def legs_matrix(n: int) -> np.ndarray:
    """HiPPO-LegS: A_ij = -√(2i+1)√(2j+1) below the diagonal, -(i+1) on it, 0 above."""
    root = np.sqrt(2 * np.arange(n) + 1)
    return -np.tril(np.outer(root, root), -1) - np.diag(np.arange(n) + 1.0)


def legs_normal_part(n: int) -> np.ndarray:
    """The normal matrix A + P Pᵀ of HiPPO-LegS, with P_i = √(i + 1/2)."""
    rank_one = np.sqrt(np.arange(n) + 0.5)
    return legs_matrix(n) + np.outer(rank_one, rank_one)


def dense_from_modes(poles: np.ndarray, B: np.ndarray, C: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Real (A, B, C) with n states of the n/2 complex modes and their conjugates, y = 2 Re Σ C_j s_j."""
    n = 2 * len(poles)
    A = np.zeros((n, n))
    for j, pole in enumerate(poles):
        A[2 * j : 2 * j + 2, 2 * j : 2 * j + 2] = [[pole.real, -pole.imag], [pole.imag, pole.real]]
    return A, np.stack([B.real, B.imag], -1).ravel(), 2 * np.stack([C.real, -C.imag], -1).ravel()


def discretize(A: np.ndarray, B: np.ndarray, dt: float, rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Dense zero-order hold (one matrix exponential of the augmented system) or bilinear rule."""
    n = len(A)
    if rule == "zoh":
        augmented = np.zeros((n + 1, n + 1))
        augmented[:n, :n], augmented[:n, n] = A * dt, B * dt
        exponential = scipy.linalg.expm(augmented)
        return exponential[:n, :n], exponential[:n, n]
    inverse = np.linalg.inv(np.eye(n) - A * dt / 2)
    return inverse @ (np.eye(n) + A * dt / 2), inverse @ B * dt


def state_space_kernel(A: np.ndarray, B: np.ndarray, C: np.ndarray, length: int) -> np.ndarray:
    """C Aᵗ B for t = 0 … L-1, by powers of the dense matrix."""
    kernel, state = np.zeros(length), B.copy()
    for t in range(length):
        kernel[t] = C @ state
        state = A @ state
    return kernel


def causal_convolution(kernel: np.ndarray, u: np.ndarray) -> np.ndarray:
    """y_t = Σ_{s≤t} k_s u_{t-s}, as a double loop."""
    return np.array([sum(kernel[s] * u[t - s] for s in range(t + 1)) for t in range(len(u))])
