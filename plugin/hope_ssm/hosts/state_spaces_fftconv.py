"""The host's convolution layer with the grouped convolution inside: ``model.layer.layer=grouped_fftconv``.

The host's block builds its inner layer from a table of its own by the option ``layer``; under this name the same layer
is found there, with the same options, parameters and kernels (the host's own too), and another way to convolve.
"""

from __future__ import annotations

from typing import Any

import torch
from src.models.sequence.kernels.fftconv import FFTConv
from torch import Tensor, nn

from hope_ssm.ops.long_convolution import long_convolution


class GroupedFFTConv(FFTConv):
    """y_t = Σ_{s ≤ t} k_{t-s} x_s + Σ_{s > t} k'_{s-t-1} x_s + D x_t, equal to the host's ``FFTConv`` to rounding.

    Constructor, parameters, steps and states are the host's; a checkpoint of either loads into the other. On other
    devices than a CPU it is the host's layer.
    """

    def forward(self, x: Tensor, state: Any = None, rate: float = 1.0, **unused: Any) -> tuple[Tensor, Any]:
        """Map (B, H, L), or (B, L, H) with ``transposed=False``, and a state to the outputs and the next state.

        Random masks are drawn in the host's order, so that with one seed both layers drop the same numbers.
        """
        if x.device.type != "cpu" or x.is_complex():
            return super().forward(x, state=state, rate=rate, **unused)
        if state is not None and self.bidirectional:
            raise ValueError("a bidirectional layer must be called without a state; it has no recurrent mode.")
        u = x if self.transposed else x.transpose(-1, -2)
        u = u.to(torch.promote_types(u.dtype, self.D.dtype))  # as autocast does before the host's transforms
        length = u.shape[-1]
        lags = length if self.L is None else min(length, round(self.L / rate))
        k, response = self.kernel(L=lags, rate=rate, state=state)
        k, ahead = self._lags(k, length)
        ordered = self.training and isinstance(self.drop, nn.Dropout)
        y = long_convolution(u.contiguous() if ordered else u, k, ahead=ahead)
        if state is not None:
            y, state = y + response, self.kernel.forward_state(u, state)
        y = self.drop((y.transpose(1, 2) if self.swap_channels else y).flatten(1, 2))
        return self.activation(y if self.transposed else y.transpose(-1, -2)), state

    def _lags(self, k: Tensor, length: int) -> tuple[Tensor, int]:
        """(C or 2C, H, K) to (C, H, K'): first the negative lags that reach a step, D in lag 0; and how many."""
        if not self.bidirectional:
            k = self.drop_kernel(k)
            return torch.cat([k[..., :1] + self.D.unsqueeze(-1), k[..., 1:]], dim=-1), 0
        forward, reverse = k.tensor_split(2)
        lags = k.shape[-1]
        gap = forward.new_zeros(*forward.shape[:-1], length - lags)
        k = self.drop_kernel(torch.cat([forward, gap, reverse.flip(-1)], dim=-1))
        ahead = min(lags, length - 1)
        negative = k[..., k.shape[-1] - ahead :]
        return torch.cat([negative, k[..., :1] + self.D.unsqueeze(-1), k[..., 1:lags]], dim=-1), ahead
