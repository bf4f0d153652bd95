"""The long convolution by every path, against the double sum it is defined by."""

from __future__ import annotations

import os

import pytest
import torch

from features import NATIVE, needs
from hope_ssm.ops import grouped_convolution, native_build, workers
from hope_ssm.ops import long_convolution as long
from hope_ssm.ops.long_convolution import long_convolution
from hope_ssm.requirements import COMPILED

MODES = ("plain", "whole", "grouped", pytest.param("native", marks=NATIVE))
RECOMPUTING = pytest.mark.parametrize("mode", MODES[2:])
# B, C, H, L, K, negative lags: one of each, odd and prime lengths, kernels shorter and longer than the sequence
SIZES = [
    (1, 1, 1, 1, 1, 0), (2, 1, 3, 1, 5, 0), (1, 2, 1, 2, 3, 1), (3, 2, 5, 7, 7, 0), (2, 1, 20, 13, 4, 2),
    (2, 3, 17, 13, 29, 12), (5, 1, 2, 33, 33, 32), (0, 1, 2, 5, 5, 0), (33, 2, 9, 80, 70, 3), (1, 1, 4, 600, 600, 0),
]  # fmt: skip
every_mode = pytest.mark.parametrize("mode", MODES)


def double_sum(u, k, ahead):
    """y_t = Σ_j k_j u_{t+a-j} by a Toeplitz matrix: no transform."""
    lag = torch.arange(u.shape[-1])[:, None] - torch.arange(u.shape[-1]) + ahead
    inside = (lag >= 0) & (lag < k.shape[-1])
    toeplitz = torch.where(inside, k[..., lag.clamp(0, k.shape[-1] - 1)], 0)
    return torch.einsum("chts,bhs->bcht", toeplitz, u)


def operands(batch, channels, features, length, lags, steps_first=False, dtype=torch.float64):
    u = torch.randn(batch, features, length, dtype=dtype)
    if steps_first:
        u = u.transpose(1, 2).contiguous().transpose(1, 2)
    return u.requires_grad_(), torch.randn(channels, features, lags, dtype=dtype, requires_grad=True)


