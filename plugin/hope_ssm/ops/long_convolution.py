"""Convolution of a sequence with a kernel as long as itself: y_t = Σ_j k_j u_{t+a-j}, by FFT without wrap-around.

The trilinear form T(g, u, k) = Σ_t g_t Σ_j k_j u_{t+a-j} has three partial derivatives, one convolution and two
correlations. Their own derivatives are of these three kinds again, so two functions have derivatives of every order.
Axes: B batch, C channels, H features, L steps, K lags.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from hope_ssm.checks import check_choice
from hope_ssm.ops import grouped_convolution as grouped
from hope_ssm.ops.transforms import forward_mode, into_onnx, largest, recorded
from hope_ssm.precision import working_dtype

MODES = ("auto", "grouped", "plain")
# Outputs below which the fixed cost of the groups is more than they save (docs/speed.md).
SMALL = 1 << 21


def long_convolution(
    u: Tensor, k: Tensor, *, ahead: int = 0, mode: str = "auto", spectrum: Tensor | None = None
) -> Tensor:
    """y_t = Σ_j k_j u_{t+a-j}: k holds the lags -a, …, K - 1 - a, and u is 0 outside its L steps.

    ``"plain"`` is three lines. ``"grouped"`` computes the same a few features at a time, so that the spectra stay in
    the cache of a core, on several cores side by side, and keeps nothing for the backward pass but u and k, whose
    transforms it computes again. It runs on a CPU; ``"auto"`` is ``"grouped"`` there, and ``"plain"`` below ``SMALL``
    outputs, on other devices, and in exported graphs, which must not need this package.

    Args:
        u: (B, H, L) real, in any order in memory: (B, L, H).transpose(1, 2) is as good, and y then has that order too.
        k: (C, H, K) real.
        ahead: a, at least 0 and below L and K: the number of negative lags.
        mode: one of ``MODES``.
        spectrum: what ``kernel_spectrum`` gave for the same k, mode and shape of u, to be used without gradients.

    Returns:
        (B, C, H, L) in the dtype of u; computed in the common dtype of u and k, float32 at least.

    Raises:
        ValueError: an unknown mode, shapes that do not fit, ``"grouped"`` on another device than a CPU.
    """
    _check(u, k, ahead, mode)
    if not _is_grouped(u, k, mode):
        y = plain_convolution(u, k, ahead, spectrum)
        # a copy, which the pointwise parts that follow save several times: they are slow on mixed orders
        ordered = u.device.type == "cpu" and not recorded() and grouped.steps_first(u)
        return y.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1) if ordered else y
    features_next = grouped.steps_first(u)
    if spectrum is not None:
        return grouped.convolve(u, k, ahead, features_next, spectrum)
    if torch.compiler.is_compiling():
        return _convolve(u, k, ahead, features_next)
    return _Convolution.apply(u, k, ahead, features_next)


def plain_convolution(u: Tensor, k: Tensor, ahead: int = 0, spectrum: Tensor | None = None) -> Tensor:
    """The definition by three transforms; arguments and result as in ``long_convolution``."""
    length, dtype, size = u.shape[-1], working_dtype(u, k), _plain_points(u, k, ahead)
    spectrum = torch.fft.rfft(k.to(dtype), n=size) if spectrum is None else spectrum
    product = torch.fft.rfft(u.to(dtype).unsqueeze(1), n=size) * spectrum
    return torch.fft.irfft(product, n=size)[..., ahead : ahead + length].to(u.dtype)


def kernel_spectrum(u: Tensor, k: Tensor, ahead: int = 0, mode: str = "auto") -> Tensor:
    """Σ_j k_j e^{-2πijf/N}, f ≤ N/2: the transform of k that ``long_convolution`` of the same arguments uses.

    Args:
        u: as for ``long_convolution``; its values do not matter.
        k: as for ``long_convolution``.
        ahead: as for ``long_convolution``.
        mode: as for ``long_convolution``.

    Returns:
        (C, H, N/2 + 1) complex.
    """
    is_grouped = _is_grouped(u, k, mode)
    size = grouped.points(u.shape[-1], k.shape[-1], ahead) if is_grouped else _plain_points(u, k, ahead)
    return torch.fft.rfft(k.to(working_dtype(u, k)), n=size)


def _plain_points(u: Tensor, k: Tensor, ahead: int) -> int:
    size = u.shape[-1] + max(ahead, k.shape[-1] - ahead)
    if into_onnx():  # a power of 2 is exact and fast in its runtime, which confuses sizes that depend on the length
        size = 1 << (largest(size) - 1).bit_length()
    return size


def _check(u: Tensor, k: Tensor, ahead: int, mode: str) -> None:
    check_choice("mode", mode, MODES)
    if u.ndim != 3 or k.ndim != 3 or u.shape[1] != k.shape[1]:
        raise ValueError(
            f"u and k must have shapes (B, H, L) and (C, H, K) with one H; got {tuple(u.shape)} and {tuple(k.shape)}."
        )
    if not 0 <= ahead < min(k.shape[-1], u.shape[-1]):
        raise ValueError(
            f"ahead must be at least 0 and below L and K; got {ahead} with L={u.shape[-1]}, K={k.shape[-1]}."
        )
    if mode == "grouped" and u.device.type not in ("cpu", "meta"):
        raise ValueError(f"mode='grouped' must compute on a CPU; got {u.device.type}. mode='auto' computes everywhere.")


def _is_grouped(u: Tensor, k: Tensor, mode: str) -> bool:
    if mode != "auto":
        return mode == "grouped"
    if not torch.compiler.is_compiling() and u.numel() * k.shape[0] < SMALL:
        return False
    exporting = getattr(torch.compiler, "is_exporting", lambda: False)() or torch.jit.is_tracing()
    return u.device.type == "cpu" and not exporting and not forward_mode()


# The computation as operators, which fake tensors, torch.compile and graph transformations see as one node each.


@torch.library.custom_op("hope_ssm::convolve", mutates_args=())
def _convolve(u: Tensor, k: Tensor, ahead: int, features_next: bool) -> Tensor:
    return grouped.convolve(u, k, ahead, features_next)


@_convolve.register_fake
def _(u: Tensor, k: Tensor, ahead: int, features_next: bool) -> Tensor:
    return grouped.empty_output(u, k.shape[0], features_next)


@torch.library.custom_op("hope_ssm::convolution_gradients", mutates_args=())
def _gradients(
    g: Tensor, u: Tensor, k: Tensor, ahead: int, features_next: bool, of_input: bool, of_kernel: bool
) -> tuple[Tensor, Tensor]:
    return grouped.gradients(g, u, k, ahead, features_next, of_input, of_kernel)


@_gradients.register_fake
def _(
    g: Tensor, u: Tensor, k: Tensor, ahead: int, features_next: bool, of_input: bool, of_kernel: bool
) -> tuple[Tensor, Tensor]:
    by_u = grouped.empty_input(u, features_next) if of_input else u.new_empty(0)
    return by_u, k.new_empty(k.shape) if of_kernel else k.new_empty(0)


class _Convolution(torch.autograd.Function):
    """(u, k) ↦ y."""

    @staticmethod
    def forward(u: Tensor, k: Tensor, ahead: int, features_next: bool) -> Tensor:
        return _convolve(u, k, ahead, features_next)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        u, k, ctx.ahead, ctx.features_next = inputs
        ctx.save_for_backward(u, k)
        ctx.save_for_forward(u, k)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[:2]
        found = _Gradients.apply(g, *ctx.saved_tensors, ctx.ahead, ctx.features_next, *needs)
        return *_wanted(found, needs), None, None

    @staticmethod
    def jvp(ctx: Any, du: Tensor | None, dk: Tensor | None, *_: None) -> Tensor | None:
        u, k = ctx.saved_tensors
        return _sum(_conv(ctx, du, k), _conv(ctx, u, dk))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], u: Tensor, k: Tensor, *options: Any) -> tuple[Tensor, int]:
        if in_dims[1] is None:  # more sequences
            u = u.movedim(in_dims[0], 0)
            return _Convolution.apply(u.flatten(0, 1), k, *options).unflatten(0, (info.batch_size, -1)), 0
        if in_dims[0] is None:  # more channels
            k = k.movedim(in_dims[1], 0)
            return _Convolution.apply(u, k.flatten(0, 1), *options).unflatten(1, (info.batch_size, -1)), 1
        u, k = (_as_features(x, dim, info.batch_size) for x, dim in zip((u, k), in_dims[:2], strict=True))
        return _Convolution.apply(u, k, *options).unflatten(-2, (info.batch_size, -1)), 2


class _Gradients(torch.autograd.Function):
    """(g, u, k) ↦ the derivatives of T by u and by k; one that is not asked for is empty."""

    @staticmethod
    def forward(
        g: Tensor, u: Tensor, k: Tensor, ahead: int, features_next: bool, of_input: bool, of_kernel: bool
    ) -> tuple[Tensor, Tensor]:
        return _gradients(g, u, k, ahead, features_next, of_input, of_kernel)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        g, u, k, ctx.ahead, ctx.features_next, *ctx.wanted = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(g, u, k)
        ctx.save_for_forward(g, u, k)

    @staticmethod
    def backward(ctx: Any, by_u: Tensor | None, by_k: Tensor | None) -> tuple[Tensor | None, ...]:
        g, u, k = ctx.saved_tensors
        by_u, by_k = _wanted((by_u, by_k), ctx.wanted)
        needs = ctx.needs_input_grad
        of_g = _sum(_conv(ctx, by_u, k), _conv(ctx, u, by_k)) if needs[0] else None
        of_u = None if by_k is None or not needs[1] else _of(ctx, g, u, by_k, True, False)[0]
        of_k = None if by_u is None or not needs[2] else _of(ctx, g, by_u, k, False, True)[1]
        return of_g, of_u, of_k, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, dg: Tensor | None, du: Tensor | None, dk: Tensor | None, *_: None) -> tuple[Tensor, Tensor]:
        g, u, k = ctx.saved_tensors
        of_input, of_kernel = ctx.wanted
        found: list[tuple[Tensor | None, Tensor | None]] = []
        if dg is not None:
            found.append(_of(ctx, dg, u, k, of_input, of_kernel))
        if dk is not None and of_input:
            found.append((_of(ctx, g, u, dk, True, False)[0], None))
        if du is not None and of_kernel:
            found.append((None, _of(ctx, g, du, k, False, True)[1]))
        by_u, by_k = (_sum(*terms) for terms in zip(*found, strict=True)) if found else (None, None)
        return (
            (torch.zeros_like(u) if by_u is None else by_u) if of_input else u.new_empty(0),
            (torch.zeros_like(k) if by_k is None else by_k) if of_kernel else k.new_empty(0),
        )

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], g: Tensor, u: Tensor, k: Tensor, *options: Any
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        g, u, k = (_as_features(x, dim, info.batch_size) for x, dim in zip((g, u, k), in_dims[:3], strict=True))
        found = _Gradients.apply(g, u, k, *options)
        wanted = options[-2:]
        parts = [x.unflatten(1, (info.batch_size, -1)) if w else x for x, w in zip(found, wanted, strict=True)]
        return tuple(parts), tuple(1 if w else None for w in wanted)


def _as_features(x: Tensor, dim: int | None, size: int) -> Tensor:
    """(…, H, L) with the mapped axis ``dim``, or without one, to (…, V·H, L)."""
    x = x.unsqueeze(-3).expand(*x.shape[:-2], size, *x.shape[-2:]) if dim is None else x.movedim(dim, -3)
    return x.flatten(-3, -2)


def _conv(ctx: Any, u: Tensor | None, k: Tensor | None) -> Tensor | None:
    return None if u is None or k is None else _Convolution.apply(u, k, ctx.ahead, ctx.features_next)


def _of(ctx: Any, g: Tensor, u: Tensor, k: Tensor, of_input: bool, of_kernel: bool) -> tuple[Tensor, Tensor]:
    return _Gradients.apply(g, u, k, ctx.ahead, ctx.features_next, of_input, of_kernel)


def _sum(*terms: Tensor | None) -> Tensor | None:
    given = [term for term in terms if term is not None]
    return sum(given[1:], given[0]) if given else None


def _wanted(found: Any, needs: Any) -> tuple[Tensor | None, ...]:
    return tuple(x if need else None for x, need in zip(found, needs, strict=True))


def _compiled_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    u, k, ctx.ahead, ctx.features_next = inputs
    ctx.save_for_backward(u, k)


def _compiled_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad[:2]
    found = _gradients(g, *ctx.saved_tensors, ctx.ahead, ctx.features_next, *needs)
    return *_wanted(found, needs), None, None


_convolve.register_autograd(_compiled_backward, setup_context=_compiled_context)
