"""Layers of ours in the host: ``model/layer=essm``, s5, linoss; ``++model.layer.layer=input_memory_fftconv``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from src.models.sequence.base import SequenceModule
from torch import Tensor

from hope_ssm.hosts.state_spaces_fftconv import GroupedFFTConv
from hope_ssm.layers.essm import ESSM
from hope_ssm.layers.input_memory import with_input_memory
from hope_ssm.layers.linoss import LinOSS
from hope_ssm.layers.s5 import S5


class _Layer(SequenceModule):
    """A layer of (B, L, H) behind the host's calls, of either order of axes."""

    def __init__(self, d_model: int, layer: Any, transposed: bool) -> None:
        super().__init__()
        self.d_model, self.d_output, self.transposed = d_model, layer.d_output, transposed
        self.layer = layer

    def forward(
        self, x: Tensor, state: Any = None, rate: float = 1.0, lengths: Any = None, **unused: Any
    ) -> tuple[Tensor, Any]:
        """Map (B, L, H), or (B, H, L) if ``transposed``, to the same order of axes, and a state to the next."""
        if unused.get("step_scale") is not None:
            raise ValueError("step_scale must be None in the host; the layers of hope_ssm.layers take it.")
        x = x.transpose(-1, -2) if self.transposed else x
        y, state = self.layer(x, state=state, rate=rate, lengths=lengths if isinstance(lengths, Tensor) else None)
        return (y.transpose(-1, -2) if self.transposed else y), state

    def setup_step(self, **options: Any) -> None:
        """Prepare for ``step``."""
        self.layer.setup_step(**options)

    def step(self, x: Tensor, state: Any = None, **unused: Any) -> tuple[Tensor, Any]:
        """Map one step (B, H) to (B, d_output)."""
        return self.layer.step(x, state)

    def default_state(self, *batch_shape: int, device: Any = None) -> Any:
        """Return the zero state, on the parameters' device."""
        return self.layer.default_state(*batch_shape)


class HostESSM(_Layer):
    """``ESSM`` as a layer of the host; options as there."""

    def __init__(self, d_model: int, transposed: bool = False, **options: Any) -> None:
        super().__init__(d_model, ESSM(d_model, **options), transposed)


class HostS5(_Layer):
    """``S5`` as a layer of the host; options as there."""

    def __init__(self, d_model: int, transposed: bool = False, **options: Any) -> None:
        super().__init__(d_model, S5(d_model, **options), transposed)


class HostLinOSS(_Layer):
    """``LinOSS`` as a layer of the host; options as there."""

    def __init__(self, d_model: int, transposed: bool = False, **options: Any) -> None:
        super().__init__(d_model, LinOSS(d_model, **options), transposed)


class InputMemoryFFTConv(_Layer):
    """The host's convolution layer behind an ``InputMemory``, with any kernel of its table.

    Args:
        d_model: H.
        input_memory: a mapping with size, activation and bias; None or size 0 for none.
        transposed: whether the features come before the steps.
        **options: of the host's ``FFTConv``.
    """

    def __init__(
        self, d_model: int, input_memory: Mapping[str, Any] | None = None, transposed: bool = True, **options: Any
    ) -> None:
        convolution = GroupedFFTConv(d_model, transposed=False, **options)
        super().__init__(d_model, with_input_memory(convolution, input_memory, d_model), transposed)
