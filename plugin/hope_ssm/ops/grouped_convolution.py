"""The FFT convolution and its two gradients on a CPU, a few features at a time, so that spectra stay in the cache.

All at once, the padded inputs and three spectra are ten times the input, and most of the time is spent on moving them
and on fresh pages of memory. Axes: B batch, C channels, H features, L steps, K lags, N points of the FFT.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hope_ssm.checks import log_once
from hope_ssm.ops.fresh_memory import keep_small_blocks, on_huge_pages, short_of_memory
from hope_ssm.ops.workers import for_each
from hope_ssm.precision import working_dtype

# Of the padded inputs of one group. Its spectrum and its outputs take as much again, each: together about the second
# level cache of a core and its share of the third. Half and twice as much differ by less than a tenth.
GROUP_BYTES = 1 << 20
# A transform plans itself at every call, at the price of about four rows; one row alone costs as much as three.
LEAST_ROWS = 2
# Features and steps brought from one order in memory to the other at once: whole cache lines, few enough to stay near.
LINE_BYTES = 64
TILE_STEPS = 4096

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
    """N such that neither the outputs nor a gradient wraps around.

    Args:
        length: L.
        lags: K.
        ahead: number of negative lags.

    Returns:
        N, a length with a fast FFT.
    """
    return fft_length(least_points(length, lags, ahead))


def least_points(length: int, lags: int, ahead: int) -> int:
    """The fewest points that do; arguments as for ``points``."""
    return max(length + ahead, length + lags - 1 - ahead, lags)


@dataclass(frozen=True)
class Groups:
    """How B sequences of H features are divided: blocks of features for threads, in each groups that fit a cache."""

    batch: int
    features: int
    in_batch: int
    in_features: int
    in_block: int

    @classmethod
    def of(cls, u: Tensor, channels: int, size: int, dtype: torch.dtype, budget: int | None = None) -> Groups:
        """Return the groups of one convolution.

        Args:
            u: (B, H, L).
            channels: C.
            size: N.
            dtype: the precision of the computation.
            budget: bytes of a group; None means ``GROUP_BYTES``.
        """
        batch, features, _ = u.shape
        rows = max(LEAST_ROWS, (GROUP_BYTES if budget is None else budget) // (channels * size * dtype.itemsize))
        share = -(-features // torch.get_num_threads())
        in_block = max(1, min(share, LINE_BYTES // u.dtype.itemsize if steps_first(u) else rows))
        in_features = min(in_block, rows)
        return cls(batch, features, max(1, min(batch, rows // in_block)), in_features, in_block)

    def blocks(self) -> list[slice]:
        """Features of a block."""
        return _slices(self.features, self.in_block)

    def groups(self, block: slice) -> list[slice]:
        """Features of a group, counted in the block."""
        return _slices(min(block.stop, self.features) - block.start, self.in_features)

    def rows(self) -> list[slice]:
        """Sequences of a group."""
        return _slices(self.batch, self.in_batch)


def _slices(count: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def steps_first(x: Tensor) -> bool:
    """Whether x (…, H, L) lies in memory as (…, L, H)."""
    return x.stride(-1) != 1 and x.stride(-2) == 1


def in_order(x: Tensor, features_next: bool) -> Tensor:
    """Return x (B, …, L), in memory (B, L, …) if ``features_next``."""
    return x.movedim(-1, 1).contiguous().movedim(1, -1) if features_next else x.contiguous()


def empty_output(u: Tensor, channels: int, features_next: bool) -> Tensor:
    """(B, C, H, L) for u (B, H, L); in memory (B, L, C, H) if ``features_next``."""
    batch, features, length = u.shape
    if features_next:
        return u.new_empty(batch, length, channels, features).permute(0, 2, 3, 1)
    return u.new_empty(batch, channels, features, length)


def empty_input(u: Tensor, features_next: bool) -> Tensor:
    """Like u (B, H, L); in memory (B, L, H) if ``features_next``."""
    return empty_output(u, 1, features_next)[:, 0]


class _Padded:
    """Room for sequences (b, …, H, L), followed by zeros and with ``ahead`` of them before; used again and again."""

    def __init__(self, x: Tensor, rows: int, size: int, dtype: torch.dtype, ahead: int = 0) -> None:
        self.x, self.ahead, length = x, ahead, x.shape[-1]
        self.room = torch.zeros(min(rows, len(x)), *x.shape[1:-1], size, dtype=dtype)
        self.tile: Tensor | None = None
        if steps_first(x):
            self.tile = x.new_empty(min(rows, len(x)), *x.shape[1:-2], min(TILE_STEPS, length), x.shape[-2])

    def __call__(self, rows: slice) -> Tensor:
        """Bring these sequences in, the steps of a feature side by side. The result is valid until the next call."""
        x = self.x[rows]
        room, length = self.room[: len(x)], x.shape[-1]
        if self.tile is None:
            room[..., self.ahead : self.ahead + length] = x
            return room
        for steps in _slices(length, TILE_STEPS):  # by way of a tile: its lines do not displace each other in the cache
            tile = self.tile[: len(x), ..., : steps.stop - steps.start, :]
            tile.copy_(x[..., steps].transpose(-1, -2))
            room[..., self.ahead + steps.start : self.ahead + steps.stop] = tile.transpose(-1, -2)
        return room


def convolve(u: Tensor, k: Tensor, ahead: int, features_next: bool, spectrum: Tensor | None = None) -> Tensor:
    """y_t = Σ_j k_j u_{t+a-j}.

    Args:
        u: (B, H, L) real, in any order in memory.
        k: (C, H, K) real.
        ahead: a.
        features_next: see ``empty_output``.
        spectrum: of k, (C, H, N/2 + 1), if it is known.

    Returns:
        (B, C, H, L) in the dtype of u, computed in that of u and k, float32 at least.
    """
    length, size, dtype = u.shape[-1], points(u.shape[-1], k.shape[-1], ahead), working_dtype(u, k)
    y = on_huge_pages(empty_output(u, len(k), features_next))

    def run(groups: Groups) -> None:
        def block(features: slice) -> None:
            inputs, outputs = _Padded(u[:, features], groups.in_batch, size, dtype), y[:, :, features]
            kernels = torch.fft.rfft(k[:, features].to(dtype), n=size) if spectrum is None else spectrum[:, features]
            for rows in groups.rows():
                padded = inputs(rows)
                for inside in groups.groups(features):
                    product = torch.fft.rfft(padded[:, inside]).unsqueeze(1)
                    kernel = kernels[:, inside]
                    product = product.mul_(kernel) if len(k) == 1 else product * kernel
                    outputs[rows, :, inside] = torch.fft.irfft(product, n=size)[..., ahead : ahead + length]

        for_each(block, groups.blocks())

    _in_memory(run, u, len(k), size, dtype)
    return y


def gradients(
    g: Tensor, u: Tensor, k: Tensor, ahead: int, features_next: bool, of_input: bool, of_kernel: bool
) -> tuple[Tensor, Tensor]:
    """The gradients of Σ g y, y = ``convolve(u, k)``: by u, Σ_{c,t} g_t k_{t+a-s}, and by k, Σ_{b,t} g_t u_{t+a-j}.

    Args:
        g: (B, C, H, L).
        u: as for ``convolve``.
        k: as for ``convolve``.
        ahead: as for ``convolve``.
        features_next: as for ``convolve``.
        of_input: whether to compute the first.
        of_kernel: whether to compute the second.

    Returns:
        (B, H, L) in the dtype of u and (C, H, K) in that of k; empty if not computed.
    """
    length, lags, dtype = u.shape[-1], k.shape[-1], working_dtype(u, k)
    size = points(length, lags, ahead)
    by_u = on_huge_pages(empty_input(u, features_next)) if of_input else u.new_empty(0)
    by_k = k.new_zeros(k.shape) if of_kernel else k.new_empty(0)

    def run(groups: Groups) -> None:
        def block(features: slice) -> None:
            weights = _Padded(g[:, :, features], groups.in_batch, size, dtype, ahead)
            inside_block = groups.groups(features)
            if of_input:
                kernels = torch.fft.rfft(k[:, features].to(dtype), n=size).conj_physical_()
            if of_kernel:
                inputs = _Padded(u[:, features], groups.in_batch, size, dtype)
                moments = torch.zeros(len(k), weights.room.shape[2], size // 2 + 1, dtype=dtype.to_complex())
            for rows in groups.rows():
                padded = weights(rows)
                spectra = [torch.fft.rfft(padded[:, :, inside]) for inside in inside_block]
                if of_input:
                    for inside, spectrum in zip(inside_block, spectra, strict=True):
                        product = spectrum * kernels[:, inside]
                        product = product.squeeze(1) if len(k) == 1 else product.sum(1)
                        by_u[rows, features][:, inside] = torch.fft.irfft(product, n=size)[..., :length]
                if of_kernel:
                    padded = inputs(rows)
                    for inside, spectrum in zip(inside_block, spectra, strict=True):
                        others = torch.fft.rfft(padded[:, inside]).unsqueeze(1)
                        for weight, other in zip(spectrum.conj_physical_(), others, strict=True):
                            moments[:, inside].addcmul_(weight, other)
            if of_kernel:
                by_k[:, features] = torch.fft.irfft(moments.conj_physical_(), n=size)[..., :lags]

        for_each(block, groups.blocks())

    _in_memory(run, u, len(k), size, dtype)
    return by_u, by_k


def _in_memory(run: Callable[[Groups], None], u: Tensor, channels: int, size: int, dtype: torch.dtype) -> None:
    """Run with groups of the usual size, and row by row where these do not fit into memory."""
    keep_small_blocks()
    try:
        run(Groups.of(u, channels, size, dtype))
    except RuntimeError as error:
        if not short_of_memory(error):
            raise
        log_once(
            _logger, logging.WARNING, f"a group of the convolution must fit into memory; got {error}. Row by row now."
        )
        run(Groups.of(u, channels, size, dtype, budget=0))
