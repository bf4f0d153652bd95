"""A sequence in chunks with a carried state: gradients, memory, optimizer steps in between, and other resolutions."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hope_ssm import registry, transfer_function
from kernel_cases import ENTRIES, RECURRENT, recurrent_kernels
from recurrence import convolve, in_steps

H, N = 3, 8


def build(name, **options):
    torch.manual_seed(0)
    return ENTRIES[name].load()(
        **{"d_model": H, "d_state": N, "dt_min": 0.02, "dt_max": 3.0, "verbose": False, "channels": 2} | options
    )


def total(kernel, u, cuts, start, weight, detach=False):
    """Σ weight · y² over chunks between ``cuts``, y with the state carried from chunk to chunk, plus |last state|²."""
    loss, state = 0.0, start
    for first, last in pairwise(cuts):
        part = u[..., first:last]
        loss = loss + (weight[..., first:last] * convolve(kernel, part, state).square()).sum()
        state = kernel.forward_state(part, state)
        state = state.detach() if detach else state
    return loss + state.abs().square().sum()


@pytest.mark.slow
@recurrent_kernels
@pytest.mark.parametrize("cuts", [[0, 40], [0, 1, 2, 40], [0, 7, 8, 30, 40], list(range(41))], ids=len)
def test_gradients_through_chunks_are_those_of_the_whole_sequence(name, cuts, rng):
    """In every parameter, the inputs and the first state, to 1e-9."""
    kernel = build(name, n_ssm=1).double()
    u, weight = torch.tensor(rng.standard_normal((2, 2, H, 40)))
    u, weight = u.requires_grad_(), weight.unsqueeze(1)
    start = (kernel.default_state(2) + torch.tensor(rng.standard_normal((2, H, 1)))).requires_grad_()
    wanted = [*kernel.parameters(), u, start]
    whole = torch.autograd.grad(total(kernel, u, [0, 40], start, weight), wanted)
    parts = torch.autograd.grad(total(kernel, u, cuts, start, weight), wanted)
    for value, exact in zip(parts, whole, strict=True):
        assert (value - exact).abs().max() < 1e-9 * exact.abs().max()


@recurrent_kernels
def test_a_detached_state_cuts_the_gradient(name, rng):
    """Of later chunks in what came before, and of nothing else."""
    kernel = build(name).double()
    u = torch.tensor(rng.standard_normal((2, H, 20)), requires_grad=True)
    late = (torch.arange(20) >= 8).double()
    carried, cut = (
        torch.autograd.grad(total(kernel, u, [0, 8, 20], kernel.default_state(2), late, detach), u)[0]
        for detach in (False, True)
    )
    assert carried[..., :8].abs().max() > 1e-3
    assert not cut[..., :8].any()
    whole = torch.autograd.grad(total(kernel, u, [0, 20], kernel.default_state(2), late), u)[0]
    torch.testing.assert_close(carried, whole, rtol=0, atol=1e-9)


@recurrent_kernels
def test_gradients_of_chunks_are_those_of_steps(name, rng):
    kernel = build(name, dt_min=0.3, dt_max=0.7).double()  # the step has another form from Δt = 1 on
    u = torch.tensor(rng.standard_normal((2, H, 12)))
    start = (kernel.default_state(2) + 0.5).requires_grad_()
    wanted = [*kernel.parameters(), start]
    y, after = in_steps(kernel, u, start)
    steps = torch.autograd.grad(y.square().sum() + after.abs().square().sum(), wanted)
    chunks = torch.autograd.grad(total(kernel, u, [0, 5, 12], start, torch.ones(12)), wanted)
    for value, exact in zip(chunks, steps, strict=True):
        assert (value - exact).abs().max() < 1e-9 * exact.abs().max()


class Largest(TorchDispatchMode):
    """The largest number of real numbers in a tensor that an operation makes."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage().nbytes() // (4 if tensor.dtype != torch.float64 else 8)
                self.size = max(self.size, storage)
        return made


def largest(kernel, batch, length):
    u = torch.randn(batch, H, length, requires_grad=True)
    state = kernel.default_state(batch).requires_grad_()
    with Largest() as watch:
        k, response = kernel(L=length, state=state)
        after = kernel.forward_state(u, state)
        (k.sum() + response.sum() + after.abs().sum()).backward()
    return watch.size


