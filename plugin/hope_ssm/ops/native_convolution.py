"""The long convolution and its two gradients on a CPU, in C++, with adjacent features in the lanes of a vector.

Two real sequences are multiplied in R[z]/(z^{2M} + 1) = C[z]/(z^M - i), where M complex numbers stand for 2M real ones.
The transforms run over the steps of (…, L, H) as it lies in memory, a vector's features at a time, so that nothing is
brought from one order into the other, and all that belongs to one sequence stays in the cache of a core. Axes: B batch,
C channels, H features, L steps, K lags, W features in a vector.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hope_ssm.ops import grouped_convolution as grouped
from hope_ssm.ops import native_build
from hope_ssm.ops.fresh_memory import keep_small_blocks, on_huge_pages
from hope_ssm.ops.grouped_convolution import slices
from hope_ssm.ops.workers import for_each
from hope_ssm.precision import working_dtype

NAMES = {torch.float32: "float32", torch.float64: "float64"}
FIRST_RADICES = (1, 3, 5)  # M is one of these times a power of 2
# Pieces for the threads to share, by parts of the batch where there are few features; a part has the kernel's transform
# to itself, so it has at least so many rows. Results depend on the pieces, and pieces not on the threads.
PIECES, LEAST_ROWS = 8, 16

_Index = ctypes.c_ssize_t


class _Sizes(ctypes.Structure):
    _fields_ = [(name, _Index) for name in ("batch", "channels", "features", "steps", "lags", "ahead")]


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
    """One convolution: its operands in the precision of the computation, and its pieces for the threads."""

    def __init__(self, u: Tensor, k: Tensor, ahead: int) -> None:
        self.dtype = working_dtype(u, k)
        self.u, self.k = self.operand(u).unsqueeze(1), self.operand(k).unsqueeze(0)
        self.ahead, self.library = ahead, native_build.load()
        self.size = ring_size(grouped.least_points(u.shape[-1], k.shape[-1], ahead))
        self.plan, self.kept = _plan(self.size, self.dtype)
        self.blocks = slices(u.shape[1], native_build.vector_bytes() // self.dtype.itemsize)
        parts = max(1, min(PIECES // max(1, len(self.blocks)), len(u) // LEAST_ROWS))
        self.parts = slices(len(u), max(1, -(-len(u) // parts)))

    def operand(self, x: Tensor) -> Tensor:
        """x as numbers that lie in memory as its strides say."""
        return x.detach().to(self.dtype).resolve_neg()

    def run(self, name: str, arguments: Callable[[int, slice, int, slice], tuple[Any, ...]]) -> None:
        """Call the library's function ``name`` for every block of features and part of the batch.

        ``arguments`` gets their numbers and slices, and returns what the function wants besides sizes and plan.
        """
        function = getattr(self.library, f"{name}_{NAMES[self.dtype]}")
        channels, lags, length = self.k.shape[1], self.k.shape[-1], self.u.shape[-1]

        def piece(numbers: tuple[int, int]) -> None:
            block, rows = self.blocks[numbers[0]], self.parts[numbers[1]]
            sizes = _Sizes(rows.stop - rows.start, channels, block.stop - block.start, length, lags, self.ahead)
            given = arguments(numbers[0], block, numbers[1], rows)
            if function(ctypes.byref(sizes), ctypes.byref(self.plan), *given):
                raise MemoryError(f"a convolution of {self.size} coefficients must fit into memory; got no room for it.")

        keep_small_blocks()
        for_each(piece, [(b, r) for b in range(len(self.blocks)) for r in range(len(self.parts))])


def _signal(x: Tensor | None, features: slice, rows: slice | None = None) -> Any:
    """x (B, C, H, L), from the first of these features and rows on."""
    if x is None:
        return ctypes.byref(_Signal(None, 0, 0, 0, 0))
    strides = x.stride()
    start = features.start * strides[2] + (rows.start * strides[0] if rows else 0)
    return ctypes.byref(_Signal(x.data_ptr() + start * x.element_size(), *strides))


def kernel_spectrum(u: Tensor, k: Tensor, ahead: int) -> Tensor:
    """k in the ring, transformed: what ``convolve`` of the same k and the same shape and dtype of u can be given.

    Returns:
        (blocks, C, M, 2, W), W features in a block, as the library orders them.
    """
    call = _Call(u[:1], k, ahead)
    call.parts = [slice(0, 1)]
    width = native_build.vector_bytes() // call.dtype.itemsize
    spectra = call.k.new_empty(len(call.blocks), len(k), call.size, 2, width)
    call.run("transform", lambda number, block, *_: (_signal(call.k, block), ctypes.c_void_p(spectra[number].data_ptr())))
    return spectra


def convolve(u: Tensor, k: Tensor, ahead: int, features_next: bool, spectrum: Tensor | None = None) -> Tensor:
    """y_t = Σ_j k_j u_{t+a-j}; arguments and result as in ``grouped_convolution.convolve``.

    ``spectrum``: what ``kernel_spectrum`` returned for the same arguments.
    """
    call = _Call(u, k, ahead)
    y = on_huge_pages(grouped.empty_output(call.u[:, 0], len(k), features_next))

    def arguments(number: int, block: slice, _: int, rows: slice) -> tuple[Any, ...]:
        known = None if spectrum is None else ctypes.c_void_p(spectrum[number].data_ptr())
        return _signal(call.u, block, rows), _signal(call.k, block), _signal(y, block, rows), known

    call.run("convolve", arguments)
    return y.to(u.dtype)


def gradients(
    g: Tensor, u: Tensor, k: Tensor, ahead: int, features_next: bool, of_input: bool, of_kernel: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of Σ g y by u and k; arguments and results as in ``grouped_convolution.gradients``."""
    call = _Call(u, k, ahead)
    weights, none = call.operand(g), u.new_empty(0)
    by_u = on_huge_pages(grouped.empty_input(call.u[:, 0], features_next)) if of_input else None
    by_k = call.k.new_empty(len(call.parts), *k.shape) if of_kernel else None

    def arguments(_: int, block: slice, number: int, rows: slice) -> tuple[Any, ...]:
        return (
            _signal(weights, block, rows),
            _signal(call.u, block, rows),
            _signal(call.k, block),
            _signal(None if by_u is None else by_u.unsqueeze(1), block, rows),
            _signal(None if by_k is None else by_k[number].unsqueeze(0), block),
        )

    call.run("gradients", arguments)
    return (
        none if by_u is None else by_u.to(u.dtype),
        k.new_empty(0) if by_k is None else by_k.sum(0).to(k.dtype),
    )
