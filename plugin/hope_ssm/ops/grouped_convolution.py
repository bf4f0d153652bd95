"""The FFT convolution and its two gradients on a CPU, a few features at a time, so that spectra stay in the cache.

All at once, the padded inputs and three spectra are ten times the input, and most of the time is spent on moving them
and on fresh pages of memory. Axes: B batch, C channels, H features, L steps, K lags, N points of the FFT.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hope_ssm.checks import log_once
from hope_ssm.ops.workers import for_each
from hope_ssm.precision import working_dtype

# Of the padded inputs of one group. Its spectrum and its outputs take as much again, each: together about the second
# level cache of a core and its share of the third. Half and twice as much cost a tenth more.
GROUP_BYTES = 1 << 20
# Features that are brought from steps-first to features-first order at once: whole cache lines.
LINE_BYTES = 64

_logger = logging.getLogger("hope_ssm.ops")


def fft_length(minimum: int) -> int:
    """The smallest even 2ᵃ 3ᵇ 5ᶜ that is at least ``minimum``: lengths that every FFT library is fast at."""
    best = 1 << max(1, (minimum - 1).bit_length())
    power_of_5 = 1
    while power_of_5 < best:
        odd = power_of_5
        while odd < best:
            doublings = max(1, (-(-minimum // odd) - 1).bit_length())
            best = min(best, odd << doublings)
            odd *= 3
        power_of_5 *= 5
    return best


def points(length: int, lags: int, ahead: int) -> int:
    """N such that neither the outputs nor a gradient wraps around.  Args: L, K, number of negative lags."""
    return fft_length(max(length + ahead, length + lags - 1 - ahead, lags))


@dataclass(frozen=True)
class Groups:
    """How B sequences of H features are divided: blocks of features, one a thread, of groups that fit into the cache."""

    batch: int
    features: int
    in_batch: int
    in_features: int
    in_block: int

    @classmethod
    def of(cls, u: Tensor, channels: int, size: int, dtype: torch.dtype, budget: int | None = None) -> Groups:
        """Args: u (B, H, L); C; N; the precision of the computation; bytes of a group, None for the usual."""
        batch, features, _ = u.shape
        rows = max(1, (GROUP_BYTES if budget is None else budget) // (channels * size * dtype.itemsize))
        in_batch = max(1, min(batch, rows))
        in_features = max(1, min(features, rows // in_batch))
        line = 1 if u.stride(2) == 1 else LINE_BYTES // u.dtype.itemsize
        return cls(batch, features, in_batch, in_features, -(-line // in_features) * in_features)

    def blocks(self) -> list[slice]:
        """Features of a block."""
        return _slices(self.features, self.in_block)

    def groups(self, block: slice) -> Iterator[tuple[slice, slice]]:
        """Features of a group: counted in all, and in the block."""
        for inside in _slices(min(block.stop, self.features) - block.start, self.in_features):
            yield slice(block.start + inside.start, block.start + inside.stop), inside

    def rows(self) -> list[slice]:
        """Sequences of a group."""
        return _slices(self.batch, self.in_batch)


def _slices(count: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def steps_first(x: Tensor) -> bool:
    """Whether x (…, H, L) lies in memory as (…, L, H)."""
    return x.stride(-1) != 1 and x.stride(-2) == 1


def empty_output(u: Tensor, channels: int, features_next: bool) -> Tensor:
    """(B, C, H, L) for u (B, H, L); in memory (B, L, C, H) if ``features_next``."""
    batch, features, length = u.shape
    if features_next:
        return u.new_empty(batch, length, channels, features).permute(0, 2, 3, 1)
    return u.new_empty(batch, channels, features, length)


def empty_input(u: Tensor, features_next: bool) -> Tensor:
    """Like u (B, H, L); in memory (B, L, H) if ``features_next``."""
    return empty_output(u, 1, features_next)[:, 0]


def convolve(u: Tensor, k: Tensor, ahead: int, features_next: bool) -> Tensor:
    """y_t = Σ_j k_j u_{t+a-j}.

    Args: u (B, H, L) real, in any order in memory; k (C, H, K) real; ahead: a; features_next: see ``empty_output``.
    Returns: (B, C, H, L) in the dtype of u, computed in that of u and k, float32 at least.
    """
    length, size, dtype = u.shape[-1], points(u.shape[-1], k.shape[-1], ahead), working_dtype(u, k)
    y = empty_output(u, len(k), features_next)

    def run(groups: Groups) -> None:
        def block(features: slice) -> None:
            inputs = u[:, features].to(dtype).contiguous()
            direct = not features_next and y.dtype == dtype
            outputs = y[:, :, features] if direct else inputs.new_empty(y[:, :, features].shape)
            for whole, inside in groups.groups(features):
                kernel = torch.fft.rfft(k[:, whole].to(dtype), n=size)
                for rows in groups.rows():
                    spectrum = torch.fft.rfft(inputs[rows, inside], n=size).unsqueeze(1)
                    spectrum = spectrum.mul_(kernel) if len(k) == 1 else spectrum * kernel
                    outputs[rows, :, inside] = torch.fft.irfft(spectrum, n=size)[..., ahead : ahead + length]
            if not direct:
                y[:, :, features] = outputs

        for_each(block, groups.blocks())

    _in_memory(run, u, len(k), size, dtype)
    return y


def gradients(
    g: Tensor, u: Tensor, k: Tensor, ahead: int, features_next: bool, of_input: bool, of_kernel: bool
) -> tuple[Tensor, Tensor]:
    """Of Σ g y, y = ``convolve(u, k)``: by u, Σ_{c,t} g_t k_{t+a-s}, and by k, Σ_{b,t} g_t u_{t+a-j}.

    Args: g (B, C, H, L); the others as in :func:`convolve`; of_input, of_kernel: whether to compute it.
    Returns: (B, H, L) in the dtype of u and (C, H, K) in that of k; empty if not computed.
    """
    length, lags, dtype = u.shape[-1], k.shape[-1], working_dtype(u, k)
    size = points(length, lags, ahead)
    by_u = empty_input(u, features_next) if of_input else u.new_empty(0)
    by_k = k.new_zeros(k.shape) if of_kernel else k.new_empty(0)

    def run(groups: Groups) -> None:
        def block(features: slice) -> None:
            weights = g[:, :, features].to(dtype).contiguous()
            inputs = u[:, features].to(dtype).contiguous() if of_kernel else None
            direct = not features_next and u.dtype == dtype
            found = by_u[:, features] if of_input and direct else weights.new_empty(u[:, features].shape)
            for whole, inside in groups.groups(features):
                kernel = torch.fft.rfft(k[:, whole].to(dtype), n=size).conj_physical_() if of_input else None
                total: Tensor | None = None
                for rows in groups.rows():
                    part = weights[rows, :, inside]
                    spectrum = torch.fft.rfft(torch.nn.functional.pad(part, (ahead, 0)) if ahead else part, n=size)
                    if kernel is not None:
                        product = spectrum * kernel
                        product = product.squeeze(1) if len(k) == 1 else product.sum(1)
                        found[rows, inside] = torch.fft.irfft(product, n=size)[..., :length]
                    if inputs is not None:
                        other = torch.fft.rfft(inputs[rows, inside], n=size).unsqueeze(1)
                        moments = spectrum.conj_physical_().mul_(other).sum(0)
                        total = moments if total is None else total.add_(moments)
                if total is not None:
                    by_k[:, whole] = torch.fft.irfft(total.conj_physical_(), n=size)[..., :lags]
            if of_input and not direct:
                by_u[:, features] = found

        for_each(block, groups.blocks())

    _in_memory(run, u, len(k), size, dtype)
    return by_u, by_k


def _in_memory(run: Callable[[Groups], None], u: Tensor, channels: int, size: int, dtype: torch.dtype) -> None:
    """Run with groups of the usual size, and row by row where these do not fit into memory."""
    try:
        run(Groups.of(u, channels, size, dtype))
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        log_once(
            _logger, logging.WARNING, f"a group of the convolution must fit into memory; got {error}. Row by row now."
        )
        run(Groups.of(u, channels, size, dtype, budget=0))
