"""Backends, kernels, convolutions and blocks on a device, against float64 on the CPU: values and all gradients."""

from __future__ import annotations

import pytest
import torch

from devices import exact_copy, outputs_and_gradients, worst
from hope_ssm import convolution_kernel
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.ops.long_convolution import long_convolution
from installed import backend, backend_parameters
from kernel_cases import ENTRIES, RECURRENT, H, L, build

FAR = {torch.float32: 2e-4, torch.float64: 1e-9}
dtypes = pytest.mark.parametrize("dtype", FAR)


@dtypes
@pytest.mark.parametrize("backend", backend_parameters("keops"))
@pytest.mark.parametrize(
    ("order", "length"),
    [
        (1, 1),
        (3, 7),
        (5, 2),
        (17, 64),
        pytest.param(16, 65, marks=pytest.mark.slow),
        pytest.param(64, 200, marks=pytest.mark.slow),
    ],
)
def test_backends(backend, order, length, dtype, device):
    """Odd and prime lengths, kernels longer and shorter than the window, Δt far below, at and above 1."""
    dt = torch.tensor([1e-3, 0.1, 1.0, 3.0], dtype=torch.float64)
    h = torch.randn(2, len(dt), order, dtype=torch.float64)

    def call(h, dt):
        return convolution_kernel(h, dt, length, backend=backend if h.device == device else "dense")

    here = [x.to(device, dtype).requires_grad_() for x in (h, dt)]
    there = [x.detach().cpu().double().requires_grad_() for x in here]
    for got, exact in zip(*(outputs_and_gradients(call, x, []) for x in (here, there)), strict=True):
        assert worst(got, exact) < 5 * FAR[dtype]


@dtypes
@pytest.mark.slow
@pytest.mark.parametrize("backend", [backend("keops")])
def test_a_backend_that_compiles_for_minutes(backend, dtype, device):
    test_backends(backend, 17, 64, dtype, device)


@dtypes
@pytest.mark.parametrize("name", ENTRIES)
def test_kernels(name, dtype, device):
    """The kernel, the response to a state, the next state and a step."""
    kernel = build(name, channels=2).to(device, dtype)
    exact = exact_copy(kernel)
    inputs = [torch.randn(2, H, L, dtype=torch.float64)]
    if name in RECURRENT:
        like = exact.default_state(2)
        inputs.append(torch.randn(like.shape, dtype=like.dtype))

    def every(kernel):
        def call(u, state=None):
            if state is None:
                return kernel(L=L)[0]
            step = kernel.step(u[..., 0], state)
            return *kernel(L=L, state=state), kernel.forward_state(u, state), *step

        return call

    here = [x.to(device, dtype.to_complex() if x.is_complex() else dtype).requires_grad_() for x in inputs]
    there = [x.detach().cpu().to(y.dtype).requires_grad_() for x, y in zip(here, inputs, strict=True)]
    got = outputs_and_gradients(every(kernel), here, kernel.parameters())
    assert worst(got, outputs_and_gradients(every(exact), there, exact.parameters())) < FAR[dtype]


@dtypes
@pytest.mark.parametrize("steps_first", [False, True])
@pytest.mark.parametrize(
    ("size", "ahead"),
    [((1, 1, 1, 1, 1), 0), ((2, 2, 3, 97, 40), 5), ((3, 1, 20, 65, 129), 64), ((2, 1, 5, 256, 256), 0)],
)
def test_long_convolution(size, ahead, steps_first, dtype, device):
    batch, channels, features, length, lags = size
    u, k = torch.randn(batch, features, length, dtype=dtype), torch.randn(channels, features, lags, dtype=dtype)
    u = u.to(device)
    if steps_first:
        u = u.transpose(1, 2).contiguous().transpose(1, 2)
    here = [u.requires_grad_(), k.to(device).requires_grad_()]
    there = [x.detach().cpu().double().requires_grad_() for x in here]
    got = outputs_and_gradients(lambda u, k: long_convolution(u, k, ahead=ahead), here, [])
    exact = outputs_and_gradients(lambda u, k: long_convolution(u, k, ahead=ahead, mode="plain"), there, [])
    assert worst(got, exact) < FAR[dtype]


LAYERS = {
    "causal": {}, "channels": {"channels": 2}, "bidirectional": {"bidirectional": True},
    "both-now": {"bidirectional": True, "reverse_lag": 0}, "cut": {"l_max": 9}, "no-D": {"feedthrough": False},
    "circular": {"circular": True, "truncation": "none"}, "filtered": {"frequency_filter": {"exponent": 0.3}},
}  # fmt: skip
CALLS = {"whole": {}, "rate": {"rate": 2.0}, "lengths": {"lengths": torch.tensor([3, 20])}, "state": {}}
NOT_TOGETHER = {
    ("circular", "lengths"),
    *((name, "state") for name in ("bidirectional", "both-now", "cut", "circular", "filtered")),
}


@dtypes
@pytest.mark.parametrize(("options", "call"), [(o, c) for o in LAYERS for c in CALLS if (o, c) not in NOT_TOGETHER])
def test_convolution_layers(options, call, dtype, device):
    known = {"horizon": 20, "d_state": 6, "verbose": False} | LAYERS[options]
    layer = FFTConvolution(3, "hope", **known).to(device, dtype)
    x = torch.randn(2, 20, 3, dtype=dtype)

    def run(layer, x):
        state = {"state": layer.default_state(2) + 0.5} if call == "state" else {}
        return layer(x, **CALLS[call], **state)

    got, exact = (
        outputs_and_gradients(lambda x, layer=layer: run(layer, x), [x.requires_grad_()], layer.parameters())
        for layer, x in ((layer, x.to(device)), (exact_copy(layer), x.double()))
    )
    assert worst(got, exact) < FAR[dtype]
    layer.eval()
    with torch.no_grad():
        for _ in range(2):  # computed, then kept
            assert worst(run(layer, x.to(device))[0], exact[0]) < FAR[dtype]