@pytest.mark.slow
@recurrent_kernels
def test_no_array_of_states_over_time_is_made(name):
    """Forward and backward of kernel, state response and next state, at n = 256: far below B·H·n·L numbers."""
    batch, length, n = 4, 2048, 256
    everything = batch * H * n * length
    assert largest(build(name, d_state=n, channels=1), batch, length) < everything / 12
    if name == "hope":  # the watch sees it where it is made: the readable reference, n terms at every frequency
        assert largest(build(name, d_state=n, channels=1, backend="dense"), 1, length) >= H * n * (length // 2 + 1)


@pytest.mark.slow
@recurrent_kernels
def test_switching_between_optimizer_steps(name, rng):
    """Train by convolution, step, train on: ``step`` always has the present parameters, and the same sequence of
    calls gives the same numbers again."""

    def run():
        kernel = build(name).double()
        optimizer = torch.optim.Adam(kernel.parameters(), lr=0.05)
        u = torch.tensor(np.random.default_rng(1).standard_normal((2, H, 9)))
        seen = []
        for turn in range(4):
            kernel._setup_step()
            with torch.no_grad():
                whole = convolve(kernel, u)
                y, _ = in_steps(kernel, u, kernel.default_state(2))
            torch.testing.assert_close(y, whole, rtol=0, atol=1e-11)
            seen.append(y)
            optimizer.zero_grad()
            by_steps = in_steps(kernel, u, kernel.default_state(2))[0]
            (by_steps if turn % 2 else convolve(kernel, u)).square().sum().backward()
            optimizer.step()
        return seen

    first, again = run(), run()
    assert all((a - b).abs().max() > 1e-3 for a, b in pairwise(first))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


# Lengths relative to the window n / Δt, and other sampling rates


@pytest.mark.parametrize("dt", [1e-4, 0.05, 1.0, 20.0])
@pytest.mark.parametrize(("n", "length"), [(1, 1), (64, 1), (64, 2), (64, 63), (64, 65), (5, 4096)])
def test_truncation_is_exact_for_every_length(n, length, dt, rng):
    """L = 1, L < n, L ≪ n/Δt and L ≫ n/Δt: the start of a longer kernel, and the convolution is the steps'."""
    kernel = build("hope", d_state=n, d_model=1, channels=1, dt_min=dt, dt_max=dt).double()
    with torch.no_grad():
        longer = kernel(L=length + 517)[0]
        shorter = kernel(L=length)[0]
        assert (shorter - longer[..., :length]).abs().max() < 1e-12 * max(1, kernel.markov_parameters.abs().sum())
        few = min(length, 100)
        impulse = torch.zeros(1, 1, few, dtype=torch.float64)
        impulse[..., 0] = 1
        steps, _ = in_steps(kernel, impulse, kernel.default_state(1))
        torch.testing.assert_close(steps[0], shorter[..., :few], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dt", [1e-3, 0.2, 1.0, 30.0])
@pytest.mark.parametrize(("length", "i", "j"), [(12, 1, 2), (101, 40, 3), (1000, 1, 499), (64, 31, 32)])
def test_rate_warps_the_frequency(dt, length, i, j, rng):
    """G at rate r and θ_r is G at rate 1 and θ where tan(θ_r/2) = r tan(θ/2); here both are on one grid."""
    h = torch.tensor(rng.standard_normal((3, 64)))
    h = h / h.abs().sum(-1, keepdim=True)
    r = math.tan(math.pi * j / length) / math.tan(math.pi * i / length) if 2 * j < length else None
    if r is None:  # θ_r = π belongs to θ = π at every rate
        i, r = j, 3.7
    plain, faster = (transfer_function(h, period, length) for period in (dt, r * dt))
    assert (faster[..., j] - plain[..., i]).abs().max() < 1e-12


@pytest.mark.parametrize("rate", [0.25, 0.5, 2, 3.3])
def test_rate_of_the_kernel_warps_its_whole_response(rate):
    """The same identity through the kernel of Algorithm 1, whose spectrum is G: every angle, evaluated one by one."""
    length = 101
    kernel = build("hope", d_state=16, truncation="none", dt_min=0.05, dt_max=2.0).double()
    with torch.no_grad():
        spectrum = torch.fft.rfft(kernel(L=length, rate=rate)[0])
        half = math.pi * torch.arange(length // 2 + 1, dtype=torch.float64) / length
        theta = 2 * torch.atan2(half.sin(), rate * half.cos())  # tan(θ_r / 2) = r tan(θ / 2)
        warped = 2 * torch.atan2((theta / 2).sin(), kernel.sampling_period.unsqueeze(-1) * (theta / 2).cos())
        order = torch.arange(1, 17, dtype=torch.float64)
        basis = torch.polar(torch.ones(()).double(), -order * warped.unsqueeze(-1))
        exact = torch.einsum("chk,hfk->chf", kernel.markov_parameters + 0j, basis)
    assert (spectrum - exact).abs().max() < 1e-12


def test_the_registry_is_what_is_tested():
    assert {"hope", "s4d"} <= set(RECURRENT) <= set(registry.kernels())
