"""The host's convolution layer with our long convolution inside: ``model.layer.layer=grouped_fftconv``.

The host's block builds its inner layer from a table of its own by the option ``layer``; under this name the same layer
is found there, with the same options, parameters and kernels (the host's own too), another way to convolve, and the
option ``frequency_filter``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from src.models.sequence.kernels.fftconv import FFTConv
from torch import Tensor, nn

from hope_ssm.layers.frequency_filter import check_causal, make_frequency_filter
from hope_ssm.ops.long_convolution import long_convolution


class GroupedFFTConv(FFTConv):
    """y_t = Σ_{s ≤ t} k_{t-s} x_s + Σ_{s > t} k'_{s-t-1} x_s + D x_t, equal to the host's ``FFTConv`` to rounding.

    Parameters, steps and states are the host's; a checkpoint of either loads into the other. On other devices than a
    CPU it is the host's layer.

    Args:
        d_model: H.
        frequency_filter: a mapping with exponent and lr, see ``FrequencyFilter``; None for none. D is not filtered.
        **options: of the host's ``FFTConv``.
    """

    def __init__(self, d_model: int, frequency_filter: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(d_model, **options)
        self.frequency_filter = make_frequency_filter(frequency_filter, len(self.D), d_model)

    def forward(self, x: Tensor, state: Any = None, rate: float = 1.0, **unused: Any) -> tuple[Tensor, Any]:
        """Map (B, H, L), or (B, L, H) with ``transposed=False``, and a state to the outputs and the next state.

        Random masks are drawn in the host's order, so that with one seed both layers drop the same numbers.
        """
        filtered = self.frequency_filter is not None
        if not filtered and (x.device.type != "cpu" or x.is_complex()):
            return super().forward(x, state=state, rate=rate, **unused)
        if state is not None and self.bidirectional:
            raise ValueError("a bidirectional layer must be called without a state; it has no recurrent mode.")
        if state is not None:
            check_causal(self.frequency_filter, "a state")
        u = x if self.transposed else x.transpose(-1, -2)
        u = u.to(torch.promote_types(u.dtype, self.D.dtype))  # as autocast does before the host's transforms
        length = u.shape[-1]
        lags = length if self.L is None else min(length, round(self.L / rate))
        k, response = self.kernel(L=lags, rate=rate, state=state)
        k, ahead = self._lags(k, length, torch.zeros_like(self.D) if filtered else self.D)
        ordered = self.training and isinstance(self.drop, nn.Dropout)
        if self.frequency_filter is not None:
            y = self.frequency_filter(u, k, ahead, rate) + u.unsqueeze(1) * self.D.to(u.dtype).unsqueeze(-1)
        else:
            y = long_convolution(u.contiguous() if ordered else u, k, ahead=ahead)
        if state is not None:
            y, state = y + response, self.kernel.forward_state(u, state)
        y = self.drop((y.transpose(1, 2) if self.swap_channels else y).flatten(1, 2))
        return self.activation(y if self.transposed else y.transpose(-1, -2)), state

    def setup_step(self, **options: Any) -> None:
        """Prepare the kernel for ``step``."""
        check_causal(self.frequency_filter, "setup_step")
        super().setup_step(**options)

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Map one step (B, H), and a state to the next."""
        check_causal(self.frequency_filter, "a step")
        return super().step(x, state)

    def _lags(self, k: Tensor, length: int, D: Tensor) -> tuple[Tensor, int]:
        """(C or 2C, H, K) to (C, H, K'): first the negative lags that reach a step, D in lag 0; and how many."""
        if not self.bidirectional:
            k = self.drop_kernel(k)
            return torch.cat([k[..., :1] + D.unsqueeze(-1), k[..., 1:]], dim=-1), 0
        forward, reverse = k.tensor_split(2)
        lags = k.shape[-1]
        gap = forward.new_zeros(*forward.shape[:-1], length - lags)
        k = self.drop_kernel(torch.cat([forward, gap, reverse.flip(-1)], dim=-1))
        ahead = min(lags, length - 1)
        negative = k[..., k.shape[-1] - ahead :]
        return torch.cat([negative, k[..., :1] + D.unsqueeze(-1), k[..., 1:lags]], dim=-1), ahead
