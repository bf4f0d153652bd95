"""A recurrent kernel cut down to fewer states: the modes that balanced truncation leaves of another kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from hope_ssm.checks import check_choice, check_positive_integer, option_names
from hope_ssm.hankel import (
    StateSpace,
    balanced_truncation,
    certificates,
    h_infinity_norm,
    smallest_orders,
    state_space_singular_values,
)
from hope_ssm.kernels.base import TRANSFORMS
from hope_ssm.kernels.optimizer_options import OptimizerOption
from hope_ssm.kernels.s4d import S4DKernel
from hope_ssm.kernels.to_state_space import system
from hope_ssm.precision import working_dtype

ROUNDING = 1e-4  # of σ_1: a mode form that misses the certificate by more is ill-conditioned, not rounded


class ReducedKernel(S4DKernel):
    """G(z) = D + Σ_j C_j B_j / (s - λ_j)  with conjugates, at  s = (2/Δt) (z - 1)/(z + 1).

    n/2 complex modes per feature by the bilinear rule, s ← Ā s + B̄ u with Ā = (1 + Δtλ/2)/(1 - Δtλ/2) and
    B̄ = ΔtB/(1 - Δtλ/2), and without its usual delay: y = D u + Re Σ_j C_j (s_before + s_after)_j. So Δt and ``rate``
    warp frequencies exactly, as for hope. A real pole is a mode with Im λ = 0.

    ``hope reduce`` makes such kernels; new ones begin as S4D, with D = 0. ``lr`` and ``wd`` know dt, A, B, C and D
    (a bare number rules dt, A and B).

    Args:
        d_model: H features.
        d_state: n, even.
        init: as of S4D.
        disc: ``"bilinear"``.
        **shared: ``channels``, ``l_max``, ``dt_min``, ``dt_max``, ``dt_transform``, ``n_ssm``, ``deterministic``,
            ``lr``, ``wd``, ``verbose``: see ``SequenceKernel``.

    Source: Moore, "Principal component analysis in linear systems", IEEE TAC 1981 (balanced truncation).
    """

    name = "reduced"
    idle_options = S4DKernel.idle_options | {"horizon"}
    optimizer_options = {**S4DKernel.optimizer_options, "feedthrough": OptimizerOption(("D",), bare="never")}  # noqa: RUF012
    feedthrough: Tensor

    def __init__(self, *, disc: str | None = "bilinear", **shared: Any) -> None:
        rule = check_choice("disc of the reduced kernel", "bilinear" if disc is None else disc, ("bilinear",))
        super().__init__(disc=rule, **shared)
        self.register("feedthrough", torch.zeros(self.channels, self.d_model))

    def _read(self, state: Tensor) -> Tensor:
        """2 Re Σ_j C_j s_j.

        Args:
            state: (B, H, n/2).

        Returns:
            (B, C, H).
        """
        state = self.check_state(state)
        C = torch.view_as_complex(self.C.to(torch.view_as_real(state).dtype).contiguous())
        return 2 * torch.einsum("chn,bhn->bch", C, state).real

    def forward(
        self, L: int | None = None, rate: float = 1.0, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """k_t for t < L, and the response to a state s_0 if there is one.

        Args:
            L: length, l_max if None.
            rate: relative sampling rate.
            state: (B, H, n/2) complex or None.

        Returns:
            kernel (C, H, L) and state response (B, C, H, L) or None.
        """
        kernel, response = super().forward(L, rate, state)
        before = pad(kernel, (1, 0))[..., :-1]
        impulse = pad(self.feedthrough.to(kernel.dtype).unsqueeze(-1), (0, kernel.shape[-1] - 1))
        kernel = (kernel + before) / 2 + impulse
        if state is None or response is None:
            return kernel, None
        first = self._read(state).to(response.dtype).unsqueeze(-1)
        return kernel, (response + torch.cat([first, response], dim=-1)[..., :-1]) / 2

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """s ← Ā s + B̄ u, y as above.

        Args:
            u: (B, H).
            state: (B, H, n/2).

        Returns:
            y (B, C, H), state.
        """
        state = self.check_inputs(u, state, "B, H")
        working = u.to(working_dtype(self.C))
        y, after = super().step(working, state)
        y = (y + self._read(state).to(y.dtype)) / 2 + self.feedthrough.to(y.dtype) * working.unsqueeze(1)
        return y.to(u.dtype), after

    @torch.no_grad()
    def set_modes(self, feature: int, poles: Tensor, C: Tensor, D: Tensor, sampling_period: Tensor) -> None:
        """Give one feature its modes; what is left of n/2 becomes silent.

        Args:
            feature: its index.
            poles: λ (m,), m ≤ n/2, Re λ < 0.
            C: (C, m), with B = 1.
            D: (C,).
            sampling_period: Δt.
        """
        m = len(poles)
        self.A_real[feature], self.A_imag[feature] = 0, 0
        self.C[:, feature], self.B[feature] = 0, 0
        self.B[feature, :, 0] = 1
        self.A_real[feature, :m] = torch.log(-poles.real).to(self.A_real.dtype)
        self.A_imag[feature, :m] = poles.imag.to(self.A_imag.dtype)
        self.C[:, feature, :m] = torch.view_as_real(C.resolve_conj().contiguous()).to(self.C.dtype)
        self.feedthrough[:, feature] = D.to(self.feedthrough.dtype)
        raw = TRANSFORMS[self.dt_transform][1](sampling_period.double())
        self.raw_sampling_period[feature] = raw.to(self.raw_sampling_period.dtype)

    def padded(self, modes: int) -> dict[str, Tensor]:
        """Return the parameters of a kernel with ``modes`` modes per feature, as many or more, the new ones silent."""
        more = modes - self.n // 2
        state = dict(self.state_dict())
        state |= {name: pad(state[name], (0, more)) for name in ("A_real", "A_imag")}
        return state | {name: pad(state[name], (0, 0, 0, more)) for name in ("B", "C")}

    @torch.no_grad()
    def state_space(self, feature: int, period: Tensor | float) -> StateSpace:
        """(A, B, C, D) of one feature, with all n modes, at a sampling period; from the parameters as they are."""
        poles = torch.complex(-torch.exp(self.A_real[feature].double()), self.A_imag[feature].double())
        B = torch.view_as_complex(self.B[feature].double().contiguous())
        C = torch.view_as_complex(self.C[:, feature].double().contiguous())
        A, B = (1 + period * poles / 2) / (1 - period * poles / 2), period * B / (1 - period * poles / 2)
        D = self.feedthrough[:, feature].double() + (C * B).sum(-1).real
        C = C * (1 + A) / 2
        A, B, C = (torch.cat([part, part.conj()], dim=-1) for part in (A, B, C))
        return StateSpace.from_modes(A, B, C, D)


def reduced_options(layer: Mapping[str, Any], kernel: type, d_state: int) -> dict[str, Any]:
    """Return a layer's options with the kernel ``reduced`` in place of another, without what only the latter takes."""
    theirs, ours = (set(option_names(cls)) for cls in (kernel, ReducedKernel))
    dropped = (theirs - ours) | {"kernel", "init", "measure", "disc"}
    kept = {key: value for key, value in layer.items() if key not in dropped}
    keys = {key for option in ReducedKernel.optimizer_options.values() for key in option.keys}
    for option in ("lr", "wd"):
        if isinstance(kept.get(option), Mapping):
            kept[option] = {key: value for key, value in kept[option].items() if key in keys}
    return {**kept, "mode": "reduced", "d_state": d_state, "n_ssm": None}


