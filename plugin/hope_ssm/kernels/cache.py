"""In evaluation a convolution kernel is computed once and kept until something that it depends on has changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hope_ssm.ops.transforms import transformed


class _Kept(NamedTuple):
    key: Hashable
    values: list[Tensor]
    result: Tensor


class KernelCache:
    """The last result of a module, with the values of all that it was computed from.

    Values are compared, not versions: a write through ``.data``, ``load_state_dict``, ``.to()``, a swap of weights or
    ``functional_call`` is noticed, whatever way it takes, and so is another setting among the module's attributes. The
    comparison reads each parameter once; a kernel costs many times that. With gradients, in training, and wherever
    tensors carry more than their numbers (see ``_plain``) nothing is kept and nothing kept is used. Threads may
    share a module: what is kept is replaced as a whole and read once.
    """

    def __init__(self) -> None:
        self._kept: _Kept | None = None

    def get(self, module: nn.Module, key: Hashable, compute: Callable[[], Tensor], copy: bool = True) -> Tensor:
        """Return ``compute()``, or a copy of what it gave for the same key, values and settings of the module.

        Args:
            module: the kernel, or a module that holds it; its parameters, buffers and plain attributes are compared,
                those of its submodules too.
            key: whatever else the result depends on.
            compute: makes the result.
            copy: False if the caller only reads the result, which is then kept itself.
        """
        values = _plain(module)
        if values is None:
            return compute()
        if module.training or torch.is_grad_enabled():
            self._kept = None
            return compute()
        key = (key, _settings(module, values))
        kept = self._kept  # read once: another thread may replace it at any time
        if kept is not None and kept.key == key and _same(kept.values, values):
            return kept.result.clone() if copy else kept.result
        before = [value.detach().clone() for value in values]
        result = compute()
        if _same(before, _plain(module)):  # else another thread has written to them meanwhile
            self._kept = _Kept(key, before, result.clone() if copy else result)
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> KernelCache:
        return type(self)()

    def __reduce__(self) -> tuple[type, tuple]:
        return type(self), ()


class SpectrumCache(KernelCache):
    """The last transform of a layer's kernel, with the samples that it was made from.

    Samples are compared, not parameters: whatever made them, equal ones have one transform. Beside the kernel's own
    copy a layer keeps the samples (C, H, K) and the transform (C, H, N/2 + 1), five times as many numbers together.
    """

    def of(self, module: nn.Module, k: Tensor, key: Hashable, compute: Callable[[], Tensor]) -> Tensor | None:
        """Return ``compute()`` or what it gave for these samples, not to be written to; None where nothing is kept.

        Args:
            module: the layer.
            k: (C, H, K).
            key: whatever else the transform depends on.
            compute: makes it.
        """
        values = None if module.training or torch.is_grad_enabled() else _plain(module)
        if values is None:
            self._kept = None
            return None
        key, kept = (key, _settings(module, values)), self._kept
        if kept is not None and kept.key == key and _same(kept.values, [k]):
            return kept.result
        self._kept = _Kept(key, [k], result := compute())
        return result


def _plain(module: nn.Module) -> list[Tensor] | None:
    """All tensors of the module, or None where equal numbers do not mean equal results, or cannot be compared.

    Under torch.func's transforms and forward-mode differentiation tensors carry tangents and batches; under
    torch.compile, tracing and other dispatch modes their operations are recorded; CUDA graphs allow no comparison; a
    parametrization may depend on anything.
    """
    if (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or transformed()
        or torch._C._len_torch_dispatch_stack() > 0
        or any(hasattr(part, "parametrizations") for part in module.modules())
    ):
        return None
    values = [value for part in module.modules() for value in _tensors(part)]
    if any(type(value) not in (Tensor, nn.Parameter) or value.is_meta for value in values):
        return None
    if any(value.is_cuda for value in values) and torch.cuda.is_current_stream_capturing():
        return None
    return values


def _tensors(module: nn.Module) -> list[Tensor]:
    """Parameters, buffers, and tensors put in their place as plain attributes."""
    held = [*module._parameters.values(), *module._buffers.values(), *vars(module).values()]
    return [value for value in held if isinstance(value, Tensor)]


def _settings(module: nn.Module, values: list[Tensor]) -> Hashable:
    """The plain attributes of the module and its parts, and the CUDA stream: streams do not wait for each other."""
    devices = {value.device for value in values if value.is_cuda}
    streams = [torch.cuda.current_stream(device).cuda_stream for device in devices]
    return *streams, *(
        (name, value)
        for part in module.modules()
        for name, value in vars(part).items()
        if value is None or isinstance(value, (bool, int, float, str))
    )


def _same(before: list[Tensor], now: list[Tensor] | None) -> bool:
    return (
        now is not None
        and len(before) == len(now)
        and all(
            a.dtype == b.dtype and a.device == b.device and torch.equal(a, b) for a, b in zip(before, now, strict=True)
        )
    )


def with_enough_memory(compute: Callable[[], Any], name: str, shape: Sequence[int], dtype: torch.dtype) -> Any:
    """Return ``compute()``; torch's complaint that memory is short becomes a sentence with the size of the result.

    Args:
        compute: makes the result.
        name: of the kernel.
        shape: of the result.
        dtype: of the result.

    Raises:
        MemoryError: memory was short.
    """
    if torch.compiler.is_compiling():  # there is no memory to run out of, and older compilers trace no ``try``
        return compute()
    try:
        return compute()
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if "out of memory" not in str(error).lower() and "can't allocate memory" not in str(error):
            raise
        gigabytes = math.prod(shape) * dtype.itemsize / 1e9
        raise MemoryError(
            f"the {name} kernel of shape {tuple(shape)} (channels, d_model, length) must fit into memory, as {dtype} "
            f"it is {gigabytes:.1f} GB, and several times that while it is computed; got: "
            f"{str(error).splitlines()[0]} Lower the length, l_max or d_model."
        ) from error
