"""A short memory of the inputs in front of a layer. Axes: B batch, L steps, H features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from hope_ssm.checks import check_choice, check_flag, check_known, check_positive_integer
from hope_ssm.layers.padding import check_input, without_padding

OPTIONS = ("size", "activation", "bias")
# activation → itself, and the initial bias, where it is near 1
ACTIVATIONS = {"sigmoid": (torch.sigmoid, 3.0), "tanh": (torch.tanh, 2.0), "id": (lambda x: x, 1.0)}


class InputMemory(nn.Module):
    """ũ_t = a(b + Σ_{j<K} w_j u_{t-j}) ⊙ u_t, per feature: each input is weighted by what came just before it.

    It acts on the inputs alone, so whatever layer follows keeps its convolution and its recurrence. At the start w = 0
    and a(b) is near 1, so that the layer begins nearly as it would without.

    Args:
        d_model: H.
        size: K, at least 1: steps that the memory sees, the present one among them.
        activation: a, ``"sigmoid"``, ``"tanh"`` or ``"id"``.
        bias: whether b is trained; otherwise it stays.

    Raises:
        TypeError, ValueError: a size below 1, an unknown activation.

    Source: "SMR: State Memory Replay for Long Sequence Modeling" (arXiv 2405.17534), which gives the form M ⊙ u with a
    short causal memory M. K, a, the bias and the start are ours; no public code was found.
    """

    def __init__(self, d_model: int, *, size: int = 4, activation: str = "sigmoid", bias: bool = True) -> None:
        super().__init__()
        self.d_model, self.size = d_model, check_positive_integer("input_memory.size", size)
        self.activation = check_choice("input_memory.activation", activation, ACTIVATIONS)
        start = torch.full((d_model,), ACTIVATIONS[activation][1])
        self.weight = nn.Parameter(torch.zeros(d_model, self.size))
        self.bias: Tensor
        if check_flag("input_memory.bias", bias):
            self.bias = nn.Parameter(start)
        else:
            self.register_buffer("bias", start)

    def forward(self, u: Tensor, before: Tensor | None = None) -> Tensor:
        """Weigh the inputs.

        Args:
            u: (B, L, H).
            before: the K - 1 inputs before the first step, (B, K - 1, H); None for zeros.

        Returns:
            (B, L, H).
        """
        if before is None:
            before = u.new_zeros(len(u), self.size - 1, self.d_model)
        seen = torch.cat([before.to(u.dtype), u], dim=1).transpose(1, 2)
        weight, bias = self.weight.flip(-1).unsqueeze(1).to(u.dtype), self.bias.to(u.dtype)
        memory = conv1d(seen, weight, bias, groups=self.d_model).transpose(1, 2)
        return ACTIVATIONS[self.activation][0](memory) * u

    def after(self, u: Tensor, before: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the last K - 1 inputs (B, K - 1, H) of each sequence, for the next chunk."""
        seen = torch.cat([before, u.to(before.dtype)], dim=1)
        if lengths is None:
            return seen[:, u.shape[1] :]
        at = lengths.to(u.device).long().unsqueeze(-1) + torch.arange(self.size - 1, device=u.device)
        return seen.take_along_dim(at.unsqueeze(-1), dim=1)

    def extra_repr(self) -> str:
        """Return the sizes and the choice, for print(model)."""
        return f"{self.d_model}, size={self.size}, activation={self.activation!r}"


def _scaled(step_scale: Tensor | None) -> dict[str, Tensor]:
    """The option as a layer of the host does not have it."""
    return {} if step_scale is None else {"step_scale": step_scale}


