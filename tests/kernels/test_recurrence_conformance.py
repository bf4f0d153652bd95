"""Steps, chunks and states, asked of every kernel that has them and of its variants."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import reference
from kernel_cases import H, L, build, recurrent_cases, recurrent_kernels


@recurrent_cases
@pytest.mark.parametrize("length", [17, *(pytest.param(one, marks=pytest.mark.slow) for one in (1, 2, 30))])
def test_convolution_is_step_is_any_chunking(name, options, length, rng):
    """From a state that is not zero: all at once, sample by sample, and in random stretches with ``forward_state``."""
    kernel = build(name, **options).double()
    u = torch.tensor(rng.standard_normal((3, H, length)))
    start = kernel.default_state(3)
    start = start + torch.tensor(rng.standard_normal(start.shape)) * (1 + 0.5j if start.is_complex() else 1)

    def convolve(u, state):
        k, response = kernel(L=u.shape[-1], state=state)
        y = torch.zeros_like(response)
        for t in range(u.shape[-1]):
            y[..., t] = torch.einsum("chs,bhs->bch", k[..., : t + 1].flip(-1), u[..., : t + 1])
        return y + response, kernel.forward_state(u, state)

    with torch.no_grad():
        whole, last = convolve(u, start)
        assert whole.shape == (3, kernel.channels, H, length)

        kernel._setup_step()
        state, steps = start, []
        for x in u.unbind(-1):
            y, state = kernel.step(x, state)
            assert y.shape == (3, kernel.channels, H)
            steps.append(y)
        torch.testing.assert_close(torch.stack(steps, -1), whole, rtol=0, atol=1e-10)
        torch.testing.assert_close(state, last, rtol=0, atol=1e-10)

        for _ in range(3):
            cuts = np.sort(rng.choice(np.arange(1, length), size=min(3, length - 1), replace=False))
            state, parts = start, []
            for part in np.split(np.arange(length), cuts):
                y, state = convolve(u[..., part], state)
                parts.append(y)
            torch.testing.assert_close(torch.cat(parts, -1), whole, rtol=0, atol=1e-10)
            torch.testing.assert_close(state, last, rtol=0, atol=1e-10)


@recurrent_kernels
def test_convolution_is_the_double_loop(name, rng):
    """From rest, in numpy."""
    kernel = build(name, channels=2).double()
    u = rng.standard_normal((1, H, 15))
    state, steps = kernel.default_state(1), []
    with torch.no_grad():
        for t in range(15):
            y, state = kernel.step(torch.tensor(u[..., t]), state)
            steps.append(y)
        k = kernel(L=15)[0].numpy()
    y = torch.stack(steps, -1)[0].numpy()
    for c, h in np.ndindex(2, H):
        np.testing.assert_allclose(y[c, h], reference.causal_convolution(k[c, h], u[0, h]), atol=1e-11)


@recurrent_cases
def test_default_state(name, options):
    """Zeros of shape (*batch, H, …) on the parameters' device and in their precision, also when those are frozen."""
    kernel = build(name, **options)
    for batch in ((), (1,), (5,), (2, 3)):
        state = kernel.default_state(*batch)
        assert state.shape[: len(batch) + 1] == (*batch, H)
        assert not state.any()
        assert not state.requires_grad
        assert state.device == next(iter(kernel.state_dict().values())).device
        assert state.abs().dtype == torch.float32
    assert kernel.double().default_state(2).abs().dtype == torch.float64
    assert kernel.to("meta").default_state(2).device.type == "meta"
    assert kernel.d_state == math.prod(kernel.default_state().shape)
    assert kernel.state_to_tensor(torch.zeros(3, H, kernel.d_state // H)).shape == (3, kernel.d_state)


@recurrent_kernels
def test_state_keeps_its_shape_and_dtype(name):
    kernel = build(name)
    state = kernel.default_state(2)
    y, after = kernel.step(torch.randn(2, H), state)
    assert y.dtype == torch.float32
    assert (after.shape, after.dtype) == (state.shape, state.dtype)
    after = kernel.forward_state(torch.randn(2, H, 5), state)
    assert (after.shape, after.dtype) == (state.shape, state.dtype)
    response = kernel(L=5, state=state)[1]
    assert response.dtype == torch.float32


@recurrent_kernels
def test_everything_is_on_the_device_of_the_parameters(name):
    """On the device that holds no numbers, any tensor made elsewhere is an error."""
    kernel = build(name, channels=2).to("meta")
    u, state = torch.zeros(3, H, L, device="meta"), kernel.default_state(3)
    k, response = kernel(L=L, state=state)
    y, after = kernel.step(u[..., 0], state)
    last = kernel.forward_state(u, state)
    assert {x.device.type for x in (k, response, y, after, last)} == {"meta"}
    (k.sum() + response.sum() + last.abs().sum()).backward()


@recurrent_kernels
def test_gradients_flow_through_the_state(name):
    """Through a chunk: to the inputs and sampling periods before it; a feedthrough is no part of a state."""
    kernel = build(name).double()
    u = torch.randn(2, H, 3, dtype=torch.float64, requires_grad=True)
    before = (kernel.default_state(2) + 0.3).requires_grad_()
    response = kernel(L=4, state=kernel.forward_state(u, before))[1]
    wanted = [u, before, *(p for key, p in kernel.named_parameters() if key != "feedthrough")]
    for gradient in torch.autograd.grad(response.square().sum(), wanted):
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 1e-9

    def stretch(u):
        return torch.view_as_real(kernel.forward_state(u, before.detach()) + 0j)

    assert torch.autograd.gradcheck(stretch, u)


@recurrent_kernels
def test_setup_step(name):
    kernel = build(name)
    kernel._setup_step()
    kernel._setup_step(mode="dense")
    with pytest.raises(TypeError, match="setup_step has no option 'stride'"):
        kernel._setup_step(stride=2)
