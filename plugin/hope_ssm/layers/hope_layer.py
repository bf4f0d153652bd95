"""A layer for other people's models and training loops. Axes: B batch, L steps, H features."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.checks import check_lengths, check_positive_number
from hope_ssm.kernels.windows import WindowedKernel
from hope_ssm.layers.padding import check_input, without_padding
from hope_ssm.layers.s4block import S4Block
from hope_ssm.ops.transforms import recorded, transformed


def _awaits_length(part: nn.Module) -> bool:
    return isinstance(part, WindowedKernel) and part.awaits_length


class HopeLayer(nn.Module):
    """(B, L, H) to (B, L, H): a state space along the steps, then a gated linear map of the features.

    It has no norm and no residual connection; the usual use is y = x + layer(norm(x)). The parameters carry the
    optimizer options given by ``lr`` and ``wd``; ``hope_ssm.parameter_groups(model)`` makes parameter groups of them.
    HOPE's windows suit sequences of ``horizon`` steps; without it (and ``l_max``) those of the first call in training.

    Args:
        d_model: H.
        kernel: a name of ``hope kernels``.
        **options: of the block (activation, final_act, dropout, gate, bottleneck, …, see ``S4Block``), of the
            convolution (bidirectional, channels, l_max, drop_kernel, see ``FFTConvolution``), and of the kernel
            (d_state, dt_min, dt_max, init, lr, wd, …, see ``HopeKernel``).

    Raises:
        TypeError, ValueError: an option that none of them has, or a value out of range.
    """

    def __init__(self, d_model: int, *, kernel: str = "hope", **options: Any) -> None:
        super().__init__()
        self.block = S4Block(d_model, kernel=kernel, **options)
        self._awaits_length = any(map(_awaits_length, self.block.modules()))

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        *,
        state: Tensor | None = None,
        rate: float = 1.0,
        step_scale: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Map whole sequences, or a chunk that follows ``state``.

        Args:
            x: (B, L, H).
            lengths: (B,) whole numbers if the sequences end before L; what follows is not seen, and 0 in the outputs.
            state: what ``default_state``, an earlier chunk or an earlier step gave.
            rate: relative sampling rate, 1 with a state.
            step_scale: (B, L), times between samples in sampling periods; with the kernels s4d, s4d-real and stable.

        Returns:
            (B, L, H); with ``state`` the pair of it and the state after the last step of each sequence.
        """
        if self.training and self._awaits_length:
            self._suit_first(x, lengths, state, rate)
        y, after = self.block(x, state, rate, lengths, step_scale)
        y = without_padding(y, lengths)
        return y if state is None else (y, after)

    def _suit_first(self, x: Tensor, lengths: Tensor | None, state: Tensor | None, rate: float) -> None:
        """The first training call sets the windows: for its longest whole sequence, or as they are."""
        if recorded() or transformed() or not torch.is_grad_enabled():
            return
        check_input(x, "batch", "length", self.block.d_model)
        if 0 in x.shape:
            return
        longest = x.shape[1] if lengths is None else int(check_lengths(lengths, *x.shape[:2]).max())
        steps = math.ceil(longest * check_positive_number("rate", rate))
        self._awaits_length = False
        for part in filter(_awaits_length, self.block.modules()) if state is None else ():
            part.suit_first(steps)  # type: ignore[operator]

    def step(self, x: Tensor, state: Tensor, step_scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map one step (B, H) to (B, H), and the state to the next one; ``step_scale`` (B,) as in ``forward``."""
        return self.block.step(x, state, step_scale)

    def setup_step(self) -> None:
        """Prepare for ``step``; no need to with the kernels of this distribution, and safe at any time."""
        self.block.setup_step()

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state of a batch."""
        return self.block.default_state(*batch_shape)
