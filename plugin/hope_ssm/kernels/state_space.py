"""A kernel that is a state space with n real states: convolution, steps, chunks and states from Ā, B̄ and C alone.

Everything is computed in float64, whatever the parameters are: rounding Ā to float32 would turn the phase of Ā^L by L
times its relative error. Axes: B batch, C channels, H features, L samples, n real states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from hope_ssm.kernels.base import SequenceKernel
from hope_ssm.kernels.cache import with_enough_memory
from hope_ssm.ops.scan import scan
from hope_ssm.ops.transforms import at_least_one, largest
from hope_ssm.precision import full_precision, working_dtype


class Power(Protocol):
    """A power of Ā: a tensor (H, n, n), or something with a transpose and a product like one."""

    @property
    def mT(self) -> Power:  # noqa: N802, as of torch's tensors
        """The transpose."""
        ...

    def __matmul__(self, x: Tensor) -> Tensor:
        """The product with x (H, n, K)."""
        ...


class Transition(Protocol):
    """A real state matrix Ā (H, n, n), not necessarily as its entries."""

    def apply(self, x: Tensor) -> Tensor:
        """Ā x.

        Args:
            x: (..., H, n).

        Returns:
            the same shape.
        """
        ...

    def squares(self, count: int) -> Sequence[Power]:
        """Ā, Ā², Ā⁴, …"""
        ...


def times(power: Power, x: Tensor) -> Tensor:
    """power @ x, as a call that compilers trace for tensors and for other powers alike."""
    return power.__matmul__(x)


def repeated_squares(A: Tensor, count: int) -> list[Tensor]:
    """A, A², A⁴, … of a dense A (..., n, n)."""
    found = [A]
    while len(found) < count:
        found.append(found[-1] @ found[-1])
    return found


@dataclass  # made in compiled graphs, where older compilers know no frozen ones
class Dense:
    """A real state matrix by its entries, (H, n, n), or one per step, (B, L, H, n, n)."""

    entries: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Ā x.

        Args:
            x: (..., H, n).

        Returns:
            the same shape.
        """
        return torch.einsum("...hij,...hj->...hi", self.entries, x)

    def at(self, steps: slice) -> Dense:
        """Those of some steps."""
        return Dense(self.entries[:, steps])

    def after(self, earlier: Dense) -> Dense:
        """The product with those before."""
        return Dense(self.entries @ earlier.entries)

    def squares(self, count: int) -> list[Tensor]:
        """Ā, Ā², Ā⁴, … (H, n, n)."""
        return repeated_squares(self.entries, count)


def _krylov(squares: Sequence[Power], vectors: Tensor, count: int) -> Tensor:
    """(v, Āv, …, Ā^{count-1}v) by doubling.

    Args:
        squares: Ā, Ā², Ā⁴, …, at least as many as doublings.
        vectors: (H, n, K).
        count: how many powers.

    Returns:
        (H, n, count, K).
    """
    size = vectors.shape[-1]
    for power in squares[: (count - 1).bit_length()]:
        vectors = torch.cat([vectors, times(power, vectors)], dim=-1)
    return vectors.unflatten(-1, (-1, size))[..., :count, :]


