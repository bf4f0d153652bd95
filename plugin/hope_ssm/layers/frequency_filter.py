"""A filter of a layer by frequency, with a trained exponent. Axes: B batch, C channels, H features, L steps, K lags."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.checks import check_known
from hope_ssm.kernels.optimizer_options import ModuleWithOptions, check_rate
from hope_ssm.ops.transforms import into_onnx
from hope_ssm.precision import working_dtype

OPTIONS = ("exponent", "lr")


class FrequencyFilter(ModuleWithOptions):
    """ŷ(f) = (1 + |f|)^β k̂(f) û(f) at the frequencies f = j/N of N = L + K steps, 0 ≤ f ≤ 1/2 periods per step.

    The filter has the phase 0: it looks at future steps as at past ones, and its tails wrap around after N steps. So
    it is a filter of the layer over a whole sequence and not of a causal kernel, and it has no recurrent mode. Padding
    makes N longer, and so changes the outputs a little.

    Args:
        channels: C.
        d_model: H.
        exponent: the initial β of every channel and feature; any finite number.
        lr: learning rate of β, without weight decay; 0 freezes it, None takes the optimizer's.

    Raises:
        TypeError, ValueError: an exponent that is no finite number, a negative lr.

    Source: Yu, Lyu, Lim, Mahoney, Erichson, "Tuning Frequency Bias of State Space Models", ICLR 2025
    (arXiv 2410.02035), and the authors' public code for N, the start β = 0 and the rate 0.01.
    """

    exponent: Tensor

    def __init__(self, channels: int, d_model: int, *, exponent: float = 0.0, lr: float | None = 0.01) -> None:
        super().__init__()
        if isinstance(exponent, bool) or not isinstance(exponent, Real) or not math.isfinite(exponent):
            raise TypeError(f"frequency_filter.exponent must be a finite number; got {exponent!r}.")
        start = torch.full((channels, d_model), float(exponent))
        if lr is not None and check_rate("frequency_filter.lr", lr) == 0:
            self.register_buffer("exponent", start)
            return
        self.parameter_options["exponent"] = {"weight_decay": 0.0} if lr is None else {"lr": lr, "weight_decay": 0.0}
        self.register_parameter("exponent", nn.Parameter(start))

    def forward(self, u: Tensor, k: Tensor, ahead: int = 0, rate: float = 1.0) -> Tensor:
        """The filtered convolution.

        Args:
            u: (B, H, L) real.
            k: (C, H, K) real, the lags -ahead, …, K - 1 - ahead.
            ahead: the number of negative lags.
            rate: relative sampling rate r; a step lasts r steps of the training, and f counts periods per one of those.

        Returns:
            (B, C, H, L) in the dtype of u; computed in float32 at least.
        """
        length, dtype, size = u.shape[-1], working_dtype(u, k), u.shape[-1] + max(ahead, k.shape[-1] - ahead)
        if isinstance(length, torch.SymInt) and (into_onnx() or not isinstance(ahead, int)):
            raise ValueError(  # which torch.onnx.export answers by exporting this one length
                "a frequency filter must have sequences of one length in torch.onnx.export, and in torch.export of a "
                "bidirectional layer; got a dynamic one. Leave the length out of dynamic_shapes."
            )
        frequency = torch.arange(size // 2 + 1, dtype=dtype, device=u.device) / (size * rate)
        gain = torch.exp(self.exponent.to(dtype).unsqueeze(-1) * torch.log1p(frequency))
        spectrum = torch.fft.rfft(u.to(dtype).unsqueeze(1), n=size) * (gain * torch.fft.rfft(k.to(dtype), n=size))
        return torch.fft.irfft(spectrum, n=size)[..., ahead : ahead + length].to(u.dtype)


def check_causal(frequency_filter: nn.Module | None, got: str) -> None:
    """Raise unless there is no filter, for what needs a causal layer and ``got`` one with a filter."""
    if frequency_filter is not None:
        raise ValueError(
            "a layer with a frequency filter must be called on whole sequences, because the filter looks ahead; "
            f"got {got}. Use model.layer.frequency_filter=null."
        )


def make_frequency_filter(setting: Mapping[str, Any] | None, channels: int, d_model: int) -> FrequencyFilter | None:
    """Return the filter of the option ``frequency_filter``, a mapping with exponent and lr; None for none."""
    if setting is None:
        return None
    if not isinstance(setting, Mapping):
        raise TypeError(f"frequency_filter must be a mapping with {', '.join(OPTIONS)}, or null; got {setting!r}.")
    check_known("frequency_filter", setting, OPTIONS, "key")
    return FrequencyFilter(channels, d_model, **setting)
