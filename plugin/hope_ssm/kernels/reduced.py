"""A recurrent kernel cut down to fewer states: what balanced truncation leaves of another kernel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from hope_ssm.checks import check_positive_integer, option_names
from hope_ssm.hankel import (
    StateSpace,
    balanced_truncation,
    certificates,
    h_infinity_norm,
    smallest_orders,
    state_space_singular_values,
)
from hope_ssm.kernels.base import S4_OPTIONS
from hope_ssm.kernels.cache import KernelCache
from hope_ssm.kernels.optimizer_options import OptimizerOption
from hope_ssm.kernels.orthonormal import all_pass_chain, paired, projection, reflections, warped
from hope_ssm.kernels.state_space import Dense, StateSpaceKernel
from hope_ssm.kernels.to_state_space import system
from hope_ssm.precision import full_precision, working_dtype

PROVED = 1e-6  # relative, of h_infinity_norm


class ReducedKernel(StateSpaceKernel):
    """k_0 = D,  k_t = C A^{t-1} B  (output, then update: y = C s + D u, s ← A s + B u), with n real states.

    (A, B) is a chain of n/2 all-pass sections of two states, each with two reflection coefficients k = tanh(raw) in
    (-1, 1): any stable pair of poles, complex or real, equal to others or not. The states answer an impulse by n
    orthonormal sequences (the functions of Takenaka, Malmquist and Kautz; with equal poles those of Laguerre). So C is
    never large, and every value of the 2n + 1 real parameters is a stable system. ``rate`` warps frequencies by the
    bilinear rule, as for hope.

    ``hope reduce`` makes such kernels; new ones begin with random oscillations whose decay takes 10 to 1000 steps.
    ``lr`` and ``wd`` know A (which a bare number rules), C and D.

    Args:
        d_model: H features.
        d_state: n, even.
        **shared: ``channels``, ``l_max``, ``n_ssm``, ``deterministic``, ``lr``, ``wd``, ``verbose``: see
            ``SequenceKernel``.

    Source: Ninness, Gustafsson, "A unifying construction of orthonormal bases for system identification", IEEE TAC
    1997; Gray, Markel, "A normalized digital filter structure", IEEE TASSP 1975.
    """

    name = "reduced"
    optimizer_options = {  # noqa: RUF012
        "reflections": OptimizerOption(("A",)),
        "C": OptimizerOption(("C",), bare="never"),
        "feedthrough": OptimizerOption(("D",), bare="never"),
    }
    idle_optimizer_options = ("dt", "sampling_period", "B")
    idle_options = S4_OPTIONS | {"dt_min", "dt_max", "dt_transform", "horizon", "init"}
    sampling_period = None
    reflections: Tensor
    feedthrough: Tensor

    def __init__(self, *, d_state: int = 64, **shared: Any) -> None:
        super().__init__(**shared)
        self.n = n = check_positive_integer("d_state", d_state)
        if n % 2:
            raise ValueError(f"d_state of {self.name} must be even, because its sections have two states; got {n}.")
        decay, angle = torch.rand(2, self.n_ssm, n // 2, dtype=torch.float64)
        if self.deterministic:
            decay = angle = ((torch.arange(n // 2, dtype=torch.float64) + 0.5) / (n // 2)).expand(self.n_ssm, -1)
        poles = torch.polar(torch.exp(-(10.0 ** (2 * decay - 3))), math.pi * angle)
        C = torch.randn(self.channels, self.d_model, n) / math.sqrt(n)
        self.register("reflections", reflections(torch.stack([poles, poles.conj()], dim=-1).flatten(-2)))
        self.register("C", torch.full_like(C, n**-0.5) if self.deterministic else C)
        self.register("feedthrough", torch.zeros(self.channels, self.d_model))
        self.steps = KernelCache()

    def matrices(self, rate: Tensor | float = 1.0) -> tuple[Tensor, ...]:
        """(A (H, n, n), B (H, n), C (H, C, n), D (H, C)) at a relative sampling rate, float64."""
        A, B = all_pass_chain(self.per_feature(self.reflections.double()))
        chain = A, B, self.C.double().transpose(0, 1), self.feedthrough.double().mT
        return chain if isinstance(rate, (int, float)) and rate == 1 else warped(*chain, rate)

    def discretized(self, rate: float = 1.0) -> tuple[Dense, Tensor]:
        """(A, B (H, n)) at a relative sampling rate, float64."""
        A, B, *_ = self.matrices(self.check_rate(rate))
        return Dense(A), B

    def outputs(self) -> Tensor:
        """C (C, H, n), float64."""
        return self.C.double()

    def forward(
        self, L: int | None = None, rate: float = 1.0, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """k_t for t < L, and C Aᵗ s_0 if there is a state s_0.

        Args:
            L: length, l_max if None.
            rate: relative sampling rate.
            state: (B, H, n) or None.

        Returns:
            kernel (C, H, L) and state response (B, C, H, L) or None.
        """
        later, response = super().forward(L, rate, state)
        first = self.matrices(rate)[3].mT.to(later.dtype).unsqueeze(-1)
        kernel = torch.cat([first, later], dim=-1)[..., :-1]
        if state is None or response is None:
            return kernel, None
        first = torch.einsum("chn,bhn->bch", self.outputs(), state.double()).to(response.dtype).unsqueeze(-1)
        return kernel, torch.cat([first, response], dim=-1)[..., :-1]

    def _update(self) -> Tensor:
        """The matrix (H, n + C, n + 1) that maps (s, u) to (the change of s, y).

        A - 1 is rounded and not A, so that slow poles keep their distance to the circle.
        """
        A, B, C, D = self.matrices()
        change = A - torch.eye(self.n, dtype=A.dtype, device=A.device)
        whole = torch.cat([torch.cat([change, B.unsqueeze(-1)], -1), torch.cat([C, D.unsqueeze(-1)], -1)], dim=-2)
        return whole.to(working_dtype(self.C))

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """y = C s + D u,  s ← A s + B u.

        Args:
            u: (B, H).
            state: (B, H, n).

        Returns:
            y (B, C, H), state.
        """
        state = self.check_inputs(u, state, "B, H")
        update = self.steps.get(self, "step", self._update, copy=False)
        working = state.to(update.dtype)
        with full_precision(u.device):
            found = torch.einsum("hij,bhj->bhi", update, torch.cat([working, u.unsqueeze(-1).to(update.dtype)], dim=-1))
        return found[..., self.n :].mT.to(u.dtype), (working + found[..., : self.n]).to(state.dtype)

    @torch.no_grad()
    def set_system(self, feature: int, system: StateSpace) -> None:
        """Make one feature a given system, as well as its parameters can; states beyond those it has are silent.

        Args:
            feature: its index, where no features share.
            system: stable and real, C outputs, n states at most.
        """
        raw = reflections(paired(torch.linalg.eigvals(system.A)))
        self.reflections[feature] = 0
        self.reflections[feature, : len(raw)] = raw.to(self.reflections.dtype)
        A, B = all_pass_chain(self.reflections[feature : feature + 1].double())  # as they are stored
        self.C[:, feature] = projection(system, A[0], B[0]).to(self.C.dtype)
        self.feedthrough[:, feature] = system.D.to(self.feedthrough.dtype)

    def padded(self, n: int) -> dict[str, Tensor]:
        """Return the parameters of a kernel with n states per feature, as many or more, the new ones silent."""
        state = dict(self.state_dict())
        state["reflections"] = pad(state["reflections"], (0, 0, 0, (n - self.n) // 2))
        return state | {"C": pad(state["C"], (0, n - self.n))}


def reduced_options(layer: Mapping[str, Any], kernel: type, d_state: int) -> dict[str, Any]:
    """Return a layer's options with the kernel ``reduced`` in place of another, without what only the latter takes."""
    theirs, ours = (set(option_names(cls)) for cls in (kernel, ReducedKernel))
    idle = {"dt_min", "dt_max", "dt_transform"}  # of any configuration, and as good as not given
    dropped = (theirs - ours - idle) | {"kernel", "init", "measure", "disc"}
    kept = {key: value for key, value in layer.items() if key not in dropped}
    keys = {key for option in ReducedKernel.optimizer_options.values() for key in option.keys}
    for option in ("lr", "wd"):
        if isinstance(kept.get(option), Mapping):
            kept[option] = {key: value for key, value in kept[option].items() if key in keys}
    return {**kept, "mode": "reduced", "d_state": d_state, "n_ssm": None}