class StateSpaceKernel(SequenceKernel, ABC):
    """k_t = C Āᵗ B̄  (update, then output: s ← Ā s + B̄ u, y = C s).

    A parameterization gives ``discretized`` and ``outputs``. With t = jb + i and b about √L, k_t is the product of the
    row C Ā^{jb} and the column Āⁱ B̄, and both families are made by doubling from the squares of Ā; so L samples take
    n(L + n√L) operations and memory n√L.
    """

    n: int
    C: Tensor
    raw_sampling_period: Tensor
    stepwise = False  # whether ``discretized`` takes a rate for every step and gives a StepwiseTransition

    @property
    def sampling_period(self) -> Tensor | None:
        """Δt of every feature, (H,); None where the system is discrete from the start."""
        return self.transformed(self.raw_sampling_period)

    def periods(self, rate: float | Tensor) -> Tensor:
        """Δt (H, 1) at a relative sampling rate, or (…, H, 1) at rates (…); float64."""
        factor = rate.double().unsqueeze(-1) if isinstance(rate, Tensor) else self.check_rate(rate)
        return (self.transformed(self.raw_sampling_period.double()) * factor).unsqueeze(-1)

    @abstractmethod
    def discretized(self, rate: float = 1.0) -> tuple[Transition, Tensor]:
        """(Ā, B̄ (H, n)) at a relative sampling rate, float64; where ``stepwise``, of every one of rates (…)."""

    @abstractmethod
    def outputs(self) -> Tensor:
        """C (C, H, n), float64."""

    def from_state(self, state: Tensor) -> Tensor:
        """The n real numbers (B, H, n) float64 of a state as ``default_state`` makes it."""
        return state.double()

    def to_state(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The inverse of ``from_state``."""
        return x.to(dtype)

    def forward(
        self, L: int | None = None, rate: float = 1.0, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """k_t for t < L, and C Ā^{t+1} s_0 if there is a state s_0 (the host's convention: update, then output).

        Args:
            L: length, l_max if None.
            rate: relative sampling rate.
            state: as ``default_state(B)`` or None.

        Returns:
            kernel (C, H, L) and state response (B, C, H, L) or None.
        """
        length = self.kernel_length(L)
        start = None if state is None else at_least_one(self.from_state(self.check_state(state)))

        def samples() -> tuple[Tensor, Tensor | None]:
            if state is None or start is None:
                return self.cache.get(self, (length, rate), lambda: self._samples(length, rate, None)[0]), None
            kernel, response = self._samples(length, rate, start)
            return kernel, None if response is None else response[: len(state)]

        return with_enough_memory(samples, self.name, (self.channels, self.d_model, length), working_dtype(self.C))

    def _samples(self, length: int, rate: float, start: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The kernel (C, H, L), and the response to an initial state (B, H, n)."""
        dtype = working_dtype(self.C)
        transition, B = self.discretized(rate)
        bits = (whole := largest(length)).bit_length()
        squares, halvings = transition.squares(bits), bits // 2
        block = 1 << halvings
        transposed = [power.mT for power in squares[halvings:]]
        rows = _krylov(transposed, self.outputs().permute(1, 2, 0), -(-whole // block)).to(dtype)

        def samples(vectors: Tensor) -> Tensor:
            """C Āᵗ v for t < L.

            Args:
                vectors: v, (K, H, n).

            Returns:
                (K, C, H, L).
            """
            columns = _krylov(squares, vectors.permute(1, 2, 0), block).to(dtype)
            with full_precision(columns.device):
                return torch.einsum("hnjc,hnik->kchji", rows, columns).flatten(-2)[..., :length]

        return samples(B.unsqueeze(0))[0], None if start is None else samples(transition.apply(start))

    def irregular(self, u: Tensor, scale: Tensor, state: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """s_t = Ā(r_tΔt) s_{t-1} + B̄(r_tΔt) u_t,  y = C s: sample t comes r_t sampling periods after the one before.

        Args:
            u: (B, H, L).
            scale: r, (B, L), above 0.
            state: as ``default_state(B)``.
            lengths: (B,) whole numbers if the sequences end before L.

        Returns:
            y (B, C, H, L), and the state after the last step of each sequence.
        """
        start = self.from_state(self.check_inputs(u, state, "B, H, L"))
        transition, B = self.discretized(scale)  # type: ignore[arg-type]
        states = scan(transition, B * u.double().transpose(1, 2).unsqueeze(-1), start)  # type: ignore[arg-type]
        y = torch.einsum("chn,blhn->bchl", self.outputs(), states)
        ends = torch.full((len(u),), u.shape[-1]) if lengths is None else lengths
        reached = torch.cat([start.unsqueeze(1), states], dim=1)
        last = reached[torch.arange(len(u), device=u.device), ends.to(u.device).long()]
        return y.to(u.dtype), self.to_state(last, state.dtype)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """s ← Ā s + B̄ u,  y = C s.

        Args:
            u: (B, H).
            state: as ``default_state(B)``.

        Returns:
            y (B, C, H), state.
        """
        return self._step(u, state, self.discretized())

    def irregular_step(self, u: Tensor, scale: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The same with the steps r (B,) of ``irregular``."""
        return self._step(u, state, self.discretized(scale))  # type: ignore[arg-type]

    def _step(self, u: Tensor, state: Tensor, system: tuple[Transition, Tensor]) -> tuple[Tensor, Tensor]:
        start = self.from_state(self.check_inputs(u, state, "B, H"))
        transition, B = system
        after = transition.apply(start) + B * u.unsqueeze(-1)
        y = torch.einsum("chn,bhn->bch", self.outputs(), after)
        return y.to(u.dtype), self.to_state(after, state.dtype)

    def forward_state(self, u: Tensor, state: Tensor) -> Tensor:
        """Ā^L s + Σ_t Ā^{L-1-t} B̄ u_t, by halves.

        Args:
            u: (B, H, L).
            state: as ``default_state(B)``.

        Returns:
            the next state.
        """
        batch, state = len(u), self.check_inputs(u, state, "B, H, L")
        u, after = at_least_one(u), at_least_one(self.from_state(state)).permute(1, 2, 0)
        transition, B = self.discretized()
        length, dtype = u.shape[-1], working_dtype(self.C)
        squares, halvings = transition.squares(length.bit_length()), length.bit_length() // 2
        columns = _krylov(squares, B.unsqueeze(-1), 1 << halvings).squeeze(-1).to(dtype)
        rounds = ((length - 1) >> halvings).bit_length()
        latest_first = pad(u.flip(-1).to(dtype), (0, (1 << rounds + halvings) - length)).unflatten(
            -1, (1 << rounds, -1)
        )
        with full_precision(u.device):
            driven = torch.einsum("hni,bhji->hnjb", columns, latest_first).double()
        for power in squares[halvings : halvings + rounds]:
            driven = driven[..., ::2, :] + times(power, driven[..., 1::2, :].flatten(-2)).view_as(driven[..., ::2, :])
        for power in (power for bit, power in enumerate(squares) if length >> bit & 1):
            after = times(power, after)
        return self.to_state((after + driven.squeeze(-2)).permute(2, 0, 1)[:batch], state.dtype)

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state (*batch_shape, H, n), float32 at least, on the parameters' device."""
        return self.C.detach().new_zeros(*batch_shape, self.d_model, self.n, dtype=working_dtype(self.C))

    def extra_repr(self) -> str:
        """Return the sizes, for print(model)."""
        return f"d_model={self.d_model}, d_state={self.n}, channels={self.channels}, n_ssm={self.n_ssm}"
