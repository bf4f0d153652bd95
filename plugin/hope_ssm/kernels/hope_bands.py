"""HOPE beyond its delay: features with bands of complex all-pass stages beside features that are HOPE itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from hope_ssm.checks import check_positive_integer, check_positive_number, check_share
from hope_ssm.kernels import initialization
from hope_ssm.kernels.base import S4_OPTIONS, TRANSFORMS
from hope_ssm.kernels.cache import with_enough_memory
from hope_ssm.kernels.hope import S4_INITS
from hope_ssm.kernels.optimizer_options import OptimizerOption
from hope_ssm.kernels.windows import RECOMMENDED_RATES, WindowedKernel, longest_sequence
from hope_ssm.ops import backends, realization
from hope_ssm.ops import bands as band
from hope_ssm.ops.convolution import sample_kernel
from hope_ssm.ops.transforms import at_least_one, largest
from hope_ssm.precision import full_precision, working_dtype


class HopeBandsKernel(WindowedKernel):
    """k_t = Re Σ_g √(1 - a_g²) e^{iω_g t} Σ_k c_{g,k} λ_k(t; Δt_g)  in a share of the features; HOPE in the others.

    λ_k are the discrete Laguerre functions, the inverse transforms of P(z)ᵏ / (1 + a z⁻¹). A banded feature has G
    chains of m = n/(2G) complex all-pass stages around centre frequencies ω_g, with ‖A‖ = 1 and orthonormal states:
    n + 2G trained numbers, where HOPE has n + 1. HOPE delays a frequency θ by at most n / sin θ steps, a band by up to
    m / |sin(θ - ω_g)|, whatever θ is (docs/mathematics.md). With no banded feature this is HOPE.

    h and c train as S4's C: untied, at the global learning rate unless ``lr`` or ``wd`` names ``C`` or is one nonzero
    number. All Δt answer to ``dt`` or ``sampling_period``, ω to ``frequency`` or ``A``, and all of these to any bare
    number. The first features are HOPE, the last are banded. ``n_ssm`` ties Δt and ω among each of the two kinds.

    A relative sampling rate r makes Δt_g and ω_g r times as large and keeps the gain at the centre of each band: the
    layer hears the same frequencies in a sequence sampled every r-th time, as long as rω_g is below π. (The features
    that are HOPE are warped, and never leave it.)

    Args:
        d_model: H features.
        d_state: n real states per feature.
        bands: G, with 2G dividing n; 0 is HOPE; None: the most of 1 to 8.
        banded_share: of the features, from 0 to 1, rounded to whole features.
        band_width: Δt_g at the start over the spacing of the bands; 0.16 makes the delay at a centre its window.
        band_scale: √E‖c‖² of a banded feature at the start.
        scattered_share: of the banded features, those whose bands begin at a random frequency, not at 0.
        centres: G initial ω_g in [0, π] for all features, or None: from ``horizon`` (``initialization.band_starts``).
        horizon: steps of the longest sequence, for the windows of all features; None, or the sizes of several axes:
            l_max. Without either, the length of the longest sequence of the data set (workbench), see
            ``windows.WindowedKernel``.
        dt_min: of the features that are HOPE, as there.
        dt_max: likewise.
        init: likewise.
        init_scale: likewise.
        channels: see ``SequenceKernel``, as for what follows.
        l_max: see there.
        dt_transform: see there.
        n_ssm: independent Δt and ω of each kind, as many as it has features at most.
        deterministic: see there.
        lr: see above; Δt and ω have the learning rate 0.001 unless another ``lr`` is given.
        wd: see above.
        verbose: see ``SequenceKernel``.

    Raises:
        TypeError, ValueError: an unknown option (the nearest valid one is named), a value outside its range.

    Source: here; all-pass chains with complex poles are Takenaka's and Malmquist's (1925).
    """

    name = "hope-bands"
    optimizer_options = {  # noqa: RUF012
        "markov_parameters": OptimizerOption(("C", "markov_parameters"), bare="nonzero"),
        "raw_sampling_period": OptimizerOption(("dt", "sampling_period")),
        "C": OptimizerOption(("C",), bare="nonzero"),
        "raw_band_sampling_period": OptimizerOption(("dt", "sampling_period")),
        "frequency": OptimizerOption(("frequency", "A")),
    }
    idle_optimizer_options = ("B",)
    idle_options = S4_OPTIONS | {"init"}
    markov_parameters: Tensor
    raw_sampling_period: Tensor
    C: Tensor
    raw_band_sampling_period: Tensor
    frequency: Tensor

    def __init__(
        self,
        *,
        d_state: int = 64,
        dt_min: float | None = None,
        dt_max: float | None = None,
        horizon: int | Sequence[int] | None = None,
        init: str | None = "gaussian",
        init_scale: float = 2.0,
        lr: float | Mapping[str, float | None] | None = MappingProxyType({**RECOMMENDED_RATES, "frequency": 0.001}),
        bands: int | None = None,
        banded_share: float = 0.5,
        band_width: float = 0.15,
        band_scale: float = 2.0,
        scattered_share: float = 0.0,
        centres: Sequence[float] | None = None,
        **shared: Any,
    ) -> None:
        if init is None or (isinstance(init, str) and (init in S4_INITS or init.startswith("diag-"))):
            shared["init"], init = init, "gaussian"
        n = check_positive_integer("d_state", d_state)
        steps = longest_sequence(horizon, shared.get("l_max"))
        longest, shortest = initialization.window_periods(n, steps)
        super().__init__(
            dt_min=longest if dt_min is None else dt_min, dt_max=shortest if dt_max is None else dt_max, lr=lr, **shared
        )
        self.n, self.bands = n, initialization.check_bands(bands, n)
        share = check_share("banded_share", banded_share)
        self.banded = math.floor(share * self.d_model + 0.5) if self.bands else 0
        self.plain = self.d_model - self.banded
        self.await_length(steps, dt_min, dt_max, others=self.banded > 0)
        if self.plain:
            h = initialization.markov_parameters(init, (self.channels, self.plain, n), init_scale)
            if self.deterministic:
                h = torch.zeros_like(h)
                h[..., 0] = init_scale
            self.register("markov_parameters", h)
            self.register_all(self.start_of_delays(min(self.n_ssm, self.plain), steps))
        self.centres = None if centres is None else initialization.check_centres(centres, self.bands)
        self.band_width, self.scattered_share = band_width, scattered_share
        if self.banded:
            self._register_coefficients(band_scale)
            self.register_all(self._start_of_bands(steps))

    def _register_coefficients(self, scale: float) -> None:
        scale = check_positive_number("band_scale", scale)
        shape = (self.channels, self.banded, self.bands, self.n // (2 * self.bands), 2)
        c = torch.randn(shape) * (scale / math.sqrt(self.n))
        if self.deterministic:
            c = torch.zeros(shape)
            c[..., 0, 0] = scale / math.sqrt(self.bands)
        self.register("C", c)

    def starts(self, horizon: int | None) -> dict[str, Tensor]:
        """Return the inverse transform of all Δt, and ω, for sequences of ``horizon`` steps."""
        delays = self.start_of_delays(min(self.n_ssm, self.plain), horizon) if self.plain else {}
        return delays | (self._start_of_bands(horizon) if self.banded else {})

    def _start_of_bands(self, horizon: int | None) -> dict[str, Tensor]:
        frequency, dt = initialization.band_starts(
            min(self.n_ssm, self.banded), self.bands, self.n, horizon, self.band_width,
            scattered=self.scattered_share, deterministic=self.deterministic,
        )  # fmt: skip
        if self.centres is not None:
            frequency = torch.tensor(self.centres, dtype=torch.float64).expand_as(frequency).clone()
        return {"raw_band_sampling_period": TRANSFORMS[self.dt_transform][1](dt), "frequency": frequency}

    @staticmethod
    def _spread(tied: Tensor, count: int) -> Tensor:
        """The values of ``count`` features, the i-th of copy i mod their number."""
        return tied.repeat(-(-count // len(tied)), *[1] * (tied.ndim - 1))[:count]

    def _dtype(self) -> torch.dtype:
        return working_dtype(*self.parameters(), *self.buffers())

    def _plain_system(self, rate: float = 1.0) -> tuple[Tensor, Tensor]:
        """(h (C, F, n), Δt (F,)) of the features that are HOPE, in the working dtype."""
        dtype = self._dtype()
        dt = self._spread(self.transformed(self.raw_sampling_period), self.plain)
        return self.markov_parameters.to(dtype), dt.to(dtype) * self.check_rate(rate)

    def _banded_system(self, rate: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """(c (2, C, F, G, m), Δt (F, G) in the working dtype, ω (F, G) float64) of the banded features."""
        dtype, rate = self._dtype(), self.check_rate(rate)
        dt = self._spread(self.transformed(self.raw_band_sampling_period), self.banded).to(dtype)
        frequency = self._spread(self.frequency.double(), self.banded)
        c = self.C.to(dtype).movedim(-1, 0)
        if rate == 1:
            return c, dt, frequency
        gain = band.input_scale(rate * dt) / band.input_scale(dt)
        return c * gain.unsqueeze(-1).to(dtype), rate * dt, rate * frequency

    @property
    def sampling_period(self) -> Tensor:
        """Δt of every feature, (H,); of a banded one the geometric mean over its bands."""
        periods = []
        if self.plain:
            periods.append(self._plain_system()[1])
        if self.banded:
            periods.append(self._banded_system()[1].log().mean(-1).exp())
        return torch.cat(periods)

    def _in_bands(self, state: Tensor) -> Tensor:
        """(2, B, F, G, m) of the states of all features (B, H, n)."""
        return state[:, self.plain :].unflatten(-1, (2, self.bands, -1)).movedim(2, 0)

    def _joined(self, plain: Tensor | None, banded: Tensor | None, dim: int) -> Tensor:
        """Both kinds of features in one tensor, the banded ones last; None where there are none of a kind."""
        return torch.cat([part for part in (plain, banded) if part is not None], dim=dim)

    def forward(
        self, L: int | None = None, rate: float = 1.0, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """k_t for t < L, and the response to a state s_0 if there is one.

        Args:
            L: length, l_max if None.
            rate: relative sampling rate.
            state: (B, H, n) or None.

        Returns:
            kernel (C, H, L) and state response (B, C, H, L) or None.
        """
        length, rate = self.kernel_length(L), self.check_rate(rate)
        self.heard(length, rate)
        state, whole = None if state is None else self.check_state(state), largest(length)
        kernel = with_enough_memory(
            lambda: self.cache.get(self, (length, rate), lambda: self._samples(whole, length, rate)),
            self.name, (self.channels, self.d_model, length), self._dtype(),
        )  # fmt: skip
        if state is None:
            return kernel, None
        return kernel, self._response(whole, rate, at_least_one(state))[: len(state), ..., :length]

    def _samples(self, whole: int, length: int, rate: float) -> Tensor:
        plain = banded = None
        if self.plain:
            h, dt = self._plain_system(rate)
            plain = sample_kernel(h, dt, whole, "exact", backends.get("auto", h.device))[..., :length]
        if self.banded:
            banded = band.kernel(*self._banded_system(rate), whole)[..., :length]
        return self._joined(plain, banded, -2)

    def _response(self, length: int, rate: float, state: Tensor) -> Tensor:
        plain = banded = None
        if self.plain:
            h, dt = self._plain_system(rate)
            start, evaluate = state[:, : self.plain].unsqueeze(1), backends.get("auto", h.device)
            plain = realization.state_response(h, dt, start, length, evaluate)
        if self.banded:
            banded = band.state_response(*self._banded_system(rate), self._in_bands(state), length)
        return self._joined(plain, banded, -2)

    def step(self, u: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One sample.

        Args:
            u: (B, H).
            state: (B, H, n).

        Returns:
            y (B, C, H), state (B, H, n).
        """
        state = self.check_inputs(u, state, "B, H")
        plain_y = plain_state = banded_y = banded_state = None
        if self.plain:
            h, dt = self._plain_system()
            with full_precision(u.device):
                inputs, start = u[:, : self.plain].to(h.dtype), state[:, : self.plain].to(h.dtype)
                y, after = realization.step(h, dt, inputs, start)
            plain_y, plain_state = y.to(u.dtype), after.to(state.dtype)
        if self.banded:
            y, after = band.step(*self._banded_system(), u[:, self.plain :], self._in_bands(state))
            banded_y, banded_state = y.to(u.dtype), after.movedim(0, 2).flatten(2).to(state.dtype)
        return self._joined(plain_y, banded_y, -1), self._joined(plain_state, banded_state, 1)

    def forward_state(self, u: Tensor, state: Tensor) -> Tensor:
        """The state after a stretch of inputs.

        Args:
            u: (B, H, L).
            state: (B, H, n).

        Returns:
            (B, H, n).
        """
        count = len(self.check_inputs(u, state, "B, H, L"))
        self.heard(u.shape[-1])
        u, state = at_least_one(u), at_least_one(state)
        plain = banded = None
        if self.plain:
            _, dt = self._plain_system()
            plain = realization.forward_state(dt, u[:, : self.plain], state[:, : self.plain])
        if self.banded:
            _, dt, frequency = self._banded_system()
            after = band.forward_state(dt, frequency, u[:, self.plain :], self._in_bands(state))
            banded = after.movedim(0, 2).flatten(2).to(state.dtype)
        return self._joined(plain, banded, 1)[:count]

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state (*batch_shape, H, n), real, float32 at least, on the parameters' device.

        Of a banded feature the real parts stand first, then the imaginary ones, band after band.
        """
        like = self.markov_parameters if self.plain else self.C
        return like.detach().new_zeros(*batch_shape, self.d_model, self.n, dtype=self._dtype())

    def extra_repr(self) -> str:
        """Return the sizes and choices, for print(model)."""
        own = f"n_ssm={self.n_ssm}, bands={self.bands}, banded={self.banded}"
        return f"d_model={self.d_model}, d_state={self.n}, channels={self.channels}, {own}"
