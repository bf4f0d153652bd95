"""The long convolution and its derivatives of every order, as torch's autograd and its compiler see them.

The trilinear form T(g, u, k) = Σ_t g_t Σ_j k_j u_{t+a-j} has three partial derivatives, one convolution and two
correlations. Their own derivatives are of these three kinds again, so two functions have derivatives of every order.
A third, for sequences that are not large, keeps the transforms of u and k from the forward to the backward pass.
Axes: B batch, C channels, H features, L steps, K lags, N points of the FFT.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from hope_ssm.ops import grouped_convolution as grouped
from hope_ssm.ops import native_convolution as native
from hope_ssm.ops.transforms import transformed
from hope_ssm.precision import working_dtype


def in_groups(u: Tensor, k: Tensor, ahead: int, features_next: bool, in_cpp: bool) -> Tensor:
    """y_t = Σ_j k_j u_{t+a-j}, a few features at a time; arguments and result as in ``grouped.convolve``.

    ``in_cpp``: by ``native_convolution``, in place of ``grouped_convolution``.
    """
    if torch.compiler.is_compiling():
        return _convolve(u, k, ahead, features_next, in_cpp)
    return _Convolution.apply(u, k, ahead, features_next, in_cpp)


def as_a_whole(u: Tensor, k: Tensor, ahead: int, features_next: bool) -> Tensor:
    """y_t = Σ_j k_j u_{t+a-j}, all features at once; arguments and result as in ``grouped.convolve``.

    The backward pass uses the transforms of u and k again, five real ones in all. torch's own derivative of a real
    transform is a complex one, of twice the work.
    """
    return _Whole.apply(u, k, ahead, features_next)


# The same as operators, which fake tensors, torch.compile and graph transformations see as one node each.


@torch.library.custom_op("hope_ssm::convolve", mutates_args=())
def _convolve(u: Tensor, k: Tensor, ahead: int, features_next: bool, in_cpp: bool) -> Tensor:
    return (native if in_cpp else grouped).convolve(u, k, ahead, features_next)


@_convolve.register_fake
def _(u: Tensor, k: Tensor, ahead: int, features_next: bool, in_cpp: bool) -> Tensor:
    return grouped.empty_output(u, k.shape[0], features_next)


@torch.library.custom_op("hope_ssm::convolution_gradients", mutates_args=())
def _gradients(
    g: Tensor, u: Tensor, k: Tensor, ahead: int, features_next: bool, in_cpp: bool, of_input: bool, of_kernel: bool
) -> tuple[Tensor, Tensor]:
    return (native if in_cpp else grouped).gradients(g, u, k, ahead, features_next, of_input, of_kernel)


@_gradients.register_fake
def _(
    g: Tensor, u: Tensor, k: Tensor, ahead: int, features_next: bool, in_cpp: bool, of_input: bool, of_kernel: bool
) -> tuple[Tensor, Tensor]:
    by_u = grouped.empty_input(u, features_next) if of_input else u.new_empty(0)
    return by_u, k.new_empty(k.shape) if of_kernel else k.new_empty(0)


class _Convolution(torch.autograd.Function):
    """(u, k) ↦ y."""

    @staticmethod
    def forward(u: Tensor, k: Tensor, ahead: int, features_next: bool, in_cpp: bool) -> Tensor:
        return _convolve(u, k, ahead, features_next, in_cpp)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        u, k, *ctx.options = inputs
        ctx.save_for_backward(u, k)
        ctx.save_for_forward(u, k)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        needs = ctx.needs_input_grad[:2]
        found = _Gradients.apply(g, *ctx.saved_tensors, *ctx.options, *needs)
        return *_wanted(found, needs), None, None, None

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
        g: Tensor, u: Tensor, k: Tensor, ahead: int, features_next: bool, in_cpp: bool, of_input: bool, of_kernel: bool
    ) -> tuple[Tensor, Tensor]:
        return _gradients(g, u, k, ahead, features_next, in_cpp, of_input, of_kernel)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        g, u, k, *ctx.options, by_u, by_k = inputs
        ctx.wanted = by_u, by_k
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
        return of_g, of_u, of_k, None, None, None, None, None

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


class _Whole(torch.autograd.Function):
    """(u, k) ↦ y."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, k: Tensor, ahead: int, features_next: bool) -> Tensor:
        dtype, size = working_dtype(u, k), grouped.points(u.shape[-1], k.shape[-1], ahead)
        inputs, kernels = (torch.fft.rfft(x.to(dtype), n=size) for x in (u.unsqueeze(1), k))
        ctx.save_for_backward(u, k, inputs, kernels)
        ctx.ahead, ctx.features_next = ahead, features_next
        y = torch.fft.irfft(inputs * kernels, n=size)[..., ahead : ahead + u.shape[-1]]
        return grouped.in_order(y.to(u.dtype), features_next)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        u, k, inputs, kernels = ctx.saved_tensors
        needs = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled() or transformed():  # to be differentiated again, or mapped
            return *_wanted(_Gradients.apply(g, u, k, ctx.ahead, ctx.features_next, False, *needs), needs), None, None
        (length, lags), dtype, by_u, by_k = (u.shape[-1], k.shape[-1]), working_dtype(u, k), None, None
        size = grouped.points(length, lags, ctx.ahead)
        weights = torch.fft.rfft(pad(g, (ctx.ahead, 0)).to(dtype) if ctx.ahead else g.to(dtype), n=size)
        if needs[0]:
            product = weights * kernels.conj_physical()
            product = product[:, 0] if len(k) == 1 else product.sum(1)
            by_u = grouped.in_order(torch.fft.irfft(product, n=size)[..., :length].to(u.dtype), ctx.features_next)
        if needs[1]:
            moments = weights.conj_physical_().mul_(inputs).sum(0).conj_physical_()
            by_k = torch.fft.irfft(moments, n=size)[..., :lags].to(k.dtype)
        return by_u, by_k, None, None


def _as_features(x: Tensor, dim: int | None, size: int) -> Tensor:
    """(…, H, L) with the mapped axis ``dim``, or without one, to (…, V·H, L)."""
    x = x.unsqueeze(-3).expand(*x.shape[:-2], size, *x.shape[-2:]) if dim is None else x.movedim(dim, -3)
    return x.flatten(-3, -2)


def _conv(ctx: Any, u: Tensor | None, k: Tensor | None) -> Tensor | None:
    return None if u is None or k is None else _Convolution.apply(u, k, *ctx.options)


def _of(ctx: Any, g: Tensor, u: Tensor, k: Tensor, of_input: bool, of_kernel: bool) -> tuple[Tensor, Tensor]:
    return _Gradients.apply(g, u, k, *ctx.options, of_input, of_kernel)


def _sum(*terms: Tensor | None) -> Tensor | None:
    given = [term for term in terms if term is not None]
    return sum(given[1:], given[0]) if given else None


def _wanted(found: Any, needs: Any) -> tuple[Tensor | None, ...]:
    return tuple(x if need else None for x, need in zip(found, needs, strict=True))


def _compiled_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    u, k, *ctx.options = inputs
    ctx.save_for_backward(u, k)


def _compiled_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad[:2]
    found = _gradients(g, *ctx.saved_tensors, *ctx.options, *needs)
    return *_wanted(found, needs), None, None, None


_convolve.register_autograd(_compiled_backward, setup_context=_compiled_context)