@every_mode
@pytest.mark.parametrize("steps_first", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("group_bytes", [None, 1])
def test_values_and_gradients(mode, steps_first, size, group_bytes, monkeypatch):
    """Groups of the usual size, and of two rows."""
    if mode in ("plain", "whole") and size[0] == 0:
        pytest.skip("torch has no FFT of an empty batch")
    if group_bytes:
        monkeypatch.setattr(grouped_convolution, "GROUP_BYTES", group_bytes)
        monkeypatch.setattr(grouped_convolution, "TILE_STEPS", 3)
    *shape, ahead = size
    u, k = operands(*shape, steps_first)
    exact, y = double_sum(u, k, ahead), long_convolution(u, k, ahead=ahead, mode=mode)
    torch.testing.assert_close(y, exact, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(exact)
    for got, expected in zip(*(torch.autograd.grad(x, (u, k), weight) for x in (y, exact)), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@RECOMPUTING
@pytest.mark.parametrize("frozen", [0, 1])
def test_one_gradient_alone(frozen, mode):
    operand = operands(2, 2, 3, 5, 5)
    operand[frozen].requires_grad_(False)
    weight, trained = torch.randn(2, 2, 3, 5, dtype=torch.float64), operand[1 - frozen]
    got, exact = (
        torch.autograd.grad(y, trained, weight)[0]
        for y in (long_convolution(*operand, ahead=1, mode=mode), double_sum(*operand, 1))
    )
    torch.testing.assert_close(got, exact, rtol=1e-12, atol=1e-12)


@every_mode
def test_derivatives_of_every_kind(mode):
    """Reverse, forward, one over the other, and all of them mapped."""
    u, k = operands(2, 2, 3, 5, 4)

    def call(u, k):
        return long_convolution(u, k, ahead=1, mode=mode)

    assert torch.autograd.gradcheck(
        call, (u, k), check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert torch.autograd.gradgradcheck(call, (u, k), check_batched_grad=True, check_fwd_over_rev=True)


@every_mode
@pytest.mark.parametrize("in_dims", [(0, None), (None, 1), (2, 1)])
def test_vmap(mode, in_dims):
    u = torch.randn(2, 3, 7) if in_dims[0] is None else torch.randn(2, 3, 7, 6).movedim(-1, in_dims[0])
    k = torch.randn(2, 3, 5) if in_dims[1] is None else torch.randn(2, 3, 5, 6).movedim(-1, in_dims[1])

    def call(u, k):
        return long_convolution(u, k, ahead=1, mode=mode)

    mapped = torch.func.vmap(call, in_dims)(u, k)
    assert len(mapped) == 6
    for i in range(6):
        single = call(*(x if dim is None else x.select(dim, i) for x, dim in zip((u, k), in_dims, strict=True)))
        torch.testing.assert_close(mapped[i], single, rtol=1e-5, atol=1e-5)


@RECOMPUTING
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 8e-3), (torch.float16, 1e-3)])
def test_rounding_is_that_of_the_input(dtype, bound, mode):
    """Half precisions are rounded once, at the end: the transforms are computed in float32."""
    u, k = torch.randn(3, 4, 100).to(dtype).transpose(1, 2), torch.randn(1, 100, 4)
    exact = double_sum(u.double(), k.double(), 0)
    y = long_convolution(u, k, mode=mode)
    assert y.dtype == dtype
    assert (y - exact).abs().max() < bound * exact.abs().max()


@pytest.mark.parametrize("mode", MODES[1:])
def test_float32_error_is_not_above_the_plain_ones(mode):
    u, k = torch.randn(4, 8, 1000), torch.randn(1, 8, 1000) / 30
    exact = double_sum(u.double(), k.double(), 0)
    plain, other = ((long_convolution(u, k, mode=name) - exact).square().mean().sqrt() for name in ("plain", mode))
    assert other < 1.2 * plain


@every_mode
@pytest.mark.parametrize("length", [64, 1000, 8192])
def test_float32_error_is_within_the_theory_of_the_transforms(mode, length):
    """|ŷ - y| ≤ c ε log₂N ‖u‖₂ ‖k‖₂: three transforms of N points, each with a relative error of c' ε log₂N in ‖·‖₂.

    Transforms keep ‖·‖₂ up to √N, and ‖FFT(u) FFT(k)‖₁ ≤ N ‖u‖₂ ‖k‖₂. The bound is of every sample and so far above
    what is found: roundings add up like a random walk, √log₂N. What is found must not grow faster than log₂N either.
    """
    epsilon, stages = torch.finfo(torch.float32).eps / 2, 1 + torch.tensor(2.0 * length).log2().ceil().item()
    u, k = torch.randn(3, 4, length), torch.randn(1, 4, length) * torch.linspace(1, 0, length)
    exact = long_convolution(u.double(), k.double(), mode="plain")
    error = (long_convolution(u, k, mode=mode) - exact).abs()
    scale = (
        epsilon * stages * u.double().norm(dim=-1).unsqueeze(1).unsqueeze(-1) * k.double().norm(dim=-1).unsqueeze(-1)
    )
    assert (error <= 3 * scale).all()
    assert error.square().mean().sqrt() <= 0.3 * scale.mean()


@pytest.mark.parametrize("mode", MODES[1:])
def test_the_output_has_the_order_of_the_input(mode):
    u, k = operands(2, 2, 5, 9, 9, steps_first=True)
    found = long_convolution(u, k, mode=mode)
    assert found.shape == (2, 2, 5, 9)
    assert found.permute(0, 3, 1, 2).is_contiguous()
    (by_u,) = torch.autograd.grad(found.sum(), u)
    assert by_u.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize(
    ("compiler", "small", "way"),
    [
        (False, 10**9, "_Whole"),
        (False, 0, "_Convolution"),
        pytest.param(True, 10**9, "_Convolution", marks=NATIVE),
    ],
)
def test_auto_takes_the_way_that_fits_the_size(compiler, small, way, monkeypatch):
    """On a CPU, that is; where a transform or tangents are at work, the three lines as they are written."""
    monkeypatch.setattr(long, "SMALL", small)
    monkeypatch.setattr(native_build, "available", lambda: compiler)
    u, k = operands(2, 1, 3, 9, 9)
    assert way in type(long_convolution(u, k).grad_fn).__name__
    assert long._resolved(u, k, "auto") == ("native" if compiler else "grouped" if small == 0 else "whole")
    found = torch.func.grad(lambda k: long_convolution(u.detach(), k).sum())(k.detach())
    exact = torch.autograd.grad(double_sum(u, k, 0).sum(), k)[0]
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("in_cpp", [False, pytest.param(True, marks=NATIVE)])
def test_operators_are_sound(in_cpp):
    """torch's own checks of schema, fake kernel, autograd registration and dynamic shapes."""
    u, k = operands(2, 2, 3, 5, 4)
    g = torch.randn(2, 2, 3, 5, dtype=torch.float64)
    torch.library.opcheck(torch.ops.hope_ssm.convolve.default, (u, k, 1, False, in_cpp))
    for options in ((True, True), (True, False), (False, True)):
        arguments = (g, u.detach(), k.detach(), 1, True, in_cpp, *options)
        torch.library.opcheck(torch.ops.hope_ssm.convolution_gradients.default, arguments)


@needs(COMPILED)
@pytest.mark.parametrize("mode", ["auto", *MODES[2:]])
def test_compiled(mode):
    torch._dynamo.reset()
    u, k = operands(2, 2, 3, 8, 8, steps_first=True)

    def call(u, k):
        return long_convolution(u * 2, k, ahead=3, mode=mode).sin()

    got, exact = torch.compile(call, fullgraph=True, backend="aot_eager")(u, k), call(u, k)
    torch.testing.assert_close(got, exact)
    for a, b in zip(*(torch.autograd.grad(y.sum(), (u, k)) for y in (got, exact)), strict=True):
        torch.testing.assert_close(a, b)


@needs(COMPILED)
def test_exported_graphs_need_no_operator_of_this_package():
    class Layer(torch.nn.Module):
        def forward(self, u, k):
            return long_convolution(u, k)

    graph = torch.export.export(Layer(), (torch.randn(2, 3, 8), torch.randn(1, 3, 8))).graph
    assert not [node for node in graph.nodes if "hope_ssm" in str(node.target)]


def test_short_of_memory_it_goes_on_row_by_row(monkeypatch, caplog):
    budgets, usual = [], grouped_convolution.Groups.of.__func__

    def of(cls, *arguments, budget=None):
        budgets.append(budget)
        if budget is None:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")
        return usual(cls, *arguments, budget=budget)

    monkeypatch.setattr(grouped_convolution.Groups, "of", classmethod(of))
    u, k = operands(2, 1, 3, 5, 5)
    torch.testing.assert_close(long_convolution(u, k, mode="grouped"), double_sum(u, k, 0))
    assert budgets == [None, 0]
    assert "Row by row" in caplog.text


@pytest.mark.parametrize("minimum", [1, 2, 3, 7, 13, 97, 511, 513, 1001, 8191, 8193, 10007, 65537])
def test_fft_length_is_the_next_even_5_smooth_number(minimum):
    def smooth(n):
        for prime in (2, 3, 5):
            while n % prime == 0:
                n //= prime
        return n == 1

    expected = next(n for n in range(max(2, minimum), 2 * minimum + 2) if n % 2 == 0 and smooth(n))
    assert grouped_convolution.fft_length(minimum) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "fast"}, "mode must be one of 'auto', 'native', 'grouped', 'whole', 'plain'; got 'fast'"),
        ({"ahead": 5}, r"ahead must be at least 0 and below L and K; got 5 with L=5, K=5"),
        ({"ahead": -1}, "ahead must be at least 0"),
        ({"k": torch.zeros(1, 2, 5)}, r"u and k must have shapes \(B, H, L\) and \(C, H, K\) with one H"),
    ],
)
def test_bad_input(change, message):
    arguments = {"u": torch.zeros(2, 3, 5), "k": torch.zeros(1, 3, 5)} | change
    with pytest.raises(ValueError, match=message):
        long_convolution(arguments.pop("u"), arguments.pop("k"), **arguments)


