"""In evaluation a convolution kernel is computed once and kept until something that it depends on has changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class KernelCache:
    """The last kernel of a module, with the values of the parameters and buffers that it was computed from.

    Values are compared, not versions. So a write through ``.data``, ``load_state_dict``, ``.to()``, a swap of weights
    or ``functional_call`` is noticed. The comparison reads each parameter once; a kernel costs many times that. Nothing
    is kept with gradients, in training, under torch.compile and with ``torch.nn.utils.parametrize``.
    """

    def __init__(self) -> None:
        self._kept: tuple[Hashable, list[Tensor], Tensor] | None = None

    def get(self, module: nn.Module, key: Hashable, compute: Callable[[], Tensor]) -> Tensor:
        """Return ``compute()``, or a copy of what it gave for the same key and the same values.

        Args:
            module: the kernel.
            key: whatever else the result depends on.
            compute: makes it.
        """
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or hasattr(module, "parametrizations"):
            return compute()
        if module.training or torch.is_grad_enabled():
            self._kept = None
            return compute()
        values = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        try:
            if self._kept is not None and self._kept[0] == key and _same(self._kept[1], values):
                return self._kept[2].clone()
        except RuntimeError:  # values that cannot be read: of torch.func, on the meta device
            return compute()
        result = compute()
        self._kept = (key, [value.detach().clone() for value in values], result.clone())
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> KernelCache:
        return KernelCache()

    def __reduce__(self) -> tuple[type, tuple]:
        return KernelCache, ()


def _same(before: list[Tensor], now: list[Tensor]) -> bool:
    return len(before) == len(now) and all(
        a.dtype == b.dtype and a.device == b.device and torch.equal(a, b) for a, b in zip(before, now, strict=True)
    )


@contextmanager
def enough_memory(name: str, shape: Sequence[int], dtype: torch.dtype) -> Iterator[None]:
    """Turn torch's complaint that memory is short into a sentence with the size of the result.

    Args:
        name: of the kernel.
        shape: of the result.
        dtype: of the result.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if "out of memory" not in str(error).lower() and "can't allocate memory" not in str(error):
            raise
        gigabytes = math.prod(shape) * dtype.itemsize / 1e9
        raise MemoryError(
            f"the {name} kernel of shape {tuple(shape)} (channels, d_model, length) must fit into memory, as {dtype} "
            f"it is {gigabytes:.1f} GB, and several times that while it is computed; got: "
            f"{str(error).splitlines()[0]} Lower the length, l_max or d_model."
        ) from error