@dataclass(frozen=True)
class Reduction:
    """What became of the H systems of a kernel: orders before and after, σ_1, certificate and measured H∞ error."""

    states: int
    orders: Tensor
    largest: Tensor
    certificate: Tensor
    measured: Tensor


def _modes(system: StateSpace, period: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(λ (m,), C (C, m), D (C,)) with B = 1, of a real state space at a sampling period; one of each conjugate pair."""
    A, vectors = torch.linalg.eig(system.A)
    residues = (system.C.to(vectors.dtype) @ vectors) * torch.linalg.solve(vectors, system.B.to(vectors.dtype))
    D = system.D - (residues / (1 + A)).sum(-1).real
    kept = A.imag >= 0
    A, residues = A[kept], torch.where(A[kept].imag == 0, residues[:, kept] / 2, residues[:, kept])
    return 2 / period * (A - 1) / (A + 1), 4 / period * residues / (1 + A) ** 2, D


def chosen_orders(singular_values: Tensor, tolerance: float | None, states: int | None) -> Tensor:
    """The order of every system, by a tolerance (of its certificate, over its σ_1) or one number for all.

    Args:
        singular_values: (H, n).
        tolerance: above 0, or None.
        states: at least 1, or None.

    Returns:
        (H,), at least 1.

    Raises:
        TypeError, ValueError: both or neither; more states than there are.
    """
    if (tolerance is None) == (states is None):
        raise ValueError(f"either a tolerance or states must be given; got tolerance={tolerance}, states={states}.")
    n = singular_values.shape[-1]
    if tolerance is not None:
        return smallest_orders(singular_values, tolerance).clamp(min=1)
    if check_positive_integer("states", states) > n:
        raise ValueError(f"states must be at most {n}, what the kernel has; got {states}.")
    there = (singular_values > 1e-13 * singular_values[..., :1]).sum(-1)
    return there.clamp(min=1, max=states)


@torch.no_grad()
def reduce_kernel(
    kernel: nn.Module, tolerance: float | None = None, states: int | None = None
) -> tuple[ReducedKernel, Reduction]:
    """Return the kernel of balanced truncations of all systems of a recurrent kernel, and how good they are.

    Channels share a feature's state, so they are the outputs of one system. The measured error is the H∞ norm of the
    difference to the parameters as they are stored, rounding included.

    Args:
        kernel: recurrent; it stays as it is.
        tolerance: bound of 2 Σ σ_dropped over σ_1, for every system; or
        states: r for every system.

    Raises:
        ValueError: neither or both, bad numbers, an unstable kernel, or an order at which the poles are (nearly) equal,
            so that there are no modes, for example hope with all its n states.
    """
    full, period, dt = system(kernel)
    sigma = state_space_singular_values(full)
    if not (sigma[:, 0] > 0).all():
        raise ValueError("every system must have a memory to reduce; got one whose Hankel singular values are all 0.")
    orders = chosen_orders(sigma, tolerance, states)
    parts = [balanced_truncation(full[i], int(r)) for i, r in enumerate(orders)]
    modes = [_modes(part, tau) for part, tau in zip(parts, period, strict=True)]
    parameter = next(iter(kernel.state_dict().values()))
    made = ReducedKernel(
        d_model=len(orders), d_state=2 * max(len(poles) for poles, _, _ in modes), channels=full.C.shape[-2],
        verbose=False, l_max=getattr(kernel, "l_max", None), dt_transform=getattr(kernel, "dt_transform", "softplus"),
    ).to(parameter.dtype)  # fmt: skip
    for feature, found in enumerate(modes):
        made.set_modes(feature, *found, dt[feature])
    certificate = certificates(sigma).gather(-1, orders.unsqueeze(-1)).squeeze(-1)
    measured = torch.stack([h_infinity_norm(full[i] - made.state_space(i, period[i])) for i in range(len(orders))])
    worst = int(((measured - certificate) / sigma[:, 0]).argmax())
    if not measured[worst] <= certificate[worst] + ROUNDING * sigma[worst, 0]:
        smaller = "fewer states" if tolerance is None else "a larger tolerance"
        raise ValueError(
            f"a reduced system must have separate poles; at {orders[worst]} of {sigma.shape[-1]} states those of "
            f"feature {worst} (nearly) coincide, as hope's do with all of its states. Ask for {smaller}."
        )
    return made, Reduction(sigma.shape[-1], orders, sigma[:, 0], certificate, measured)
