"""HOPE: the Hankel operator parameterization as a kernel of the host."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hope_ssm.checks import check_choice, check_positive_integer
from hope_ssm.kernels import initialization
from hope_ssm.kernels.base import S4_OPTIONS
from hope_ssm.kernels.cache import with_enough_memory
from hope_ssm.kernels.optimizer_options import OptimizerOption
from hope_ssm.kernels.windows import RECOMMENDED_RATES, WindowedKernel, longest_sequence
from hope_ssm.ops import backends, realization
from hope_ssm.ops.convolution import TRUNCATIONS, sample_kernel, sample_noncausal_kernel
from hope_ssm.ops.transforms import at_least_one, largest
from hope_ssm.precision import full_precision, working_dtype

COEFFICIENTS = ("real", "complex_noncausal")

# Initializations of S4's state matrix: they mean nothing here, where there is no state matrix to initialize.
S4_INITS = ("legs", "legt", "lagt", "glagt", "legsd", "fout", "foud", "fourier", "hippo", "dplr", "all", "diag")
# Names the host's own kernels use for their ways to evaluate Cauchy and Vandermonde sums.
_S4_BACKENDS = ("naive", "cuda")


class HopeKernel(WindowedKernel):
    """k_0 = Σ_k h_k a^{k+1},  k_t = C A^{t-1} B  for  G(z) = Σ_k h_k P(z)^{k+1},  P(z) = (z⁻¹ + a) / (1 + a z⁻¹).

    The trained numbers are the real Markov parameters h (C, H, n) and one sampling period Δt per system,
    ``a = (Δt - 1) / (Δt + 1)``; memory does not decay inside a window of about n / Δt samples.

    h is treated as the host treats C of S4: ``n_ssm`` never ties it, and it has the global learning rate and weight
    decay, unless ``lr`` or ``wd`` names ``C`` or ``markov_parameters``, or is one nonzero number. For Δt ``lr`` and
    ``wd`` have the keys ``dt`` and ``sampling_period``, a bare number holds for it too, and ``n_ssm`` ties it. A
    learning rate of 0 by name freezes a parameter.

    Args:
        d_model: H features.
        d_state: n, the number of Markov parameters and of real states per system.
        channels: C kernels per feature.
        l_max: longest kernel, or None.
        dt_min: least initial Δt (log-uniform), above 0; None means that it follows from ``horizon``.
        dt_max: greatest initial Δt, likewise.
        horizon: steps of the longest sequence, which the windows n/Δt are to suit where ``dt_min`` or ``dt_max`` is
            None (``initialization.window_periods``); None: l_max. Without either, some hundred steps and a
            warning, or in the workbench the longest sequence of the data set, see ``windows.WindowedKernel``. Of
            several sizes, as a data set of images has them, l_max says which is the kernel's.
        dt_transform: ``"exp"`` or ``"softplus"``.
        n_ssm: number of independent sampling periods; divides d_model; None means one per feature.
        deterministic: h = e_0 and evenly spaced log Δt instead of random ones.
        lr: see above; Δt has the learning rate 0.001 unless another ``lr`` is given (None: the global one).
        wd: see above.
        init: distribution of h, one of ``hope_ssm.kernels.initialization.MARKOV_PARAMETERS``.
        init_scale: √E‖h‖² of a system at the start (2 trained best here, docs/results.md; the paper uses 1/2
            to 1).
        truncation: ``"exact"``, or ``"none"`` for the paper's Algorithm 1 with its wrap-around, which no recurrence
            makes: then there is neither state nor ``step``.
        backend: how to evaluate the transfer function, one of ``hope_ssm.ops.backends.NAMES``.
        coefficients: ``"real"``, or ``"complex_noncausal"``: complex h, stored as (C, H, n, 2), with k = irfft(g) of g
            on the half circle 0 ≤ θ ≤ π. That kernel is not causal (``convolution.sample_noncausal_kernel``): no
            state space and no truncation makes it, so it needs ``truncation="none"`` and has no recurrent mode.
        verbose: log options without effect.

    Raises:
        TypeError, ValueError: an unknown option (the nearest valid one is named), a value outside its range.

    Source: Yu, Mahoney, Erichson, ICLR 2025 (arXiv 2405.13975).
    """

    name = "hope"
    optimizer_options = {  # noqa: RUF012
        "markov_parameters": OptimizerOption(("C", "markov_parameters"), bare="nonzero"),
        "raw_sampling_period": OptimizerOption(("dt", "sampling_period")),
    }
    idle_optimizer_options = ("A", "B")
    idle_options = S4_OPTIONS | {"init"}
    markov_parameters: Tensor
    raw_sampling_period: Tensor

    def __init__(
        self,
        *,
        d_state: int = 64,
        dt_min: float | None = None,
        dt_max: float | None = None,
        horizon: int | Sequence[int] | None = None,
        init: str | None = "gaussian",
        init_scale: float = 2.0,
        lr: float | Mapping[str, float | None] | None = RECOMMENDED_RATES,
        truncation: str = "exact",
        backend: str = "auto",
        coefficients: str = "real",
        **shared: Any,
    ) -> None:
        if init is None or (isinstance(init, str) and (init in S4_INITS or init.startswith("diag-"))):
            shared["init"], init = init, "gaussian"
        if backend in _S4_BACKENDS:
            shared["backend"], backend = backend, "auto"
        n = check_positive_integer("d_state", d_state)
        steps = longest_sequence(horizon, shared.get("l_max"))
        longest, shortest = initialization.window_periods(n, steps)
        super().__init__(
            dt_min=longest if dt_min is None else dt_min, dt_max=shortest if dt_max is None else dt_max, lr=lr, **shared
        )
        if isinstance(self.lr, float):
            self._explain_bare_lr()
        self.n = n
        self.await_length(steps, dt_min, dt_max)
        self.truncation = check_choice("truncation", truncation, TRUNCATIONS)
        self.backend = check_choice("backend", backend, backends.NAMES)
        self.coefficients = check_choice("coefficients", coefficients, COEFFICIENTS)
        if self.noncausal and truncation != "none":
            raise ValueError(
                f"truncation must be 'none' with coefficients={coefficients!r}, whose kernel does not end; "
                f"got {truncation!r}."
            )

        parts = 2 if self.noncausal else 1
        shape = (self.channels, self.d_model, parts, self.n)
        h = initialization.markov_parameters(init, shape, init_scale) / math.sqrt(parts)
        if self.deterministic:
            h = torch.zeros(shape)
            h[..., 0, 0] = init_scale
        self.register("markov_parameters", h.movedim(-2, -1).contiguous() if self.noncausal else h.squeeze(-2))
        self.register_all(self.starts(steps))

    def starts(self, horizon: int | None) -> dict[str, Tensor]:
        """Return the inverse transform of Δt for sequences of ``horizon`` steps."""
        return self.start_of_delays(self.n_ssm, horizon)

    def _explain_bare_lr(self) -> None:
        if self.lr == 0:
            self._say("hope: lr=0 freezes the sampling periods; lr={C: 0} freezes the Markov parameters.")
        else:
            self._say(
                f"hope: lr={self.lr} holds for the Markov parameters too, which usually train best at the global rate; "
                f"lr={{dt: {self.lr}}} leaves them there.",
                logging.WARNING,
            )

    @property
    def noncausal(self) -> bool:
        """Whether the Markov parameters are complex, (C, H, n, 2), and the kernel is not causal."""
        return self.coefficients == "complex_noncausal"

    @property
    def sampling_period(self) -> Tensor:
        """Δt of every feature, (H,)."""
        return self.per_feature(self.transformed(self.raw_sampling_period))

    def _system(self, rate: float) -> tuple[Tensor, Tensor]:
        """(h (C, H, n), Δt (H,)) in the working dtype, at a relative sampling rate."""
        dtype = working_dtype(self.markov_parameters, self.raw_sampling_period)
        return self.markov_parameters.to(dtype), self.sampling_period.to(dtype) * self.check_rate(rate)

    def forward(
        self, L: int | None = None, rate: float = 1.0, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """k_t for t < L, and C Aᵗ s_0 if there is a state s_0.

        Args:
            L: length, l_max if None.
            rate: relative sampling rate r: Δt becomes r·Δt.
            state: (B, H, n) or None.

        Returns:
            kernel (C, H, L) and state response (B, C, H, L) or None.
        """
        length = self.kernel_length(L)
        self.heard(length, self.check_rate(rate))
        h, dt = self._system(rate)
        backend = backends.get(self.backend, h.device)
        whole = largest(length, self.truncation == "exact")

        def sample() -> Tensor:
            if self.noncausal:
                return sample_noncausal_kernel(h, dt, whole, backend)
            return sample_kernel(h, dt, whole, self.truncation, backend)[..., :length]

        kernel = with_enough_memory(
            lambda: self.cache.get(self, (length, rate), sample), "hope", (*h.shape[:2], length), h.dtype
        )
        if state is None:
            return kernel, None
        rows = at_least_one(self.check_state(state)).unsqueeze(1)
        return kernel, realization.state_response(h, dt, rows, whole, backend)[: len(state), ..., :length]

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """y = C s + D_h u,  s ← A s + B u.

        Args:
            u: (B, H).
            state: (B, H, n).

        Returns:
            y (B, C, H), state (B, H, n).
        """
        state = self.check_inputs(u, state, "B, H")
        h, dt = self._system(1.0)
        with full_precision(u.device):
            y, following = realization.step(h, dt, u.to(h.dtype), state.to(h.dtype))
        return y.to(u.dtype), following.to(state.dtype)

    def forward_state(self, u: Tensor, state: Tensor) -> Tensor:
        """A^L s + Σ_t A^{L-1-t} B u_t.

        Args:
            u: (B, H, L).
            state: (B, H, n).

        Returns:
            (B, H, n).
        """
        state = self.check_inputs(u, state, "B, H, L")
        self.heard(u.shape[-1])
        _, dt = self._system(1.0)
        return realization.forward_state(dt, at_least_one(u), at_least_one(state))[: len(state)]

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state (*batch_shape, H, n), real, float32 at least, on the parameters' device."""
        if self.noncausal:
            raise NotImplementedError(
                f"a step or a state must have a causal kernel; got coefficients={self.coefficients!r}. "
                "Train with coefficients='real' for a recurrent mode."
            )
        if self.truncation == "none":
            raise NotImplementedError(
                "a step or a state must have a kernel that does not wrap around; got truncation='none'. "
                "Build the kernel with truncation='exact' for a recurrent mode: it has the same parameters."
            )
        dtype = working_dtype(self.markov_parameters)
        return self.markov_parameters.new_zeros(*batch_shape, self.d_model, self.n, dtype=dtype)

    def extra_repr(self) -> str:
        """Return the sizes and choices, for print(model)."""
        return (
            f"d_model={self.d_model}, d_state={self.n}, channels={self.channels}, n_ssm={self.n_ssm}, "
            f"truncation={self.truncation!r}, backend={self.backend!r}, coefficients={self.coefficients!r}"
        )
