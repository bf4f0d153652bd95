"""HOPE in a share of the features, chains of complex all-pass filters in the others."""

import math
from typing import Optional

import torch
import torch.nn.functional as F

from .hope import HOPEKernel


class HOPEBandsKernel(HOPEKernel):
    """SSM kernel with memory at any frequency.

    The first features are HOPE, which delays the frequency theta by N / sin(theta) steps at
    most. Each of the last F features has G bands of M = N / 2G complex states around a
    frequency w, with the down-shift S and a = (dt - 1) / (dt + 1)
        A = exp(iw) (S - aI) (I - aS)^{-1},  B = (1 - a^2)^{1/2} (I - aS)^{-1} e_0
    and y = Re C x. They have norm(A) = 1 and orthonormal states, and delay theta by up to
    M / sin(theta - w) steps. A and B are series in S as in HOPE; exp(iw) is put on last.

    d_state (N): Number of real states.
    bands (G): 2G must divide N. None means the most of 1 to 8.
    banded_share: Share of the features that have bands. There must be some of both kinds.
    band_width: Initial dt of a band relative to the distance of the bands.
    band_scale: Initial root mean square of the norm of C.
    n_ssm: Number of independent dt (and w) in each kind of features.

    `lr` and `wd` have the keys 'C' for h and C, 'dt', and 'frequency' (or 'A').
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        bands: Optional[int] = None,
        banded_share: float = 0.5,
        band_width: float = 0.15,
        band_scale: float = 2.0,
        horizon: Optional[int] = None,
        n_ssm: Optional[int] = None,
        deterministic: bool = False,
        **kwargs,
    ):
        banded = math.floor(banded_share * d_model + 0.5)
        assert 0 < banded < d_model, "banded_share must leave features of both kinds"
        plain = d_model - banded
        super().__init__(
            d_model=plain,
            d_state=d_state,
            horizon=horizon,
            n_ssm=min(n_ssm or plain, plain),
            deterministic=deterministic,
            **kwargs,
        )
        self.d_model = d_model  # H is the number of features that are HOPE
        self.F = banded
        if bands is None:
            bands = max(g for g in range(1, 9) if d_state % (2 * g) == 0)
        assert d_state % (2 * bands) == 0, "2 * bands must divide d_state"
        self.G = bands

        # Initialize C (C F G M 2)
        shape = (self.channels, self.F, self.G, self.N // (2 * self.G), 2)
        if deterministic:
            C = torch.zeros(shape)
            C[..., 0, 0] = band_scale / self.G**0.5
        else:
            C = torch.randn(shape) * (band_scale / self.N**0.5)
        self._register("C", C, "C")

        # Initialize dt, w (n_ssm G): neighboring bands from frequency 0 on, as many as
        # fill a window between half of the horizon and the horizon
        n_ssm = min(n_ssm or self.F, self.F)
        assert self.F % n_ssm == 0, "n_ssm must divide both numbers of features"
        if not isinstance(horizon, int):
            horizon = self.l_max or 512
        random = torch.rand(2, n_ssm, 1, dtype=torch.float64)
        pos, offset = torch.full_like(random, 0.5) if deterministic else random
        pos = (torch.arange(n_ssm, dtype=torch.float64).unsqueeze(-1) + pos) / n_ssm
        window = horizon / 2 * 2**pos
        distance = (math.pi / self.G * self.N / window).clamp(max=math.pi / self.G)
        w = (torch.arange(self.G, dtype=torch.float64) + offset) * distance
        dt = (band_width * distance).expand(-1, self.G)
        self._register("raw_band_sampling_period", self._inverse(dt), "dt")
        self._register("frequency", w, "frequency", "A")

    def _get_band_params(self, rate=1.0):
        """Returns: C (C F G M), and in float64 dt, w, a, B_0 (F G), powers of a (F G M)"""
        C = self.C.to(torch.promote_types(self.C.dtype, torch.float32))
        C = torch.view_as_complex(C.contiguous())
        dt = self._transform(self.raw_band_sampling_period).double()
        dt = dt.repeat(self.F // dt.size(0), 1)
        w = self.frequency.double().repeat(self.F // self.frequency.size(0), 1) * rate
        B_0 = 2 * dt.sqrt() / (1 + dt)
        dt = dt * rate
        new_B_0 = 2 * dt.sqrt() / (1 + dt)
        C = C * (new_B_0 / B_0).unsqueeze(-1).to(C.real)  # Keep the gain at w
        a = (dt - 1) / (dt + 1)
        powers = a.unsqueeze(-1) ** torch.arange(C.size(-1), device=a.device)
        return C, dt, w, a, new_B_0, powers

    def _wave(self, w, L, stride=1):
        """exp(iwt) (F G L 1) for t = 0, stride, 2 stride, ..."""
        angle = w.unsqueeze(-1) * (stride * torch.arange(L, device=w.device))
        return torch.polar(torch.ones_like(angle), angle).unsqueeze(-1)

    def _band_blocks(self, w, a, B_0, powers, L, dtype):
        """As _blocks, v with exp(iw)

        Also returns: exp(iw) of the blocks, FFTs of A, A^2, ...
        """
        all_q_f = self._powers(a, (B_0**2).unsqueeze(-1) * powers, L)
        v, q_f, n_blocks = self._blocks(powers, all_q_f, L, dtype)
        M = v.size(-2)
        cdtype = torch.promote_types(dtype, torch.complex32)
        v = v * self._wave(w, M).to(cdtype)
        return v, q_f, n_blocks, self._wave(w, n_blocks, M).to(cdtype), all_q_f

    def _real(self, f, *args):
        """Apply a real linear map to complex x, args[0]"""
        x, *args = args
        return torch.complex(f(x.real, *args), f(x.imag, *args))

    def _split(self, state):
        """state: (B H+F N). Returns: (B H N), complex (B F G M)"""
        state, z = state.split([self.H, self.F], dim=1)
        re, im = z.reshape(*z.shape[:-1], 2, self.G, -1).double().unbind(-3)
        return state, torch.complex(re, im)

    def _join(self, state, z):
        z = torch.stack([z.real, z.imag], dim=-3).flatten(-3)
        return torch.cat([state, z.to(state)], dim=1)

    def forward(self, L=None, rate=1.0, state=None):
        """
        state: (B H+F N) initial state
        rate: sampling rate factor

        Returns: (C H+F L) convolution kernel, (B C H+F L) output from initial state
        """
        L = self.L if L is None else L
        if state is not None:
            state, z = self._split(state)
        k, k_state = super().forward(L=L, rate=rate, state=state)
        C, dt, w, a, B_0, powers = self._get_band_params(rate)
        with torch.autocast(C.device.type, enabled=False):
            v, q_f, n_blocks, wave, all_q_f = self._band_blocks(
                w, a, B_0, powers, L, C.real.dtype
            )
            # C A^t x = (T(x)^T C, v_t) up to factors of I - aS
            x = (B_0.unsqueeze(-1).to(C.real) * C).unsqueeze(0)
            if state is not None:
                z = self._real(lambda s: self._multiply(all_q_f[0], s), z)
                z = z * self._wave(w, 2)[..., 1, :]
                z = z - a.unsqueeze(-1) * F.pad(z, (1, -1))
                f = torch.fft.fft(z.conj(), n=2 * z.size(-1)).conj().unsqueeze(1)
                z = torch.fft.ifft(f * torch.fft.fft(C.to(z), n=2 * z.size(-1)))
                x = torch.cat([x, z[..., : C.size(-1)].to(C)])
            x = self._real(self._to_blocks, x.unsqueeze(-2), q_f, n_blocks)
            x = x * wave  # (B C F G n_blocks M)
            y = torch.einsum("bcfgjm,fgim->bcfji", x, v).real.flatten(-2)[..., :L]
        k = torch.cat([k, y[0]], dim=-2)
        return k, None if state is None else torch.cat([k_state, y[1:]], dim=-2)

    def forward_state(self, u, state):
        """
        u: (B H+F L)
        state: (B H+F N)

        Returns: (B H+F N) state after u
        """
        L = u.size(-1)
        state, z = self._split(state)
        state = super().forward_state(u[:, : self.H], state)
        C, dt, w, a, B_0, powers = self._get_band_params()
        with torch.autocast(u.device.type, enabled=False):
            v, q_f, n_blocks, wave, all_q_f = self._band_blocks(
                w, a, B_0, powers, L, C.real.dtype
            )
            u = F.pad(u[:, self.H :].flip(-1), (0, -L % v.size(-2)))
            u = u.reshape(*u.shape[:-1], n_blocks, -1).to(v)
            x = torch.einsum("bfji,fgim->bfgjm", u, v) * wave
            x = self._real(self._from_blocks, x, q_f)
            z = (
                self._real(self._advance, z, all_q_f, L)
                * self._wave(w * L, 2)[..., 1, :]
            )
        return self._join(state, z + B_0.unsqueeze(-1) * x)

    @torch.no_grad()
    def _setup_step(self, **kwargs):
        """Set up dense (A, B, C) of the bands, A in float64 because its norm is 1"""
        super()._setup_step(**kwargs)
        self.zC, dt, w, a, B_0, powers = self._get_band_params()
        M = powers.size(-1)
        q = (B_0**2).unsqueeze(-1) * powers[..., :-1]
        q = torch.cat([-a.unsqueeze(-1), q], dim=-1)
        columns = [F.pad(q, (m, 0))[..., :M] for m in range(M)]
        self.zA = torch.stack(columns, dim=-1) * self._wave(w, 2)[..., 1:, :]
        self.zB = B_0.unsqueeze(-1) * powers

    def step(self, u, state):
        """Must have called self._setup_step().

        u: (B H+F)
        state: (B H+F N)

        Returns: (B C H+F), (B H+F N)
        """
        state, z = self._split(state)
        y, state = super().step(u[:, : self.H], state)
        z = torch.einsum("fgmn,bfgn->bfgm", self.zA, z)
        z = z + self.zB * u[:, self.H :, None, None]
        z_y = torch.einsum("cfgm,bfgm->bcf", self.zC.to(z), z).real
        return torch.cat([y, z_y.to(y)], dim=-1), self._join(state, z)

    def default_state(self, *batch_shape):
        h = self.markov_parameters
        return h.new_zeros(*batch_shape, self.d_model, self.N)

    @property
    def d_state(self):
        return self.d_model * self.N
