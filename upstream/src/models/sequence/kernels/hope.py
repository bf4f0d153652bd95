"""HOPE: Hankel operator parameterization of state space models (arXiv 2405.13975)."""

import math
from typing import Mapping, Optional

import torch
import torch.nn.functional as F

from .kernel import Kernel


class HOPEKernel(Kernel):
    """SSM kernel parameterized by its Markov parameters h instead of (A, B, C).

    The transfer function is sum_j h_j P(z)^{j+1} with the all-pass filter
    P(z) = (z^{-1} + a) / (1 + a z^{-1}), a = (dt - 1) / (dt + 1).
    With S the (N N) down-shift, this is the SSM
        A = (S - aI) (I - aS)^{-1},  B = (1 - a^2) (I - aS)^{-1} e_0,  C = h^T (I - aS)^{-1}
    plus a feedthrough D = sum_j h_j a^{j+1}. It has norm(A) = 1 and a controllability
    Gramian (1 - a^2) I for all dt. Memory does not decay within N / dt steps.
    A, B, C are power series of length N in S: products with them are products of series.

    d_state (N): Number of Markov parameters and of real states.
    dt_min, dt_max: Range of the initial dt. If None, windows N / dt are log-uniform
        from half of `horizon` to 16 times it.
    horizon: Length of the longest sequence. Defaults to l_max.
    dt_transform: 'softplus' or 'exp'.
    n_ssm: Number of independent dt; must divide H. None means H. h is never tied.
    deterministic: Initialize without random numbers.
    init_scale: Initial root mean square of the norm of h.

    The keys of `lr` and `wd` are 'C' for h and 'dt'. As the C of S4(D), h has the global
    learning rate and weight decay by default.
    """

    def __init__(
        self,
        d_state: int = 64,
        dt_min: Optional[float] = None,
        dt_max: Optional[float] = None,
        horizon: Optional[int] = None,
        dt_transform: str = "softplus",
        n_ssm: Optional[int] = None,
        deterministic: bool = False,
        init_scale: float = 2.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.N = d_state
        self.n_ssm = n_ssm or self.H
        assert self.H % self.n_ssm == 0, "n_ssm must divide d_model"
        assert dt_transform in ("softplus", "exp")
        self.dt_transform = dt_transform

        # Initialize h (C H N)
        shape = (self.channels, self.H, self.N)
        if deterministic:
            h = torch.zeros(shape)
            h[..., 0] = init_scale
        else:
            h = torch.randn(shape) * (init_scale / self.N**0.5)

        # Initialize dt (n_ssm)
        if not isinstance(horizon, int):  # None, or the sizes of all axes (S4ND)
            horizon = self.l_max
        if horizon is None:
            lo, hi = 0.01, 0.3
        else:
            lo, hi = self.N / horizon / 16, self.N / horizon * 2
        lo = math.log(lo if dt_min is None else dt_min)
        hi = math.log(hi if dt_max is None else dt_max)
        if not deterministic:
            pos = torch.rand(self.n_ssm, dtype=torch.float64)
        elif self.n_ssm > 1:
            pos = torch.linspace(0, 1, self.n_ssm, dtype=torch.float64)
        else:
            pos = torch.tensor([0.5], dtype=torch.float64)
        dt = torch.exp(lo + pos * (hi - lo))
        self._register("markov_parameters", h, "C")
        self._register("raw_sampling_period", self._inverse(dt), "dt")

    def _register(self, name, x, *keys):
        """Register with the lr and wd under the first of the keys that is set"""
        optim = []
        for value in (self.lr, self.wd):
            if isinstance(value, Mapping):
                values = [value[k] for k in keys if value.get(k, None) is not None]
                value = values[0] if values else None
            elif "C" in keys:
                value = value or None  # A bare 0 means (A, B, dt), as for S4(D)
            optim.append(value)
        self.register(name, x.to(torch.get_default_dtype()), *optim)
        x = getattr(self, name)
        if getattr(x, "_optim", None) == {}:
            del x._optim  # All default: the global group, as for other parameters

    def _inverse(self, dt):
        exp = self.dt_transform == "exp"
        return dt.log() if exp else dt + torch.log(-torch.expm1(-dt))

    def _transform(self, dt):
        """Returns: positive dt, in float32 at least"""
        dt = dt.to(torch.promote_types(dt.dtype, torch.float32))
        return dt.exp() if self.dt_transform == "exp" else F.softplus(dt)

    def _get_params(self, rate=1.0):
        """Returns: h (C H N), and in float64 dt (H), a (H), powers of a (H N), B (H N)"""
        h = self.markov_parameters
        h = h.to(torch.promote_types(h.dtype, torch.float32))
        dt = self._transform(self.raw_sampling_period)
        dt = dt.repeat(self.H // self.n_ssm).double() * rate
        a = (dt - 1) / (dt + 1)
        powers = a.unsqueeze(-1) ** torch.arange(self.N, device=dt.device)
        B = (4 * dt / (1 + dt) ** 2).unsqueeze(-1) * powers
        return h, dt, a, powers, B

    def _fft(self, q):
        return torch.fft.rfft(q, n=2 * q.size(-1))

    def _multiply(self, q_f, x):
        """Product of the series q, x. Its transpose is the product with q_f.conj().

        q_f: (H N+1) FFT of q, x: (... H N)
        """
        N = x.size(-1)
        return torch.fft.irfft(q_f * self._fft(x), n=2 * N)[..., :N]

    def _powers(self, a, B, L):
        """FFTs of A, A^2, A^4, ... by repeated squaring: (H N+1) for every bit of L"""
        q = torch.cat([-a.unsqueeze(-1), B[..., :-1]], dim=-1)
        q_f = [self._fft(q)]
        while 2 ** len(q_f) <= L:
            q = self._multiply(q_f[-1], q)
            q_f.append(self._fft(q))
        return q_f

    def _blocks(self, powers, q_f, L, dtype):
        """Split time as t = j M + i: C A^t x = (x_j, v_i) with v_i = A^i v_0, i < M.

        Returns: v (H M N), FFTs of A^M, A^2M, ..., number of blocks
        """
        cdtype = torch.promote_types(dtype, torch.complex32)
        q_f = [q.to(cdtype).unsqueeze(-2) for q in q_f]
        m = ((L - 1).bit_length() + 1) // 2
        v = powers.to(dtype).unsqueeze(-2)
        for q in q_f[:m]:
            v = torch.cat([v, self._multiply(q, v)], dim=-2)
        n_blocks = -(-L // v.size(-2))
        return v, q_f[m : m + (n_blocks - 1).bit_length()], n_blocks

    def _advance(self, state, q_f, L):
        """Returns: A^L state"""
        for i, q in enumerate(q_f):
            if L >> i & 1:
                state = self._multiply(q, state)
        return state

    def _to_blocks(self, x, q_f, n_blocks):
        """x: (... H 1 N). Returns: (... H n_blocks N) with x_j = A^{jM}^T x"""
        for q in q_f:
            late = self._multiply(q.conj(), x[..., : n_blocks - x.size(-2), :])
            x = torch.cat([x, late], dim=-2)
        return x

    def _from_blocks(self, x, q_f):
        """x: (... H n_blocks N). Returns: (... H N) sum_j A^{jM} x_j"""
        for i, q in reversed(list(enumerate(q_f))):
            late = self._multiply(q, x[..., 2**i :, :])
            late = F.pad(late, (0, 0, 0, 2 ** (i + 1) - x.size(-2)))
            x = x[..., : 2**i, :] + late
        return x.squeeze(-2)

    def forward(self, L=None, rate=1.0, state=None):
        """
        state: (B H N) initial state
        rate: sampling rate factor

        Returns: (C H L) convolution kernel, (B C H L) output from initial state
        """
        L = self.L if L is None else L
        h, dt, a, powers, B = self._get_params(rate)
        with torch.autocast(h.device.type, enabled=False):
            # The kernel is the response to the states B and those given
            x = B.unsqueeze(0)
            if state is not None:
                x = torch.cat([x, state.to(x)])
            x = self._multiply(self._fft(x.unsqueeze(1)).conj(), h.double())
            x = x.to(h).unsqueeze(-2)  # (B C H 1 N)
            v, q_f, n_blocks = self._blocks(powers, self._powers(a, B, L), L, h.dtype)
            x = self._to_blocks(x, q_f, n_blocks)
            y = (x @ v.transpose(-1, -2)).flatten(-2)[..., :L]  # (B C H L)
        D = (h * (a.unsqueeze(-1) * powers)).sum(-1, keepdim=True)
        k = torch.cat([D.to(y), y[0, ..., :-1]], dim=-1)
        return k, None if state is None else y[1:]

    def forward_state(self, u, state):
        """
        u: (B H L)
        state: (B H N)

        Returns: (B H N) state after u
        """
        L = u.size(-1)
        h, dt, a, powers, B = self._get_params()
        with torch.autocast(u.device.type, enabled=False):
            all_q_f = self._powers(a, B, L)
            v, q_f, n_blocks = self._blocks(powers, all_q_f, L, h.dtype)
            M = v.size(-2)
            x = F.pad(u.flip(-1).to(v), (0, -L % M))
            x = x.reshape(*u.shape[:-1], n_blocks, M) @ v  # (B H n_blocks N)
            x = self._from_blocks(x, q_f)
            new_state = self._advance(state.to(B), all_q_f, L)
        return (new_state + B[..., :1] * x).to(state)  # A^t B = B_0 v_t

    @torch.no_grad()
    def _setup_step(self, **kwargs):
        """Set up dense (A, B, C, D). A is stored as its difference to I (to -I if dt > 1),
        which is small, so that rounding does not accumulate."""
        h, dt, a, powers, B = self._get_params()
        sign = 1 - 2 * (dt >= 1).to(dt).unsqueeze(-1)
        q_0 = -2 * sign * (dt.clamp(max=1) / (1 + dt)).unsqueeze(-1)  # -a - sign
        q = torch.cat([q_0, B[..., :-1]], dim=-1)
        self.dsign = sign.to(h)
        columns = [F.pad(q, (n, 0))[..., : self.N] for n in range(self.N)]
        self.dA = torch.stack(columns, dim=-1).to(h)  # (H N N)
        self.dB = B.to(h)
        self.dC = self._multiply(self._fft(powers).conj(), h.double()).to(h)
        self.dD = (h * (a.unsqueeze(-1) * powers)).sum(-1).to(h)  # (C H)

    def step(self, u, state):
        """Must have called self._setup_step().

        u: (B H)
        state: (B H N)

        Returns: (B C H), (B H N)
        """
        y = torch.einsum("chn,bhn->bch", self.dC, state) + self.dD * u.unsqueeze(1)
        new_state = torch.einsum(
            "hmn,bhn->bhm", self.dA, state
        ) + self.dB * u.unsqueeze(-1)
        return y, self.dsign * state + new_state

    def default_state(self, *batch_shape):
        h = self.markov_parameters
        return h.new_zeros(*batch_shape, self.H, self.N)

    @property
    def d_state(self):
        return self.H * self.N

    @property
    def state_to_tensor(self):
        return lambda state: state.flatten(-2)