# Several threads


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("mode", "size"), [("grouped", (3, 1, 40, 9, 9)), pytest.param("native", (40, 1, 3, 99, 99), marks=NATIVE)]
)
def test_threads_change_nothing(mode, size, two_threads, monkeypatch):
    monkeypatch.setattr(grouped_convolution, "GROUP_BYTES", 1)
    u, k = operands(*size)
    y = long_convolution(u, k, mode=mode)
    found = y, *torch.autograd.grad(y.sin().sum(), (u, k))
    torch.set_num_threads(1)
    y = long_convolution(u, k, mode=mode)
    for a, b in zip(found, (y, *torch.autograd.grad(y.sin().sum(), (u, k))), strict=True):
        assert torch.equal(a, b)


def test_pieces_run_without_gradients_and_errors_arrive(two_threads):
    seen = []
    workers.for_each(lambda piece: seen.append((piece, torch.is_grad_enabled(), torch.get_num_threads())), range(4))
    assert sorted(seen) == [(piece, False, 1) for piece in range(4)]
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError):
        workers.for_each(lambda piece: 1 / piece, [1, 0, 2])


@RECOMPUTING
def test_inference_mode(mode, two_threads):
    with torch.inference_mode():
        u, k = torch.randn(2, 40, 9), torch.randn(1, 40, 9)
        torch.testing.assert_close(long_convolution(u, k, mode=mode), double_sum(u, k, 0), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own(two_threads):
    workers.for_each(lambda piece: None, range(4))
    child = os.fork()
    if child == 0:
        seen: list[int] = []
        workers.for_each(seen.append, range(4))
        os._exit(0 if sorted(seen) == [0, 1, 2, 3] else 1)
    assert os.waitpid(child, 0)[1] == 0
