"""Triton: nodes and polynomial in one fused kernel, the moments of the backward pass in another."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hope_ssm.ops.backends.batches import by_system
from hope_ssm.ops.backends.polynomial import Sums, differentiable
from hope_ssm.ops.frequency import frequency_grid

# Frequencies and warps of a program: tuned on a GPU for every order and number of frequencies, once.
CONFIGURATIONS = ((128, 4), (256, 4), (512, 4), (1024, 8))


def samples(coefficients: Tensor, sampling_period: Tensor, length: int) -> Tensor:
    """p(z) = Σ_k c_k z^k at the all-pass nodes by Horner's rule in registers: nothing but p is written.

    Args:
        coefficients: c, (..., n) real.
        sampling_period: Δt, (...) real, its batch dimensions broadcast against those of ``coefficients``.
        length: L; the angles are θ_j = 2πj / L.

    Returns:
        (..., F) complex with F = L // 2 + 1; 4·n·F multiply-adds per system and 8·F bytes in float32. Sums in the dtype
        of the coefficients. The backward pass adds in a fixed order.
    """
    c, dt, restore = by_system(coefficients.to(sampling_period.dtype), sampling_period)
    return restore(differentiable(c, dt, length, Sums(polynomial, moments)))


def polynomial(c: Tensor, dt: Tensor, length: int) -> Tensor:
    """(S, R, n), (S), L → (S, R, F) complex."""
    systems, rows, n = c.shape
    cosine, sine = _half_angles(length, dt)
    value = torch.empty(systems, rows, len(cosine), 2, dtype=dt.dtype, device=dt.device)
    _launch(
        "polynomial", systems * rows, len(cosine), (c.contiguous(), dt.contiguous(), cosine, sine, value), (rows, n)
    )
    return torch.view_as_complex(value)


def moments(gradient: Tensor, dt: Tensor, length: int, order: int) -> Tensor:
    """(S, R, F) complex, (S), L, n → (S, R, n) real, n sums per block of frequencies, then one over the blocks."""
    systems, rows, frequencies = gradient.shape
    cosine, sine = _half_angles(length, dt)
    smallest = min(block for block, _ in CONFIGURATIONS)
    partial = torch.zeros(systems, rows, -(-frequencies // smallest), order, dtype=dt.dtype, device=dt.device)
    g = torch.view_as_real(gradient.resolve_conj().contiguous())
    _launch(
        "moments", systems * rows, frequencies, (g, dt.contiguous(), cosine, sine, partial), (rows, order),
        (partial.shape[2],),
    )  # fmt: skip
    return partial.sum(2)


def _half_angles(length: int, dt: Tensor) -> tuple[Tensor, Tensor]:
    """(cos θ/2, sin θ/2), (F,), rounded from float64."""
    half = frequency_grid(length, device=dt.device) / 2
    return torch.cos(half).to(dt.dtype), torch.sin(half).to(dt.dtype)


def _launch(
    name: str, systems: int, frequencies: int, tensors: tuple[Tensor, ...], sizes: tuple[int, int], *more: Any
) -> None:
    def grid(meta: dict[str, Any]) -> tuple[int, int]:
        return systems, triton.cdiv(frequencies, meta["BLOCK"])

    arguments = (*tensors, frequencies, *sizes, *(size for sizes in more for size in sizes))
    if tensors[0].device.type == "cuda":
        _tuned(name)[grid](*arguments)
    else:  # the interpreter
        KERNELS[name][grid](*arguments, BLOCK=CONFIGURATIONS[0][0])


@cache
def _tuned(name: str) -> Any:
    configurations = [triton.Config({"BLOCK": block}, num_warps=warps) for block, warps in CONFIGURATIONS]
    reset = ["partial"] if name == "moments" else None  # trials with smaller blocks leave more partial sums
    return triton.autotune(configurations, key=["frequencies", "order"], reset_to_zero=reset)(KERNELS[name])


@triton.jit
def _node(dt, cosine, sine, f, inside):  # type: ignore[no-untyped-def]  # the language of triton has no types
    """Real and imaginary part of z = (c - is)² / (c² + s²), c = Δt·cos(θ/2), s = sin(θ/2), for a block of angles."""
    c = dt * tl.load(cosine + f, mask=inside, other=1.0)
    s = tl.load(sine + f, mask=inside, other=0.0)
    inverse = 1.0 / (c * c + s * s)
    return (c * c - s * s) * inverse, -2.0 * c * s * inverse


@triton.jit
def _polynomial(  # type: ignore[no-untyped-def]
    coefficients, periods, cosine, sine, value, frequencies, rows, order, BLOCK: tl.constexpr
):
    system = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = f < frequencies
    x, y = _node(tl.load(periods + system // rows), cosine, sine, f, inside)
    real, imaginary = tl.zeros_like(x), tl.zeros_like(x)
    for k in range(order):
        c = tl.load(coefficients + system * order + order - 1 - k)
        real, imaginary = real * x - imaginary * y + c, real * y + imaginary * x
    out = value + 2 * (system * frequencies + f)
    tl.store(out, real, mask=inside)
    tl.store(out + 1, imaginary, mask=inside)


@triton.jit
def _moments(  # type: ignore[no-untyped-def]
    gradient, periods, cosine, sine, partial, frequencies, rows, order, blocks, BLOCK: tl.constexpr
):
    system = tl.program_id(0).to(tl.int64)
    f = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = f < frequencies
    x, y = _node(tl.load(periods + system // rows), cosine, sine, f, inside)
    source = gradient + 2 * (system * frequencies + f)
    real = tl.load(source, mask=inside, other=0.0)
    imaginary = -tl.load(source + 1, mask=inside, other=0.0)  # conj(g) z^k
    out = partial + (system * blocks + tl.program_id(1)) * order
    for k in range(order):
        tl.store(out + k, tl.sum(real, axis=0))
        real, imaginary = real * x - imaginary * y, real * y + imaginary * x


KERNELS = {"polynomial": _polynomial, "moments": _moments}
