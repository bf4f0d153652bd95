"""The block around a convolution layer, and its pointwise parts. Axes: B batch, L steps, H features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.checks import check_choice
from hope_ssm.workbench.convolution import FFTConvolution

ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh, "id": nn.Identity}


def make_activation(name: str | None) -> nn.Module:
    """Return the activation called ``name``; None is the identity."""
    return ACTIVATIONS[check_choice("activation", name or "id", ACTIVATIONS)]()


class TiedDropout(nn.Module):
    """Dropout with one mask for all steps of a sequence (B, L, H)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop features of (B, L, H), or of one step (B, H)."""
        if not self.training or self.p == 0:
            return x
        shape = (x.shape[0], 1, x.shape[-1]) if x.ndim == 3 else x.shape
        return nn.functional.dropout(torch.ones(shape, dtype=x.dtype, device=x.device), self.p) * x


def make_dropout(p: float, tied: bool) -> nn.Module:
    """Return dropout with probability ``p``, its mask shared along the sequence if ``tied``."""
    if not 0 <= p < 1:
        raise ValueError(f"dropout must be at least 0 and below 1; got {p}.")
    return TiedDropout(p) if tied else nn.Dropout(p)


class S4Block(nn.Module):
    """Convolution, activation, dropout, and a linear map that mixes the features (with a GLU by default).

    Args:
        d_model: H.
        mode, kernel: name of the kernel, under either key (the host's default key is ``mode``).
        activation: after the convolution.
        final_act: ``"glu"``, an activation's name, ``"id"`` for none, or None to leave the linear map out.
        dropout, tie_dropout: see :func:`make_dropout`.
        options: for :class:`FFTConvolution` and its kernel.
    """

    def __init__(
        self,
        d_model: int,
        *,
        mode: str | None = None,
        kernel: str | None = None,
        activation: str | None = "gelu",
        final_act: str | None = "glu",
        dropout: float = 0.0,
        tie_dropout: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if (mode is None) == (kernel is None):
            raise ValueError(
                f"the kernel must be named by mode or by kernel, not both; got mode={mode!r}, kernel={kernel!r}."
            )
        self.layer = FFTConvolution(d_model, mode or kernel, **options)
        self.activation = make_activation(activation)
        self.drop = make_dropout(dropout or 0.0, bool(tie_dropout))
        if final_act is None:
            if self.layer.d_output != d_model:
                raise ValueError(f"final_act must not be null with channels={self.layer.channels}; got null.")
            self.output_linear = nn.Identity()
        elif final_act == "glu":
            self.output_linear = nn.Sequential(nn.Linear(self.layer.d_output, 2 * d_model), nn.GLU(dim=-1))
        else:
            self.output_linear = nn.Sequential(nn.Linear(self.layer.d_output, d_model), make_activation(final_act))

    def forward(
        self, x: Tensor, state: Tensor | None = None, rate: float = 1.0, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Map (B, L, H) to (B, L, H), and a state to the next; ``lengths`` as in :class:`FFTConvolution`."""
        y, state = self.layer(x, state=state, rate=rate, lengths=lengths)
        return self.output_linear(self.drop(self.activation(y))), state

    def setup_step(self, **options: Any) -> None:
        """Prepare the kernel for :meth:`step`; see :class:`FFTConvolution`."""
        self.layer.setup_step(**options)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map one step (B, H) to (B, H)."""
        y, state = self.layer.step(x, state)
        return self.output_linear(self.drop(self.activation(y))), state

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the kernel's zero state."""
        return self.layer.default_state(*batch_shape)
