"""The long convolution and its two gradients on a CPU, in C++, with adjacent features in the lanes of a vector.

Two real sequences are multiplied in R[z]/(z^{2M} + 1) = C[z]/(z^M - i), where M complex numbers stand for 2M real ones.
The transforms run over the steps of (…, L, H) as it lies in memory, a vector's features at a time, so that nothing is
brought from one order into the other, and all that belongs to one sequence stays in the cache of a core. Axes: B batch,
C channels, H features, L steps, K lags, W features in a vector.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hope_ssm.checks import log_once
from hope_ssm.ops import grouped_convolution as grouped
from hope_ssm.ops import native_build
from hope_ssm.ops.fresh_memory import keep_small_blocks, on_huge_pages, short_of_memory
from hope_ssm.precision import working_dtype

NAMES = {torch.float32: "float32", torch.float64: "float64"}
FIRST_RADICES = (1, 3, 5)  # M is one of these times a power of 2
# Pieces for the threads to share, by parts of the batch where there are few features; a part has the kernel's transform
# to itself, so it has at least so many rows. Results depend on the pieces, and pieces not on the threads.
PIECES, LEAST_ROWS = 8, 16
LEAST_COEFFICIENTS = 8192  # of a thread: some 0.2 ms of work, where a thread begins within 0.05

_Index = ctypes.c_ssize_t
_process = os.getpid()
_logger = logging.getLogger("hope_ssm.ops")


class _Sizes(ctypes.Structure):
    _fields_ = [
        *((name, _Index) for name in ("batch", "channels", "features", "steps", "lags", "ahead", "parts", "threads")),
        ("team", ctypes.c_void_p),
    ]


class _Plan(ctypes.Structure):
    _fields_ = [("size", _Index), ("stages", _Index), ("radices", ctypes.c_void_p), ("twiddles", ctypes.c_void_p)]


class _Signal(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), *((f"by_{name}", _Index) for name in ("row", "channel", "feature", "step"))]


def ring_size(minimum: int) -> int:
    """The smallest M = 2ᵃ, 3·2ᵃ or 5·2ᵃ with 2M ≥ ``minimum``."""
    least = max(1, -(-minimum // 2))
    return min(radix << max(0, (-(-least // radix) - 1).bit_length()) for radix in FIRST_RADICES)


@functools.lru_cache(16)
def _plan(size: int, dtype: torch.dtype) -> tuple[_Plan, list[Any]]:
    """The stages for M coefficients, and the arrays that must stay with them.

    A node of angle φ divides into R of angles (φ + 2πk)/R, and has the twiddles w^q, w = e^{iφ/R}, for q = 1, …, R - 1.
    """
    rest, radices = size, []
    for odd in FIRST_RADICES[1:]:
        if rest % odd == 0:
            radices, rest = [odd], rest // odd
    doublings = rest.bit_length() - 1
    radices += [4] * (doublings // 2) + [2] * (doublings % 2)
    angles, twiddles = torch.tensor([math.pi / 2], dtype=torch.float64, device="cpu"), []
    for radix in radices:
        powers = torch.outer(angles / radix, torch.arange(1, radix).to(angles))
        twiddles.append(torch.stack([powers.cos(), powers.sin()], dim=-1).to(dtype).contiguous())
        turns = torch.arange(radix).to(angles) * (2 * math.pi)
        angles = ((angles.unsqueeze(-1) + turns) / radix).flatten()
    numbers = (_Index * len(radices))(*radices)
    pointers = (ctypes.c_void_p * len(radices))(*(table.data_ptr() for table in twiddles))
    plan = _Plan(size, len(radices), ctypes.addressof(numbers), ctypes.addressof(pointers))
    return plan, [numbers, pointers, twiddles]


class _Call:
    """One convolution: its operands in the precision of the computation, its sizes, and the library's functions."""

    def __init__(self, u: Tensor, k: Tensor, ahead: int) -> None:
        self.dtype, self.library = working_dtype(u, k), native_build.load()
        self.u, self.k = self.operand(u), self.operand(k)
        (batch, features, length), (channels, _, lags) = u.shape, k.shape
        self.size = ring_size(grouped.least_points(length, lags, ahead))
        self.plan, self.kept = _plan(self.size, self.dtype)
        self.width = native_build.vector_bytes() // self.dtype.itemsize
        self.blocks = -(-features // self.width)
        parts = max(1, min(PIECES // max(1, self.blocks), batch // LEAST_ROWS))
        work = self.blocks * batch * channels * self.size
        self.threads = max(1, min(torch.get_num_threads(), self.blocks * parts, work // LEAST_COEFFICIENTS))
        self.sizes = _Sizes(batch, channels, features, length, lags, ahead, parts, self.threads, _team())

    def operand(self, x: Tensor) -> Tensor:
        """x as numbers that lie in memory as its strides say."""
        return x.detach().to(self.dtype).resolve_neg()

    def room(self, rings: int) -> Tensor:
        """For each thread so many times M coefficients of a vector's features."""
        return self.k.new_empty(self.threads, rings, self.size, 2, self.width)

    def __call__(self, name: str, *arguments: Any) -> None:
        getattr(self.library, f"{name}_{NAMES[self.dtype]}")(
            ctypes.byref(self.sizes), ctypes.byref(self.plan), *arguments
        )


def _team() -> int | None:
    """The address of GOMP_parallel in the OpenMP that torch has loaded, if it is one that has it.

    The threads of that team are there already, and wait for work by spinning: others would share the cores with them.
    They do not survive a fork.
    """
    return _gomp_parallel() if os.getpid() == _process else None


@functools.cache
def _gomp_parallel() -> int | None:
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, TypeError, OSError):  # other runtimes, other systems
        return None


def _signal(x: Tensor | None) -> Any:
    """x (B, C, H, L), by its place and strides."""
    return ctypes.byref(_Signal(None, 0, 0, 0, 0) if x is None else _Signal(x.data_ptr(), *x.stride()))


def _place(x: Tensor | None) -> Any:
    return None if x is None else ctypes.c_void_p(x.data_ptr())


def kernel_spectrum(u: Tensor, k: Tensor, ahead: int) -> Tensor:
    """k in the ring, transformed: what ``convolve`` of the same k and the same shape and dtype of u can be given.

    Returns:
        (blocks, C, M, 2, W), W features in a block, as the library orders them.
    """
    call = _Call(u, k, ahead)
    spectrum = call.k.new_empty(call.blocks, len(k), call.size, 2, call.width)
    call("transform", _signal(call.k.unsqueeze(0)), _place(spectrum))
    return spectrum


def convolve(u: Tensor, k: Tensor, ahead: int, features_next: bool, spectrum: Tensor | None = None) -> Tensor:
    """y_t = Σ_j k_j u_{t+a-j}; arguments and result as in ``grouped_convolution.convolve``.

    ``spectrum``: what ``kernel_spectrum`` returned for the same arguments.
    """
    return _with_room(
        lambda: _convolve(u, k, ahead, features_next, spectrum), lambda: grouped.convolve(u, k, ahead, features_next)
    )


def _convolve(u: Tensor, k: Tensor, ahead: int, features_next: bool, spectrum: Tensor | None) -> Tensor:
    call = _Call(u, k, ahead)
    y = on_huge_pages(grouped.empty_output(call.u, len(k), features_next))
    room = call.room(len(k) + 2)
    inputs = _signal(call.u.unsqueeze(1)), _signal(call.k.unsqueeze(0))
    call("convolve", *inputs, _signal(y), _place(spectrum), _place(room))
    return y.to(u.dtype)


def gradients(
    g: Tensor, u: Tensor, k: Tensor, ahead: int, features_next: bool, of_input: bool, of_kernel: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of Σ g y by u and k; arguments and results as in ``grouped_convolution.gradients``."""
    arguments = g, u, k, ahead, features_next, of_input, of_kernel
    return _with_room(lambda: _gradients(*arguments), lambda: grouped.gradients(*arguments))


def _with_room(compute: Callable[[], Any], in_groups: Callable[[], Any]) -> Any:
    """``compute()``, and where memory is too short for it ``in_groups()``, which says it once."""
    keep_small_blocks()
    try:
        return compute()
    except RuntimeError as error:
        if not short_of_memory(error):
            raise
        log_once(_logger, logging.WARNING, f"convolution='native' must fit into memory; got {error}. Grouped now.")
    return in_groups()


def _gradients(
    g: Tensor, u: Tensor, k: Tensor, ahead: int, features_next: bool, of_input: bool, of_kernel: bool
) -> tuple[Tensor, Tensor]:
    call = _Call(u, k, ahead)
    weights = call.operand(g)
    by_u = on_huge_pages(grouped.empty_input(call.u, features_next)) if of_input else None
    by_k = call.k.new_empty(call.sizes.parts, *k.shape) if of_kernel else None
    room = call.room(2 * len(k) + 3)
    inputs = _signal(weights), _signal(call.u.unsqueeze(1)), _signal(call.k.unsqueeze(0))
    call("gradients", *inputs, _signal(None if by_u is None else by_u.unsqueeze(1)), _signal(by_k), _place(room))
    return (
        u.new_empty(0) if by_u is None else by_u.to(u.dtype),
        k.new_empty(0) if by_k is None else by_k.sum(0).to(k.dtype),
    )