class WithInputMemory(nn.Module):
    """A layer behind an ``InputMemory``; its state is that of the layer and the last K - 1 inputs, side by side.

    Args:
        layer: what has ``forward``, ``step``, ``default_state`` and ``setup_step`` like ``FFTConvolution``.
        memory: see ``InputMemory``.
    """

    def __init__(self, layer: nn.Module, memory: InputMemory) -> None:
        super().__init__()
        self.layer, self.memory = layer, memory

    @property
    def channels(self) -> int:
        """Channels of the layer."""
        return self.layer.channels  # type: ignore[return-value]

    @property
    def kernel(self) -> nn.Module:
        """The kernel of the layer."""
        return self.layer.kernel  # type: ignore[return-value]

    @property
    def d_output(self) -> int:
        """Features of the output."""
        return self.layer.d_output  # type: ignore[return-value]

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        rate: float = 1.0,
        lengths: Tensor | None = None,
        step_scale: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Map (B, L, H) to (B, L, C·H), and a state to the next; see ``FFTConvolution.forward``."""
        check_input(x, "batch", "length", self.memory.d_model)
        x = without_padding(x, lengths)
        scaled = _scaled(step_scale)
        if state is None:
            return self.layer(self.memory(x), rate=rate, lengths=lengths, **scaled)
        inner, before = self._parts(x, state)
        y, inner = self.layer(self.memory(x, before), state=inner, rate=rate, lengths=lengths, **scaled)
        return y, self._joined(inner, self.memory.after(x, before, lengths), state.dtype)

    def step(self, x: Tensor, state: Tensor, step_scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map one step (B, H) to (B, C·H)."""
        check_input(x, "batch", self.memory.d_model)
        inner, before = self._parts(x, state)
        u = x.unsqueeze(1)
        y, inner = self.layer.step(self.memory(u, before).squeeze(1), inner, **_scaled(step_scale))  # type: ignore[operator]
        return y, self._joined(inner, self.memory.after(u, before), state.dtype)

    def _parts(self, x: Tensor, state: Any) -> tuple[Tensor, Tensor]:
        """The layer's state, and the K - 1 inputs before (B, K - 1, H)."""
        like = self.layer.default_state(1)  # type: ignore[operator]
        past = (self.memory.size - 1, self.memory.d_model)
        wanted = (len(x), like.numel() + math.prod(past))
        if not isinstance(state, Tensor) or state.shape != wanted or state.is_complex() != like.is_complex():
            got = f"{state.dtype} of shape {tuple(state.shape)}" if isinstance(state, Tensor) else type(state).__name__
            raise ValueError(
                f"the state of a layer with input_memory.size={self.memory.size} must be "
                f"{'complex' if like.is_complex() else 'real'} of shape {wanted}; got {got}. "
                "default_state(batch) makes one."
            )
        inner, before = state.split([like.numel(), math.prod(past)], dim=-1)
        before = before.real if before.is_complex() else before
        return inner.reshape(len(x), *like.shape[1:]), before.reshape(len(x), *past)

    @staticmethod
    def _joined(inner: Tensor, before: Tensor, dtype: torch.dtype) -> Tensor:
        return torch.cat([inner.flatten(1), before.flatten(1).to(dtype)], dim=-1)

    def setup_step(self, **options: Any) -> None:
        """Prepare the layer for ``step``."""
        self.layer.setup_step(**options)  # type: ignore[operator]

    def default_state(self, *batch_shape: int) -> Tensor:
        """Return the zero state, (*batch_shape, numbers of the layer's state and (K - 1)·H inputs)."""
        inner = self.layer.default_state(*batch_shape)  # type: ignore[operator]
        inner = inner.flatten(len(batch_shape))
        past = inner.new_zeros(*batch_shape, (self.memory.size - 1) * self.memory.d_model)
        return torch.cat([inner, past], dim=-1)


def with_input_memory(layer: Any, setting: Mapping[str, Any] | None, d_model: int) -> Any:
    """Return the layer behind the memory of the option ``input_memory``, or as it is for None or size 0."""
    if setting is None:
        return layer
    if not isinstance(setting, Mapping):
        raise TypeError(f"input_memory must be a mapping with {', '.join(OPTIONS)}, or null; got {setting!r}.")
    check_known("input_memory", setting, OPTIONS, "key")
    size = setting.get("size", 4)
    if size == 0 and not isinstance(size, bool):
        return layer
    return WithInputMemory(layer, InputMemory(d_model, **setting))
