"""step_scale: samples at irregular times, by a scan; against exact recurrences and against the convolution."""

from __future__ import annotations

import pytest
import torch

from hope_ssm import HopeLayer
from hope_ssm.kernels.state_space import Dense
from hope_ssm.layers.essm import ESSM
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.linoss import LinOSS
from hope_ssm.layers.s5 import S5
from hope_ssm.ops.scan import scan

B, H = 3, 4
KERNELS = ["s4d", "s4d-bilinear", "s4d-real", "stable"]
FAMILY = {
    "s5": lambda: S5(H, d_state=8),
    "essm": lambda: ESSM(H, heads=2, d_state=3),
    "linoss-im": lambda: LinOSS(H, d_state=6, discretization="im"),
    "memory": lambda: HopeLayer(H, kernel="s4d", d_state=6, input_memory={"size": 3}).block,
}  # fmt: skip
LENGTHS = pytest.mark.parametrize("length", [1, 2, 7, 16, 33])


def convolution(kernel, **options):
    disc = {"disc": "bilinear"} if kernel == "s4d-bilinear" else {}
    return FFTConvolution(H, kernel.removesuffix("-bilinear"), channels=2, d_state=6, verbose=False, **disc, **options)


def layers():
    return {name: lambda name=name: convolution(name) for name in KERNELS} | FAMILY


EVERY = pytest.mark.parametrize("make", layers().values(), ids=layers())


@LENGTHS
def test_a_scan_is_its_recurrence(length):
    A, v, start = torch.randn(B, length, 2, 2).double(), torch.randn(B, length, 2).double(), torch.randn(B, 2).double()
    x, found = start, []
    for t in range(length):
        x = torch.einsum("bij,bj->bi", A[:, t], x) + v[:, t]
        found.append(x)
    torch.testing.assert_close(scan(Dense(A), v, start), torch.stack(found, 1), rtol=1e-9, atol=1e-9)


@EVERY
@LENGTHS
def test_equal_steps_are_a_rate(make, length):
    layer = make().double().eval()
    x = torch.randn(B, length, H, dtype=torch.float64)
    for rate in (1.0, 0.5):
        scale = torch.full((B, length), rate, dtype=torch.float64)
        torch.testing.assert_close(layer(x, step_scale=scale)[0], layer(x, rate=rate)[0], rtol=1e-9, atol=1e-10)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_is_chunks_is_steps(make, dtype):
    layer, length = make().to(dtype).eval(), 23
    x, scale = torch.randn(B, length, H, dtype=dtype), 0.1 + 2 * torch.rand(B, length, dtype=dtype)
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    with torch.no_grad():
        whole, none = layer(x, step_scale=scale)
        assert none is None
        assert whole.dtype == dtype
        y, state = layer(x[:, :9], layer.default_state(B), step_scale=scale[:, :9])
        found = [y]
        for t in range(9, length):
            y, state = layer.step(x[:, t], state, scale[:, t])
            found.append(y.unsqueeze(1))
        torch.testing.assert_close(torch.cat(found, 1), whole, **tolerance)
        _, after = layer(x, layer.default_state(B), step_scale=scale)
        torch.testing.assert_close(state, after, **tolerance)


@EVERY
def test_lengths(make):
    """What follows the end of a sequence is not seen, and the state is that of its end."""
    layer, lengths = make().double().eval(), torch.tensor([5, 9, 1])
    x, scale = torch.randn(B, 9, H, dtype=torch.float64), 0.1 + torch.rand(B, 9, dtype=torch.float64)
    for row, length in enumerate(lengths.tolist()):
        scale[row, length:] = 0
    y, after = layer(x, layer.default_state(B), lengths=lengths, step_scale=scale)
    for row, length in enumerate(lengths.tolist()):
        alone, end = layer(x[row : row + 1, :length], layer.default_state(1), step_scale=scale[row : row + 1, :length])
        torch.testing.assert_close(y[row : row + 1, :length], alone, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(after[row : row + 1], end, rtol=1e-10, atol=1e-10)


@EVERY
def test_gradients_reach_everything(make):
    layer = make().double()
    x = torch.randn(2, 6, H, dtype=torch.float64, requires_grad=True)
    scale = (0.3 + torch.rand(2, 6, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, scale: layer(x, step_scale=scale)[0], (x, scale), atol=1e-5, rtol=1e-3, fast_mode=True
    )
    layer(x, step_scale=scale)[0].square().sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@EVERY
@torch.no_grad()
def test_nothing_grows_over_a_thousand_steps_of_all_lengths(make):
    """Every scheme that takes step_scale is stable for any order of steps, which each step's stability does not say."""
    layer = make().double().eval()
    x = torch.zeros(1, 1000, H, dtype=torch.float64)
    x[:, 0] = 1
    y = layer(x, step_scale=0.05 + 4 * torch.rand(1, 1000, dtype=torch.float64))[0]
    assert y[:, 500:].abs().max() <= 2 * y[:, :100].abs().max() + 1


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_a_traced_scan_holds_for_its_length():
    layer = convolution("s4d").eval().requires_grad_(False)
    traced = torch.jit.trace(lambda x, r: layer(x, step_scale=r)[0], (torch.randn(2, 8, H), torch.ones(2, 8)))
    with pytest.raises(RuntimeError, match="shape"):
        traced(torch.randn(2, 16, H), torch.ones(2, 16))


def test_two_short_steps_of_silence_are_one_long_one():
    """With the exact hold the state decays by elapsed time alone, however it is cut."""
    layer = convolution("s4d").double()
    x = torch.zeros(1, 3, H, dtype=torch.float64)
    x[:, 0] = 1
    fine = layer(x, step_scale=torch.tensor([[1.0, 0.25, 0.75]]).double())[0]
    coarse = layer(x[:, :2], step_scale=torch.tensor([[1.0, 1.0]]).double())[0]
    torch.testing.assert_close(fine[:, 2], coarse[:, 1])


@pytest.mark.parametrize(
    ("make", "scale", "sentence"),
    [
        (lambda: HopeLayer(H), torch.ones(B, 5), "step_scale must be None with the hope kernel.*use s4d"),
        (lambda: LinOSS(H, d_state=6), torch.ones(B, 5), "the linoss kernel.*or linoss with discretization=im"),
        (lambda: LinOSS(H, d_state=6, discretization="damped"), torch.ones(B, 5), "the linoss kernel"),
        (lambda: convolution("s4d"), [1.0] * 5, r"must be a tensor of the shape \(3, 5\).*got list"),
        (lambda: convolution("s4"), torch.ones(B, 5), "step_scale must be None with the s4 kernel"),
        (lambda: convolution("s4d", bidirectional=True), torch.ones(B, 5), "bidirectional"),
        (lambda: convolution("s4d", l_max=3), torch.ones(B, 5), "must not be longer than l_max=3 at rate 1; got 5"),
        (lambda: convolution("s4d", drop_kernel=0.1), torch.ones(B, 5), "drop_kernel must be 0 with step_scale"),
        (lambda: convolution("s4d"), torch.ones(B, 4), r"must be a tensor of the shape \(3, 5\).*got \(3, 4\)"),
        (lambda: convolution("s4d"), torch.zeros(B, 5), "finite and above 0; got 0.0"),
        (lambda: convolution("s4d"), torch.full((B, 5), torch.nan), "finite and above 0; got nan"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(make, scale, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()(torch.randn(B, 5, H), step_scale=scale)
