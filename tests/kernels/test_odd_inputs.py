"""Empty batches, numbers of another kind, views: a result like any other, or one sentence."""

from __future__ import annotations

import pytest
import torch

from hope_ssm import HopeLayer
from kernel_cases import LONGEST, RECURRENT, H, build, every_kernel, recurrent_kernels

OTHERS = [torch.int64, torch.uint8, torch.bool, torch.complex64]


def layer(name, **options):
    return HopeLayer(H, kernel=name, **({"d_state": 6} if name in RECURRENT else {"l_max": LONGEST}), **options)


@every_kernel
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"channels": 2}])
def test_an_empty_batch(name, options):
    """Of the right shape, and in the graph: every parameter has a gradient, of zeros."""
    module = layer(name, **options)
    y = module(torch.randn(0, 5, H), lengths=torch.ones(0, dtype=torch.long))
    assert y.shape == (0, 5, H)
    y.sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in module.parameters())


@recurrent_kernels
def test_an_empty_batch_with_a_state(name):
    module = layer(name)
    kernel, state = module.block.layer.kernel, module.default_state(0)
    y, after = module(torch.randn(0, 5, H), state=state)
    assert (y.shape, after.shape, after.dtype) == ((0, 5, H), state.shape, state.dtype)
    y, after = module.step(torch.randn(0, H), state)
    assert (y.shape, after.shape) == ((0, H), state.shape)
    assert kernel.forward_state(torch.randn(0, H, 5), state).shape == state.shape
    assert kernel(L=5, state=state)[1].shape == (0, 1, H, 5)


@every_kernel
@pytest.mark.parametrize("dtype", OTHERS)
def test_inputs_that_are_no_real_numbers(name, dtype):
    """Whole numbers came back cut to whole numbers."""
    module, x = layer(name), torch.ones(2, 5, H).to(dtype)
    message = f"must be a tensor of real floating-point numbers; got {dtype}"
    with pytest.raises(TypeError, match=message):
        module(x)
    if name in RECURRENT:
        kernel, state = module.block.layer.kernel, module.default_state(2)
        for call in (
            lambda: module.step(x[:, 0], state),
            lambda: kernel.step(x[:, 0], state),
            lambda: kernel.forward_state(x.mT, state),
        ):
            with pytest.raises(TypeError, match=message):
                call()


@recurrent_kernels
def test_a_state_that_is_a_conjugate_or_negative_view(name):
    kernel = build(name)
    like = kernel.default_state(2)
    z = torch.randn(*like.shape, dtype=torch.complex64)
    view = z.conj() if like.is_complex() else z.conj().imag
    exact = view.resolve_conj().resolve_neg().clone()
    assert view.is_conj() or view.is_neg()
    u = torch.randn(2, H, 5)
    for call in (
        lambda s: kernel(L=5, state=s)[1],
        lambda s: kernel.step(u[..., 0], s)[0],
        lambda s: kernel.step(u[..., 0], s)[1],
        lambda s: kernel.forward_state(u, s),
    ):
        assert torch.equal(call(view), call(exact))
