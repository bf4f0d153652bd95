"""The convolution layer around a kernel. Axes: B batch, C channels, H features, L steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm import registry
from hope_ssm.checks import check_positive_integer
from hope_ssm.transfer import working_dtype


class FFTConvolution(nn.Module):
    """y_t = Σ_{s ≤ t} k_{t-s} x_s + D x_t, per feature and channel, by FFT without wrap-around.

    A bidirectional layer adds Σ_{s > t} k'_{s-t-1} x_s with a second kernel, which starts at lag -1.

    Args:
        d_model: H.
        kernel: name in the kernel registry.
        channels: C kernels a feature; the output has C·H features.
        bidirectional: see above.
        l_max: cut the kernel at this length; None: as long as the input.
        kernel_options: for the kernel's constructor.
    """

    def __init__(
        self,
        d_model: int,
        kernel: str,
        *,
        channels: int = 1,
        bidirectional: bool = False,
        l_max: int | None = None,
        **kernel_options: Any,
    ) -> None:
        super().__init__()
        self.d_model = check_positive_integer("d_model", d_model)
        self.channels = check_positive_integer("channels", channels)
        self.bidirectional = bidirectional
        self.l_max = l_max
        self.D = nn.Parameter(torch.randn(channels, d_model))
        kernel_channels = channels * (2 if bidirectional else 1)
        self.kernel = registry.get(kernel)(d_model=d_model, channels=kernel_channels, l_max=l_max, **kernel_options)

    @property
    def d_output(self) -> int:
        """Features of the output, C·H."""
        return self.channels * self.d_model

    def forward(self, x: Tensor, state: Tensor | None = None, rate: float = 1.0) -> tuple[Tensor, Tensor | None]:
        """Map (B, L, H) to (B, L, C·H) in the input's dtype, and a state to the state after these L steps.

        The convolution is computed in float32 at least: half precisions have no FFT everywhere.
        """
        if x.ndim != 3 or x.shape[-1] != self.d_model or x.shape[1] < 1:
            raise ValueError(
                f"the layer's input must have shape (batch, length, {self.d_model}); got {tuple(x.shape)}."
            )
        if state is not None and self.bidirectional:
            raise ValueError("a bidirectional layer must be called without a state; it has no recurrent mode.")
        u = x.transpose(1, 2).to(working_dtype(x))
        length = u.shape[-1]
        kernel_length = length if self.l_max is None else min(length, round(self.l_max / rate))
        k, response = self.kernel(L=kernel_length, rate=rate, state=state)
        n = length + kernel_length
        if self.bidirectional:
            forward, reverse = k.tensor_split(2)
            gap = forward.new_zeros(*forward.shape[:-1], n - 2 * kernel_length)
            k = torch.cat([forward, gap, reverse.flip(-1)], dim=-1)
        spectrum = torch.fft.rfft(u, n=n).unsqueeze(1) * torch.fft.rfft(k, n=n)
        y = torch.fft.irfft(spectrum, n=n)[..., :length]
        y = y + u.unsqueeze(1) * self.D.unsqueeze(-1)
        if state is not None:
            y = y + response
            state = self.kernel.forward_state(u, state)
        return y.flatten(1, 2).transpose(1, 2).to(x.dtype), state

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map one step (B, H) to (B, C·H)."""
        if self.bidirectional:
            raise ValueError("a bidirectional layer has no recurrent mode; train it with bidirectional=false.")
        y, state = self.kernel.step(x, state)
        return (y + x.unsqueeze(1) * self.D).flatten(1).to(x.dtype), state

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the kernel's zero state."""
        return self.kernel.default_state(*batch_shape)
