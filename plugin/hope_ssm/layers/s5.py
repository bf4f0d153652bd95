"""S5: one diagonal state space for all features together. Axes: B batch, L steps, H features, p = n/2 modes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hope_ssm.checks import check_positive_integer
from hope_ssm.kernels.hippo import legs, normal_modes
from hope_ssm.layers.essm import OneModeKernel
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.shared_state import SharedState, SharedStateLayer, slow_rates

RATE = 0.001  # the published learning rate of Λ, Δ and B, or near it
REAL, IMAGINARY, NOTHING = (0.5, 0.0), (0.0, -0.5), (0.0, 0.0)


class ComplexSharedState(SharedState):
    """y = 2 Re C x + D ⊙ u with complex B and C and complex modes, in real numbers.

    B has the rows of Re B and then those of Im B, (1, 2p, H), and C the columns of Re C and Im C for each direction,
    (1, H, 2p) or (1, H, 4p). Every row of B has the real and the imaginary part of its mode's response as channels, so
    the systems' outputs are (Re κ ∗ Re Bu, Re κ ∗ Im Bu, Im κ ∗ Re Bu, Im κ ∗ Im Bu) for each direction.
    """

    def output_matrix(self) -> Tensor:
        """(Re C, -Im C, -Im C, -Re C) for each direction, (1, H, 4p) or (1, H, 8p)."""
        directions = self.C.shape[-1] // self.B.shape[1]
        parts = self.C.chunk(2 * directions, dim=-1)
        return torch.cat([x for r, i in zip(parts[::2], parts[1::2], strict=True) for x in (r, -i, -i, -r)], dim=-1)


class S5(SharedStateLayer):
    """z ⊙ σ(W₂ z + b)  with  z = drop(gelu(y)),  y = 2 Re C x + D ⊙ u,  x_t = Λ̄ x_{t-1} + Λ⁻¹(Λ̄ - 1) B u_t.

    All features drive one state of n real numbers, p = n/2 complex modes with their conjugates, and all of them read
    it: B (p, H) and C (H, p) are complex, Λ̄ = e^{ΔΛ}, and every mode has its own Δ. At the start Λ is ``blocks`` times
    the spectrum of the normal part of HiPPO-LegS; B is V* times normal numbers of variance 1/H, C normal ones of
    variance 1/n times V, with V the eigenvectors of a block; Δ is log-uniform.

    Instead of the parallel scan of the paper the modes are convolved, 2p of them: the same sums, with the chunks,
    lengths, filters and exports of every other layer. The state of ``step`` holds the responses to Re Bu and Im Bu side
    by side, 2p complex numbers.

    Args:
        d_model: H.
        d_state: n, a multiple of 2·blocks.
        blocks: how many copies Λ begins with.
        bidirectional: whether a second C reads the same system run backwards from the end of each sequence.
        dropout: see ``make_dropout``; on gelu's outputs.
        tie_dropout: see there.
        dt_min: least initial Δ; None means 0.001.
        dt_max: greatest initial Δ; None means 0.1.
        dt_transform: see ``SequenceKernel``; None means ``"exp"``.
        lr: learning rates with the keys dt, A and B, or one number; a missing or null key means 0.001.
        wd: weight decays, likewise; C has the optimizer's.
        l_max: cut the responses at this length; None: as long as the input.
        drop_kernel: dropout on the samples of the responses.
        convolution: see ``FFTConvolution``.
        frequency_filter: see ``FFTConvolution``.
        input_memory: see ``S4Block``.
        deterministic: no random Δ.
        verbose: whether to log options that have no effect.
        **idle: options of the S4 block and of its kernels, such as kernel=s4d writes; they have no effect.

    Raises:
        TypeError, ValueError: sizes below 1, blocks that do not divide the modes, an option that no layer has.

    Source: Smith, Warrington, Linderman, "Simplified State Space Layers for Sequence Modeling", ICLR 2023
    (arXiv 2208.04933). That Re Λ stays below -1e-4 is its option ``clip_eigs``, always on here.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        blocks: int = 1,
        bidirectional: bool = False,
        dropout: float | None = 0.0,
        tie_dropout: bool | None = False,
        dt_min: float | None = None,
        dt_max: float | None = None,
        dt_transform: str | None = None,
        lr: float | Mapping[str, float | None] | None = None,
        wd: float | Mapping[str, float | None] | None = 0.0,
        l_max: int | None = None,
        drop_kernel: float = 0.0,
        convolution: str = "auto",
        frequency_filter: Mapping[str, float | None] | None = None,
        input_memory: Mapping[str, Any] | None = None,
        deterministic: bool = False,
        verbose: bool = True,
        **idle: Any,
    ) -> None:
        check_positive_integer("d_model", d_model)
        n, blocks = check_positive_integer("d_state", d_state), check_positive_integer("blocks", blocks)
        if n % (2 * blocks):
            raise ValueError(f"d_state must be a multiple of 2·blocks={2 * blocks}; got {n}.")
        self.check_idle("s5", idle, verbose)
        lr = slow_rates(lr, RATE)
        both = (REAL, IMAGINARY)
        systems = FFTConvolution(
            n, OneModeKernel, heads=blocks, copies=2, channels=4 if bidirectional else 2, bidirectional=bidirectional,
            parts=(*both, NOTHING, NOTHING, NOTHING, NOTHING, *both) if bidirectional else both, reverse_lag=0,
            feedthrough=False, dt_min=dt_min, dt_max=dt_max, dt_transform=dt_transform or "exp", lr=lr, wd=wd,
            l_max=l_max, drop_kernel=drop_kernel, convolution=convolution, frequency_filter=frequency_filter,
            deterministic=deterministic, verbose=verbose,
        )  # fmt: skip
        A, _, P = legs(n // blocks)
        modes = torch.as_tensor(normal_modes(A, P)[1].conj())  # V* (p/blocks, n/blocks) of the poles with Im Λ ≤ 0
        draws = torch.randn(blocks, n // blocks, d_model, dtype=torch.float64) / math.sqrt(d_model)
        B = (modes @ draws.to(modes.dtype)).flatten(0, 1)
        B = torch.cat([B.real, B.imag]).unsqueeze(0)
        C = torch.cat([self._read(modes, blocks, d_model) for _ in range(1 + bidirectional)], dim=-1).unsqueeze(0)
        B, C = (part.to(torch.get_default_dtype()) for part in (B, C))
        super().__init__(
            ComplexSharedState(systems, B, C, gain=2, lr=lr, wd=wd), d_model, dropout=dropout,
            tie_dropout=tie_dropout, input_memory=input_memory,
        )  # fmt: skip

    @staticmethod
    def _read(modes: Tensor, blocks: int, d_model: int) -> Tensor:
        """(Re C, Im C) at the start, (H, 2p)."""
        size = modes.shape[-1]
        draws = torch.randn(d_model, blocks, size, dtype=torch.float64) / math.sqrt(blocks * size)
        C = (draws.to(modes.dtype) @ modes.mH).flatten(1)
        return torch.cat([C.real, C.imag], dim=-1)
