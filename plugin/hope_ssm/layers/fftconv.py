"""The convolution layer around a kernel. Axes: B batch, C channels, H features, L steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from hope_ssm import registry
from hope_ssm.checks import check_choice, check_flag, check_positive_integer, check_positive_number
from hope_ssm.kernels.cache import SpectrumCache
from hope_ssm.layers.frequency_filter import check_causal, make_frequency_filter
from hope_ssm.layers.padding import check_input, with_its_length, without_padding
from hope_ssm.layers.pointwise import make_dropout
from hope_ssm.ops.circular_convolution import circular_convolution
from hope_ssm.ops.long_convolution import check_mode, kernel_spectrum, long_convolution
from hope_ssm.ops.transforms import at_least_one, largest, recorded, transformed
from hope_ssm.precision import working_dtype

REVERSE_LAGS = (-1, 0)


def check_step_scale(step_scale: Tensor) -> Tensor:
    """Return ``step_scale`` if all of it is finite and above 0."""
    if not recorded() and not transformed():
        fine = torch.isfinite(step_scale) & (step_scale > 0)
        if not fine.all():
            raise ValueError(f"step_scale must be finite and above 0; got {step_scale[~fine][0].item()}.")
    return step_scale


class FFTConvolution(nn.Module):
    """y_t = Σ_{s ≤ t} k_{t-s} x_s + D x_t, per feature and channel, by FFT without wrap-around.

    A bidirectional layer adds Σ_{s ≥ t-r} k'_{s-t+r} x_s with a second kernel and r = ``reverse_lag``: the host's -1
    (the second kernel starts at the next step), or 0 (both kernels see the present step).

    Args:
        d_model: H.
        kernel: name in the kernel registry, or a kernel class.
        channels: C kernels per feature; the output has C·H features.
        bidirectional: see above.
        reverse_lag: r, 0 or -1, see above.
        l_max: cut the kernel at this length; None: as long as the input.
        drop_kernel: dropout on the samples of the kernel.
        feedthrough: whether there is a D; otherwise it is 0.
        circular: a convolution with L nodes and no padding, y_t = Σ_s k_{(t-s) mod L} x_s: what leaves the sequence at
            its end comes back at its beginning. With HOPE's ``truncation="none"`` this is the paper's Algorithm 1,
            y = Re iFFT(FFT(x) · g). It has neither a state nor lengths nor steps.
        convolution: ``"auto"``, ``"native"``, ``"grouped"``, ``"whole"`` or ``"plain"``, see ``ops.long_convolution``.
        frequency_filter: a mapping with exponent and lr, see ``FrequencyFilter``; None for none. D is not filtered.
        **kernel_options: for the kernel's constructor.
    """

    def __init__(
        self,
        d_model: int,
        kernel: str | type[nn.Module],
        *,
        channels: int = 1,
        bidirectional: bool = False,
        reverse_lag: int = -1,
        l_max: int | None = None,
        drop_kernel: float = 0.0,
        feedthrough: bool = True,
        circular: bool = False,
        convolution: str = "auto",
        frequency_filter: Mapping[str, float | None] | None = None,
        **kernel_options: Any,
    ) -> None:
        super().__init__()
        self.d_model = check_positive_integer("d_model", d_model)
        self.channels = check_positive_integer("channels", channels)
        self.bidirectional = check_flag("bidirectional", bidirectional)
        self.reverse_lag = check_choice("reverse_lag", reverse_lag, REVERSE_LAGS)
        self.circular = check_flag("circular", circular)
        if self.circular and self.bidirectional:
            raise ValueError(
                "a circular convolution must have one kernel, which reaches all steps already; got bidirectional=true. "
                "Set bidirectional=false, or circular=false."
            )
        self.convolution = check_mode("convolution", convolution)
        self.l_max = l_max
        self.D: Tensor
        if check_flag("feedthrough", feedthrough):
            self.D = nn.Parameter(torch.randn(channels, d_model))
        else:
            self.register_buffer("D", torch.zeros(channels, d_model), persistent=False)
        self.drop_kernel = make_dropout(drop_kernel, option="drop_kernel")
        self.frequency_filter = make_frequency_filter(frequency_filter, channels, d_model)
        if self.frequency_filter is not None and circular:
            raise ValueError("circular must be false with a frequency filter, which has a length of its own; got true.")
        kernel_channels = channels * (2 if bidirectional else 1)
        make: Any = registry.get(kernel) if isinstance(kernel, str) else kernel
        self.kernel: Any = make(d_model=d_model, channels=kernel_channels, l_max=l_max, **kernel_options)
        self.spectra = SpectrumCache()

    @property
    def d_output(self) -> int:
        """Features of the output, C·H."""
        return self.channels * self.d_model

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        rate: float = 1.0,
        lengths: Tensor | None = None,
        step_scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Map (B, L, H) to (B, L, C·H) in the input's dtype, and a state to the state after these L steps.

        The convolution is computed in float32 at least: half precision does not have an FFT on every device.

        Args:
            x: inputs, (B, L, H).
            state: of the kernel, for a batch of B; gradients flow through it.
            rate: relative sampling rate, 1 with a state.
            lengths: (B,) whole numbers, if the sequences end before L: what follows is not seen, and the state is
                the one after the last step of each.
            step_scale: (B, L), above 0, for samples at irregular times: sample t comes so many sampling periods after
                the one before. A scan in place of the convolution, with a kernel whose steps are diagonal matrices or
                2 × 2 (s4d, s4d-real, stable; the layers s5, essm, linoss by ``im``).

        Returns:
            (B, L, C·H), and the next state or None.
        """
        check_input(x, "batch", "length", self.d_model)
        if step_scale is not None:
            return self._irregular(x, state, rate, lengths, step_scale)
        if (one := at_least_one(x)) is not x:  # the same of one row, so that all stays in the graph
            y, after = self(one, None if state is None else at_least_one(state), rate)
            return y[:0], None if state is None else after[:0]
        if self.circular and not (state is None and lengths is None):
            raise self._no_recurrence("be called with neither a state nor lengths")
        x = with_its_length(x)
        length, rate = x.shape[1], check_positive_number("rate", rate)
        u = without_padding(x, lengths).transpose(1, 2)
        kernel_length = length
        if self.l_max is not None and (cut := max(1, round(self.l_max / rate))) < largest(length):
            kernel_length = min(length, cut)
            if self.bidirectional and isinstance(length, torch.SymInt):
                raise ValueError(
                    f"a dynamic length of a bidirectional layer must end at its l_max, {cut} steps here; got up to "
                    f"{largest(length)}. Export with that largest length, or build the layer with l_max=null."
                )
        if self.circular and kernel_length < length:
            raise ValueError(
                f"a circular convolution needs a kernel as long as the sequence, {length}; got "
                f"{kernel_length} by l_max. Set l_max=null, or circular=false."
            )
        after = None
        if state is not None:
            self._check_recurrent(kernel_length, length, rate)
            u = u.to(working_dtype(x))
            after = self._next_state(u, state, lengths)
        k, response = self.kernel(L=kernel_length, rate=rate, state=state)
        y = self._convolved(u, self.drop_kernel(k), rate)
        if state is not None:
            y, state = y + response, after
        return y.permute(0, 3, 1, 2).flatten(2).to(x.dtype), state

    def _irregular(
        self, x: Tensor, state: Tensor | None, rate: float, lengths: Tensor | None, step_scale: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        rate, x = check_positive_number("rate", rate), with_its_length(x)
        batch, length = x.shape[:2]
        self._check_irregular(step_scale, (batch, length))
        if self.l_max is not None and round(self.l_max / rate) < length:
            raise ValueError(
                f"sequences with step_scale must not be longer than l_max={self.l_max} at rate {rate:g}; got {length} "
                "steps. Use l_max=null or shorter chunks."
            )
        u, step_scale = without_padding(x, lengths).transpose(1, 2).to(working_dtype(x)), step_scale.to(x.device)
        if lengths is not None:
            beyond = torch.arange(length, device=x.device) >= lengths.to(x.device).unsqueeze(-1)
            step_scale = step_scale.masked_fill(beyond, 1.0)
        start = self.kernel.default_state(batch) if state is None else state
        y, after = self.kernel.irregular(u, check_step_scale(step_scale).double() * rate, start, lengths)
        y = y + u.unsqueeze(1) * self.D.unsqueeze(-1).to(u.dtype)
        return y.permute(0, 3, 1, 2).flatten(2).to(x.dtype), None if state is None else after

    def _check_irregular(self, step_scale: Tensor, shape: tuple[int, ...]) -> None:
        """Raise where steps of different lengths cannot be taken."""
        if not getattr(self.kernel, "stepwise", False):
            raise ValueError(
                f"step_scale must be None with the {getattr(self.kernel, 'name', 'present')} kernel, whose steps have "
                "one length; use s4d, s4d-real or stable, or the layers s5, essm, or linoss with discretization=im."
            )
        self._check_steps("step_scale")
        if self.training and float(self.drop_kernel.p) > 0:  # type: ignore[arg-type]
            raise ValueError("drop_kernel must be 0 with step_scale, where no kernel is sampled; use dropout.")
        if not isinstance(step_scale, Tensor) or tuple(step_scale.shape) != shape:
            got = tuple(step_scale.shape) if isinstance(step_scale, Tensor) else type(step_scale).__name__
            raise ValueError(f"step_scale must be a tensor of the shape {shape} of the steps; got {got}.")

    def _convolved(self, u: Tensor, k: Tensor, rate: float) -> Tensor:
        """(B, H, L), (2C or C, H, K) to (B, C, H, L)."""
        if self.frequency_filter is not None:
            k, ahead = self._lags(k, u.shape[-1], torch.zeros_like(self.D))
            return self.frequency_filter(u, k, ahead, rate) + u.unsqueeze(1) * self.D.to(u.dtype).unsqueeze(-1)
        if self.bidirectional and isinstance(u.shape[-1], torch.SymInt):  # two parts, none of which has L - 1 steps
            forward, reverse = k.tensor_split(2)
            reverse = reverse if self.reverse_lag == 0 else pad(reverse, (1, 0))
            forward = forward + pad(self.D.unsqueeze(-1), (0, k.shape[-1] - 1))
            behind = long_convolution(u.flip(-1), reverse, mode=self.convolution).flip(-1)
            return long_convolution(u, forward, mode=self.convolution) + behind
        if self.circular:
            return circular_convolution(u, self._lags(k, u.shape[-1], self.D)[0])
        k, ahead = self._lags(k, u.shape[-1], self.D)
        key = (u.shape, u.dtype, ahead)
        spectrum = self.spectra.of(self, k, key, lambda: kernel_spectrum(u, k, ahead, self.convolution))
        return long_convolution(u, k, ahead=ahead, mode=self.convolution, spectrum=spectrum)

    def _lags(self, k: Tensor, length: int, D: Tensor) -> tuple[Tensor, int]:
        """(2C or C, H, K) to (C, H, K'), from the first negative lag to the last, D in lag 0; and where lag 0 is."""
        if not self.bidirectional:  # no part of L - 1 steps, which torch.export would want to be more than one
            return k + pad(D.unsqueeze(-1), (0, k.shape[-1] - 1)), 0
        forward, reverse = k.tensor_split(2)
        present = forward[..., :1] + D.unsqueeze(-1)
        if self.reverse_lag == 0:
            present, reverse = present + reverse[..., :1], reverse[..., 1:]
        reverse = reverse[..., : length - 1]  # longer ones reach before the first step
        return torch.cat([reverse.flip(-1), present, forward[..., 1:]], dim=-1), reverse.shape[-1]

    @staticmethod
    def _no_recurrence(what: str) -> ValueError:
        return ValueError(
            f"a circular layer must {what}, because its outputs see the end of the sequence. "
            "Train it with circular=false for a recurrent mode."
        )

    def _check_recurrent(self, kernel_length: int, length: int, rate: float) -> None:
        if self.bidirectional:
            raise ValueError("a bidirectional layer must be called without a state; it has no recurrent mode.")
        check_causal(self.frequency_filter, "a state")
        if rate != 1:
            raise ValueError(
                f"the rate must be 1 with a state; got {rate}. Call without a state, or train at this rate."
            )
        if kernel_length < length:
            raise ValueError(
                f"a chunk with a state must not be longer than l_max={self.l_max}, where the kernel is cut; "
                f"got {length} steps. Use l_max=null or shorter chunks."
            )

    def _check_steps(self, got: str) -> None:
        if self.bidirectional:
            raise ValueError("a bidirectional layer has no recurrent mode; train it with bidirectional=false.")
        if self.circular:
            raise self._no_recurrence("not be run step by step")
        check_causal(self.frequency_filter, got)

    def _next_state(self, u: Tensor, state: Tensor, lengths: Tensor | None) -> Tensor:
        """The state after the last step of each sequence.

        Args:
            u: (B, H, L).
            state: before the first step, (B, …).
            lengths: (B,), or None where all sequences have L steps.

        Returns:
            (B, …).
        """
        after = self.kernel.forward_state(u, state)
        for length in [] if lengths is None else lengths.unique().tolist():
            if length < u.shape[-1]:
                rows = (lengths == length).nonzero().squeeze(-1).to(u.device)
                after = after.index_copy(0, rows, self.kernel.forward_state(u[rows, :, :length], state[rows]))
        return after

    def setup_step(self, **options: Any) -> None:
        """Prepare the kernel for ``step``, as in the host; our kernels need no preparation."""
        self._check_steps("setup_step")
        self.kernel._setup_step(**options)

    def step(self, x: Tensor, state: Tensor, step_scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map one step (B, H) to (B, C·H); ``step_scale`` (B,) as in ``forward``."""
        self._check_steps("a step")
        if step_scale is None:
            y, state = self.kernel.step(x, state)
        else:
            self._check_irregular(step_scale, tuple(x.shape[:1]))
            y, state = self.kernel.irregular_step(x, check_step_scale(step_scale.to(x.device)), state)
        return (y + x.unsqueeze(1) * self.D).flatten(1).to(x.dtype), state

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the kernel's zero state."""
        return self.kernel.default_state(*batch_shape)
