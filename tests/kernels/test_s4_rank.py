"""S4 with a low rank of 2 or 3: kernel, steps and state responses against a dense float64 recursion; and it trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hope_ssm.kernels.s4 import S4Kernel
from hope_ssm.layers.s4block import S4Block

H, N, L = 3, 6, 21


def build(rank):
    kernel = S4Kernel(d_model=H, d_state=N, rank=rank, channels=2, dt_min=0.01, dt_max=0.3, verbose=False).double()
    with torch.no_grad():
        kernel.P.add_(torch.randn_like(kernel.P))  # columns of one size: the second matters
    return kernel


def dense_recursion(kernel, u, state):
    """y_t = Re C x_t, x_t = Ā x_{t-1} + B̄ u_t by the bilinear rule for one sequence u (H, L), from a state (H, n)."""

    def whole(name):
        """A parameter of the modes with positive frequency, and of their conjugates."""
        half = torch.view_as_complex(getattr(kernel, name).detach()).numpy()
        return np.concatenate([half, half.conj()], axis=-1)

    half = -kernel.A_real.detach().exp().numpy() + 1j * kernel.A_imag.detach().numpy()
    poles = np.concatenate([half, half.conj()], axis=-1)
    P, B, C = whole("P").transpose(1, 2, 0), whole("B"), whole("C")
    dt, y, last = kernel.sampling_period.detach().numpy(), np.zeros((2, H, u.shape[1])), np.array(state)
    for h in range(H):
        A = np.diag(poles[h]) - P[h] @ P[h].conj().T
        implicit = np.linalg.inv(np.eye(N) - dt[h] / 2 * A)
        step, inputs = implicit @ (np.eye(N) + dt[h] / 2 * A), implicit @ (dt[h] * B[h])
        for t in range(u.shape[1]):
            last[h] = step @ last[h] + inputs * u[h, t]
            y[:, h, t] = (C[:, h] @ last[h]).real
    return y, last


@pytest.mark.parametrize("rank", [2, 3])
def test_kernel_steps_and_states_are_the_dense_recursion(rank, rng):
    kernel, u = build(rank), rng.standard_normal((H, L))
    half = rng.standard_normal((H, N // 2)) + 1j * rng.standard_normal((H, N // 2))
    y, last = dense_recursion(kernel, u, np.concatenate([half, half.conj()], -1))
    state, inputs = torch.tensor(half)[None], torch.tensor(u)[None]
    with torch.no_grad():
        k, response = kernel(L=L, state=state)
        convolved = response[0]
        for t in range(L):
            convolved[..., t] += (k[..., : t + 1].flip(-1) * inputs[..., : t + 1]).sum(-1)
        np.testing.assert_allclose(convolved, y, rtol=0, atol=1e-10)
        np.testing.assert_allclose(kernel.forward_state(inputs, state)[0], last[:, : N // 2], rtol=0, atol=1e-10)
        for t in range(L):
            out, state = kernel.step(inputs[..., t], state)
            np.testing.assert_allclose(out[0], y[..., t], rtol=0, atol=1e-10)


def test_the_columns_matter():
    kernel = build(2)
    with torch.no_grad():
        both = kernel(L=L)[0]
        kernel.P[1] = 0
        assert (kernel(L=L)[0] - both).abs().max() > 1e-3 * both.abs().max()


@pytest.mark.slow
def test_rank_2_trains():
    """To recall the input of five steps before; every column of P moves."""
    layer = S4Block(8, mode="s4", rank=2, d_state=16, dt_min=0.05, dt_max=0.5, final_act="id")
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        x = torch.randn(8, 40, 8)
        loss = (layer(x)[0][:, 5:] - x[:, :-5]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    after = dict(layer.named_parameters())
    assert all((after[name] - value).abs().max() > 1e-4 for name, value in before.items())
    moved = after["layer.kernel.P"] - before["layer.kernel.P"]
    assert (moved.abs().amax((1, 2, 3)) > 1e-3).all()
