"""Half precisions and autocast: the numbers of float32."""

from __future__ import annotations

import copy

import pytest
import torch

from hope_ssm import convolution_kernel, transfer_function
from hope_ssm.kernels.initialization import MARKOV_PARAMETERS
from hope_ssm.layers.fftconv import FFTConvolution
from installed import backend_parameters
from kernel_cases import recurrent_kernels
from numeric_cases import H, L, N, build, every_call, sequence_model, some_state

HALVES = {torch.bfloat16: 2**-8, torch.float16: 2**-11}

both_halves = pytest.mark.parametrize("half", HALVES, ids=str)


# Half precisions and autocast


@recurrent_kernels
@both_halves
def test_half_parameters_are_computed_with_in_float32(name, half):
    """Exactly what the same numbers give as float32 parameters; the step's output comes in the dtype of its input."""
    kernel = build(name).to(half)
    assert {p.dtype for p in kernel.parameters()} == {half}
    upcast = copy.deepcopy(kernel).float()
    state, u = some_state(kernel), torch.randn(2, H, L).to(half)
    assert state.abs().dtype == torch.float32
    got, exact = every_call(kernel, u, state), every_call(upcast, u.float(), state)
    assert [x.abs().dtype for x in got] == [torch.float32, torch.float32, torch.float32, half, torch.float32]
    for x, y in zip(got, exact, strict=True):
        torch.testing.assert_close(x, y.to(x.dtype), rtol=0, atol=0)
    got[0].square().sum().backward()
    exact[0].square().sum().backward()
    for p, q in zip(kernel.parameters(), upcast.parameters(), strict=True):
        assert p.grad.dtype == half
        torch.testing.assert_close(p.grad, q.grad.to(half), rtol=0, atol=0)


@recurrent_kernels
@both_halves
def test_a_half_default_dtype(name, half):
    torch.set_default_dtype(half)
    try:
        kernels = [build(name)]
        if name == "hope":
            kernels += [build(name, init=init) for init in MARKOV_PARAMETERS]
        for kernel in kernels:
            assert {p.dtype for p in kernel.parameters()} == {half}
            state = kernel.default_state(2)
            results = every_call(kernel, torch.ones(2, H, L), state)
            assert [x.abs().dtype for x in results] == [torch.float32] * 3 + [half, torch.float32]
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
@recurrent_kernels
@both_halves
def test_whole_model_in_half_precision(name, half):
    """Output in the caller's dtype, near the float32 model's; chunks and steps as near to the whole.

    Without norms, which magnify the rounding of inputs whose four features happen to be alike.
    """
    model = sequence_model(name, n_layers=2, norm=None).eval()
    x = torch.randn(2, L, 4)
    exact = model(x)[0].detach()
    model, x = model.to(half), x.to(half)
    whole, _ = model(x)
    assert whole.dtype == half
    assert (whole - exact).abs().max() < 4 * HALVES[half] * exact.abs().max()
    state, parts = model.default_state(2), []
    for part in x.split([5, 12, L - 17], dim=1):
        y, state = model(part, state)
        parts.append(y)
    last, state, steps = state, model.default_state(2), []
    for u in x.unbind(1):
        y, state = model.step(u, state)
        steps.append(y)
    for run in (torch.cat(parts, 1), torch.stack(steps, 1)):
        assert run.dtype == half
        assert (run - whole).abs().max() < 4 * HALVES[half] * whole.abs().max()
    assert all((a - b).abs().max() < 0.05 for a, b in zip(last, state, strict=True))
    whole.float().square().mean().backward()
    assert all(p.grad.dtype == half and torch.isfinite(p.grad).all() for p in model.parameters())


@recurrent_kernels
@both_halves
def test_autocast_leaves_the_kernel_alone(name, half):
    kernel = build(name)
    state, u = some_state(kernel), torch.randn(2, H, L)
    exact = every_call(kernel, u, state)
    with torch.autocast("cpu", half):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == half
        got = every_call(kernel, u, state)
    for x, y in zip(got, exact, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


@pytest.mark.parametrize("backend", backend_parameters())
def test_autocast_leaves_the_functions_and_the_backward_pass_alone(backend):
    def results():
        h = torch.linspace(-1, 1, 40).requires_grad_()
        k = convolution_kernel(h, 0.1, L, backend=backend)
        return k, transfer_function(h, 0.1, L, backend=backend), *torch.autograd.grad(k.square().sum(), h)

    exact = results()
    with torch.autocast("cpu", torch.bfloat16):
        got = results()
    for x, y in zip(got[:2], exact[:2], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)
    if backend == "blocked":  # the derivative that torch makes of a product is under autocast where it is run
        torch.testing.assert_close(got[2], exact[2], rtol=0, atol=0)


@recurrent_kernels
def test_layer_under_autocast(name):
    """The convolution of bfloat16 inputs is that of the same numbers in float32, rounded once."""
    torch.manual_seed(0)
    layer = FFTConvolution(H, name, d_state=N)
    x = torch.randn(2, L, H).bfloat16()
    exact = layer(x.float())[0]
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)[0]
    assert torch.equal(y, exact.bfloat16())