@dataclass(frozen=True)
class Reduction:
    """What became of the H systems of a kernel: orders before and after, σ_1, certificate and measured H∞ error.

    The certificate is 2 Σ_{k>r} σ_k and the H∞ norm of what rounding changed, so it bounds the error of the stored
    parameters.
    """

    states: int
    orders: Tensor
    largest: Tensor
    certificate: Tensor
    measured: Tensor


def chosen_orders(singular_values: Tensor, tolerance: float | None, d_state: int | None) -> Tensor:
    """The order of every system, by a tolerance (of its certificate, over its σ_1) or one number for all.

    Args:
        singular_values: (H, n).
        tolerance: above 0, or None.
        d_state: at least 1, or None.

    Returns:
        (H,), at least 1.

    Raises:
        TypeError, ValueError: both or neither; more states than there are.
    """
    if (tolerance is None) == (d_state is None):
        raise ValueError(f"either a tolerance or d_state must be given; got tolerance={tolerance}, d_state={d_state}.")
    n = singular_values.shape[-1]
    if tolerance is not None:
        return smallest_orders(singular_values, tolerance).clamp(min=1)
    if check_positive_integer("d_state", d_state) > n:
        raise ValueError(f"d_state must be at most {n}, what the kernel has; got {d_state}.")
    there = (singular_values > 1e-13 * singular_values[..., :1]).sum(-1)
    return there.clamp(min=1, max=d_state)


