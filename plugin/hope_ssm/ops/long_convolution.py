"""Convolution of a sequence with a kernel as long as itself: y_t = Σ_j k_j u_{t+a-j}, by FFT without wrap-around.

Axes: B batch, C channels, H features, L steps, K lags.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hope_ssm.checks import check_choice
from hope_ssm.ops import grouped_convolution as grouped
from hope_ssm.ops import native_build
from hope_ssm.ops import native_convolution as native
from hope_ssm.ops.convolution_derivatives import as_a_whole, in_groups
from hope_ssm.ops.transforms import forward_mode, into_onnx, largest, recorded, transformed
from hope_ssm.precision import working_dtype

MODES = ("auto", "native", "grouped", "whole", "plain")
# Outputs from which a training step is faster in groups, in memory that is not kept (docs/speed.md).
SMALL = 1 << 23


def long_convolution(
    u: Tensor, k: Tensor, *, ahead: int = 0, mode: str = "auto", spectrum: Tensor | None = None
) -> Tensor:
    """y_t = Σ_j k_j u_{t+a-j}: k holds the lags -a, …, K - 1 - a, and u is 0 outside its L steps.

    ``"plain"`` is three lines; its output has the order in memory that the inverse transform leaves. The others, on a
    CPU, hand on the order of the input, in which the pointwise parts that follow are faster. ``"whole"`` has a backward
    pass of its own, which uses the transforms of the forward pass again, where torch's derivative of a real transform
    is a complex one of twice the work. ``"grouped"`` computes a few features at a time, so that the spectra stay in the
    cache of a core, on several cores side by side, and keeps nothing for the backward pass but u and k, whose
    transforms it computes again. ``"native"`` does the same in C++, a vector of adjacent features at a time; it is
    compiled when it is first used (``native_build``). ``"auto"`` is ``"native"`` where there is a compiler, and without
    one ``"grouped"`` from ``SMALL`` outputs on and ``"whole"`` below. On other devices, and in exported graphs, which
    must not need this package, it is ``"plain"``.

    Args:
        u: (B, H, L) real, in any order in memory: (B, L, H).transpose(1, 2) is as good, and y then has that order too.
        k: (C, H, K) real.
        ahead: a, at least 0 and below L and K: the number of negative lags.
        mode: one of ``MODES``.
        spectrum: what ``kernel_spectrum`` gave for the same k, mode and shape of u, to be used without gradients.

    Returns:
        (B, C, H, L) in the dtype of u; computed in the common dtype of u and k, float32 at least.

    Raises:
        ValueError: an unknown mode, shapes that do not fit, a mode for CPUs on another device.
        RuntimeError: ``"native"`` without a compiler that works.
    """
    _check(u, k, ahead, mode)
    mode = _resolved(u, k, mode)
    features_next = grouped.steps_first(u)
    if mode in ("native", "grouped"):
        if spectrum is not None:
            return (native if mode == "native" else grouped).convolve(u, k, ahead, features_next, spectrum)
        return in_groups(u, k, ahead, features_next, mode == "native")
    if mode == "whole" and spectrum is None:
        return as_a_whole(u, k, ahead, features_next)
    y = plain_convolution(u, k, ahead, spectrum, _points(u, k, ahead, mode))
    # pointwise parts that follow are slow where gradients and values lie in two orders
    return grouped.in_order(y, features_next) if mode == "whole" else y


def plain_convolution(
    u: Tensor, k: Tensor, ahead: int = 0, spectrum: Tensor | None = None, size: int | None = None
) -> Tensor:
    """The definition by three transforms.

    Args:
        u: as for ``long_convolution``.
        k: as for ``long_convolution``.
        ahead: as for ``long_convolution``.
        spectrum: as for ``long_convolution``.
        size: N, points of the transforms; None means the fewest without wrap-around.

    Returns:
        As ``long_convolution``.
    """
    length, dtype, size = u.shape[-1], working_dtype(u, k), size or _points(u, k, ahead, "plain")
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
        (C, H, N/2 + 1) complex; of ``"native"`` what its library wants.
    """
    mode = _resolved(u, k, mode)
    if mode == "native":
        return native.kernel_spectrum(u, k, ahead)
    return torch.fft.rfft(k.to(working_dtype(u, k)), n=_points(u, k, ahead, mode))


def _points(u: Tensor, k: Tensor, ahead: int, mode: str) -> int:
    if mode != "plain":
        return grouped.points(u.shape[-1], k.shape[-1], ahead)
    size = u.shape[-1] + max(ahead, k.shape[-1] - ahead)
    if into_onnx():  # a power of 2 is exact and fast in its runtime, which confuses sizes that depend on the length
        size = 1 << (largest(size) - 1).bit_length()
    return size


def check_mode(option: str, mode: str) -> str:
    """Return ``mode`` if it is one of ``MODES`` that can compute here; raise as ``long_convolution`` does otherwise."""
    if check_choice(option, mode, MODES) == "native" and not native_build.available():
        native_build.load()  # raises, with the reason
    return mode


def _check(u: Tensor, k: Tensor, ahead: int, mode: str) -> None:
    check_mode("mode", mode)
    if u.ndim != 3 or k.ndim != 3 or u.shape[1] != k.shape[1]:
        raise ValueError(
            f"u and k must have shapes (B, H, L) and (C, H, K) with one H; got {tuple(u.shape)} and {tuple(k.shape)}."
        )
    if not 0 <= ahead < min(k.shape[-1], u.shape[-1]):
        raise ValueError(
            f"ahead must be at least 0 and below L and K; got {ahead} with L={u.shape[-1]}, K={k.shape[-1]}."
        )
    if mode in ("native", "grouped", "whole") and u.device.type not in ("cpu", "meta"):
        raise ValueError(f"mode={mode!r} must compute on a CPU; got {u.device.type}. mode='auto' computes everywhere.")


def _resolved(u: Tensor, k: Tensor, mode: str) -> str:
    """The mode that computes: ``"auto"`` decided, and what has a backward pass of its own only where it can be used."""
    if mode == "auto":
        small = not torch.compiler.is_compiling() and u.numel() * k.shape[0] < SMALL
        exporting = getattr(torch.compiler, "is_exporting", lambda: False)() or torch.jit.is_tracing()
        if u.device.type != "cpu" or exporting or forward_mode():
            return "plain"
        mode = "native" if native_build.available() else "whole" if small else "grouped"
    return "plain" if mode == "whole" and (recorded() or transformed()) else mode
