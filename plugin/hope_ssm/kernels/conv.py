"""A free convolution kernel: the baseline without a state space."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import torch
from torch import Tensor

from hope_ssm.kernels.base import S4_OPTIONS, SequenceKernel
from hope_ssm.kernels.optimizer_options import OptimizerOption
from hope_ssm.precision import working_dtype

STATE_SPACE_OPTIONS = S4_OPTIONS | {"d_state", "dt_max", "dt_min", "dt_transform", "init", "n_ssm"}


class ConvolutionKernel(SequenceKernel):
    """k_t = p_t for t < l_max, and 0 beyond: the samples p are the parameters.

    p is normal with variance 1/l_max, so that white noise comes out as strong as it goes in, or 0 when deterministic.
    ``lr`` and ``wd`` know the key K; a bare number rules it too. The options of state spaces (d_state, dt_min, …)
    have no effect.

    Args:
        d_model: H features.
        l_max: number of samples.
        **shared: ``channels``, ``deterministic``, ``lr``, ``wd``, ``verbose``: see ``SequenceKernel``.

    Source: the convolution theorem alone; Fu et al., "Simple Hardware-Efficient Long Convolutions for Sequence
    Modeling", ICML 2023 (arXiv 2302.06646) study such kernels.
    """

    name = "conv"
    optimizer_options = {"samples": OptimizerOption(("K", "samples"))}  # noqa: RUF012
    idle_optimizer_options = ("dt", "A", "B", "C")
    idle_options = STATE_SPACE_OPTIONS
    l_max: int
    samples: Tensor

    def __init__(self, **shared: Any) -> None:
        super().__init__(**shared)
        if self.l_max is None:
            raise ValueError(
                "the conv kernel needs l_max, the number of its samples; got none. "
                "Set model.layer.l_max to the length of the sequences, or take a kernel that has no such length."
            )
        shape = (self.channels, self.d_model, self.l_max)
        samples = torch.zeros(shape) if self.deterministic else torch.randn(shape) / math.sqrt(self.l_max)
        self.register("samples", samples)

    def forward(
        self, L: int | None = None, rate: float = 1.0, state: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """k_t for t < L.

        Args:
            L: length, l_max if None.
            rate: 1, because there is no sampling period to change.
            state: None.

        Returns:
            kernel (C, H, L), and None.
        """
        self.check_no_rate(rate)
        if state is not None:
            self._refuse()
        missing = self.kernel_length(L) - self.l_max
        samples = self.samples.to(working_dtype(self.samples))
        return torch.nn.functional.pad(samples, (0, missing)), None  # a negative width cuts

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(
            "the conv kernel has no recurrent mode, because its samples come from no state space; "
            "call it without a state or steps, or take the kernel hope, s4 or s4d."
        )

    default_state = step = forward_state = _setup_step = _refuse

    def extra_repr(self) -> str:
        """Return the sizes, for print(model)."""
        return f"d_model={self.d_model}, l_max={self.l_max}, channels={self.channels}"