@torch.no_grad()
def reduce_kernel(
    kernel: nn.Module, tolerance: float | None = None, d_state: int | None = None
) -> tuple[ReducedKernel, Reduction]:
    """Return the kernel of balanced truncations of all systems of a recurrent kernel, and how good they are.

    Channels share a feature's state, so they are the outputs of one system. Certificate and measured error are those of
    the parameters as they are stored, rounding included.

    Args:
        kernel: recurrent; it stays as it is.
        tolerance: bound of the certificate over σ_1, for every system; or
        d_state: r for every system.

    Raises:
        ValueError: neither or both, bad numbers, an unstable kernel, or a tolerance that rounding exceeds.
    """
    full, period, dt = system(kernel)
    sigma = state_space_singular_values(full)
    if not (sigma[:, 0] > 0).all():
        raise ValueError("every system must have a memory to reduce; got one whose Hankel singular values are all 0.")
    orders = chosen_orders(sigma, tolerance, d_state)
    parts = [balanced_truncation(full[i], int(r)) for i, r in enumerate(orders)]
    parameter = next(iter(kernel.state_dict().values()))
    made = ReducedKernel(
        d_model=len(orders), d_state=2 * -(-int(orders.max()) // 2), channels=full.C.shape[-2], verbose=False,
        l_max=getattr(kernel, "l_max", None),
    ).to(parameter.dtype)  # fmt: skip
    for feature, part in enumerate(parts):
        made.set_system(feature, StateSpace(*warped(part.A, part.B, part.C, part.D, dt[feature] / period[feature])))
    stored = StateSpace(*made.matrices(period / dt))
    rounding = torch.stack([h_infinity_norm(part - stored[i]) for i, part in enumerate(parts)])
    certificate = certificates(sigma).gather(-1, orders.unsqueeze(-1)).squeeze(-1) + rounding * (1 + PROVED)
    measured = torch.stack([h_infinity_norm(full[i] - stored[i]) for i in range(len(parts))])
    certificate = torch.maximum(certificate, measured * (1 + PROVED))  # the analysis rounds too, where nothing is cut
    worst = int((certificate / sigma[:, 0]).argmax())
    if tolerance is not None and certificate[worst] > tolerance * sigma[worst, 0]:
        raise ValueError(
            f"tolerance must leave room for rounding to {parameter.dtype}, which changes feature {worst} by "
            f"{float(rounding[worst] / sigma[worst, 0]):.1e} of its largest singular value; got {tolerance}. Ask for "
            "more, or reduce the model in float64."
        )
    return made, Reduction(sigma.shape[-1], orders, sigma[:, 0], certificate, measured)
