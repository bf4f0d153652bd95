"""eSSM, the input memory and the frequency filter against dense float64 references, and whole, in chunks, in steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hope_ssm import registry
from hope_ssm.layers.essm import ESSM
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.hope_layer import HopeLayer
from hope_ssm.layers.input_memory import InputMemory
from hope_ssm.layers.linoss import LinOSS
from hope_ssm.layers.parameter_groups import parameter_groups
from hope_ssm.layers.s4block import S4Block
from hope_ssm.layers.s5 import S5
from recurrence import assert_whole_is_chunks_is_steps, zero_state

BATCH, LENGTH, H = 3, 11, 4


def block(kernel, **options):
    """A block in float64 whose memory, if it has one, is not at its start."""
    common = {"d_state": 6, **options}
    made = ESSM(H, heads=2, **common) if kernel == "essm" else S4Block(H, kernel=kernel, verbose=False, **common)
    for module in made.modules():
        if isinstance(module, InputMemory):
            torch.nn.init.normal_(module.weight)
    return made.double().eval()


def inputs():
    return torch.randn(BATCH, LENGTH, H, dtype=torch.float64)


@pytest.mark.parametrize("memory", [None, {"size": 4}, {"size": 1, "activation": "id"}, {"size": 20, "bias": False}])
@pytest.mark.parametrize("kernel", ["essm", "hope", "s4d"])
def test_whole_in_chunks_and_in_steps(kernel, memory):
    assert_whole_is_chunks_is_steps(block(kernel, input_memory=memory), inputs())


@pytest.mark.parametrize("kernel", ["essm", "hope"])
@torch.no_grad()
def test_what_follows_the_lengths_is_not_seen(kernel):
    layer, x, lengths = block(kernel, input_memory={"size": 4}), inputs(), torch.tensor([2, 11, 7])
    y, after = layer(x, zero_state(layer, BATCH), lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, state = layer(x[row : row + 1, :length], zero_state(layer, BATCH)[:1])
        torch.testing.assert_close(y[row : row + 1, :length], alone, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(after[row : row + 1], state, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("bidirectional", [False, True])
@torch.no_grad()
def test_essm_equals_its_definition(bidirectional):
    """The sums of the paper, in numpy's complex numbers."""
    layer, x = block("essm", bidirectional=bidirectional), inputs()
    system, kernel = layer.layer, layer.layer.kernel
    A = np.minimum(kernel.A_real.numpy(), -1e-4)[:, 0] + 1j * kernel.A_imag.numpy()[:, 0]
    dt, u = kernel.sampling_period.numpy(), x.numpy()
    B, C, D = (getattr(system, name).numpy() for name in "BCD")
    t = np.arange(LENGTH)
    kappa = (np.exp(np.outer(A * dt, t)) * ((np.exp(A * dt) - 1) / A)[:, None]).real.reshape(2, 6, LENGTH)
    y = np.zeros_like(u)
    for s in range(2):
        part = slice(2 * s, 2 * s + 2)
        v = u[:, :, part] @ B[s].T
        states = np.zeros_like(v)
        for now in range(LENGTH):
            for then in range(LENGTH if bidirectional else now + 1):
                lag = now - then
                states[:, now] += kappa[s][:, lag if lag >= 0 else -lag - 1] * v[:, then]
        y[:, :, part] = 2 * states @ C[s].T + D[part] * u[:, :, part]
    z = torch.nn.functional.gelu(torch.as_tensor(y) @ layer.mixer.weight.T + layer.mixer.bias)
    exact = z * torch.sigmoid(z @ layer.gate.weight.T + layer.gate.bias)
    torch.testing.assert_close(layer(x)[0], exact, rtol=1e-11, atol=1e-11)


def test_essm_counts_its_parameters_and_their_rates():
    """B and C have S·n·H/S numbers each, every mode has λ and Δ; the same backwards; B, λ and Δ learn at 0.001."""
    for bidirectional in (False, True):
        layer = ESSM(8, heads=2, d_state=6, bidirectional=bidirectional)
        assert sum(p.numel() for p in layer.layer.parameters()) == 2 * 6 * 8 + 3 * 12 + 8
        groups = parameter_groups(layer)
        slow = next(group for group in groups if group.get("lr") == 0.001)
        assert {n.rsplit(".", 1)[-1] for n in slow["names"]} == {"B", "raw_sampling_period", "A_real", "A_imag", "D"}
        assert slow["weight_decay"] == 0
    assert ESSM(8, heads=1).mixer is None


def test_essm_begins_as_its_authors_code_does():
    """Truncated normal numbers (at 2 deviations: variance 0.774) in B, by V* with orthogonal columns, and in C."""
    layer = ESSM(64, heads=4, d_state=64).layer
    assert torch.equal(layer.B[0], layer.B[3]), "every head the same"
    assert abs(layer.B[0].std() - 0.774**0.5) < 0.03  # V* of two parts, and the real one
    assert abs(layer.C.std() - 0.774**0.5) < 0.03
    assert layer.C.abs().max() <= 2
    assert torch.equal(layer.D, torch.ones(64))
    dt = layer.kernel.sampling_period
    assert dt.min() >= 0.001
    assert dt.max() <= 0.1


@torch.no_grad()
def test_input_memory_equals_a_double_loop():
    memory = InputMemory(H, size=3).double()
    torch.nn.init.normal_(memory.weight)
    x = inputs()
    exact = torch.zeros_like(x)
    for t in range(LENGTH):
        z = memory.bias + sum(memory.weight[:, j] * x[:, t - j] for j in range(min(3, t + 1)))
        exact[:, t] = torch.sigmoid(z) * x[:, t]
    torch.testing.assert_close(memory(x), exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "id"])
def test_an_input_memory_begins_near_the_identity_and_learns(activation):
    memory, x = InputMemory(H, activation=activation).double(), inputs()
    y = memory(x)
    assert (y - x).abs().max() < 0.06 * x.abs().max()
    (y * torch.randn_like(y)).sum().backward()
    assert (memory.weight.grad != 0).all()
    assert (memory.bias.grad != 0).all()


def test_size_0_is_no_memory():
    assert (
        S4Block(H, kernel="hope", input_memory={"size": 0}).state_dict().keys()
        == S4Block(H, kernel="hope").state_dict().keys()
    )


@pytest.mark.slow
def test_gradients_of_what_is_new():
    """Finite differences agree with the gradients by inputs and by every parameter of eSSM, memory and filter."""
    layer = block("essm", d_state=2, input_memory={"size": 2}, frequency_filter={"exponent": 0.3})
    x = inputs()[:1, :5].requires_grad_()
    names, values = zip(*layer.named_parameters(), strict=True)
    copies = [value.detach().clone().requires_grad_() for value in values]

    def outputs(u, *parameters):
        return torch.func.functional_call(layer, dict(zip(names, parameters, strict=True)), (u,))[0]

    assert torch.autograd.gradcheck(outputs, (x, *copies))


@pytest.mark.parametrize("options", [{}, {"channels": 2}, {"bidirectional": True}, {"l_max": 5}])
@torch.no_grad()
def test_frequency_filter_equals_its_definition(options):
    """ŷ = (1 + |f|)^β k̂ û by dense Fourier matrices on N = L + K steps, and D unfiltered."""
    layer = FFTConvolution(3, "hope", d_state=6, frequency_filter={"exponent": 0.0}, **options).double()
    layer.frequency_filter.exponent.normal_()
    x = torch.randn(2, LENGTH, 3, dtype=torch.float64)
    K = min(LENGTH, layer.l_max or LENGTH)
    N, k = LENGTH + K, layer.kernel(L=K)[0]
    circle = torch.zeros(layer.channels, 3, N, dtype=torch.float64)
    if layer.bidirectional:
        k, reverse = k.tensor_split(2)
        circle[..., N - LENGTH + 1 :] = reverse[..., : LENGTH - 1].flip(-1)  # those that reach a step
    circle[..., :K] += k
    frequency = np.abs(np.fft.fftfreq(N))
    gain = (1 + frequency) ** layer.frequency_filter.exponent.numpy()[..., None]
    fourier = np.exp(-2j * np.pi * np.outer(np.arange(N), np.arange(N)) / N)
    u = np.concatenate([x.numpy(), np.zeros((2, K, 3))], axis=1)
    spectrum = np.einsum("fl,blh->bhf", fourier, u)[:, None] * gain * (circle.numpy() @ fourier)
    y = (spectrum @ fourier.conj() / N).real[..., :LENGTH]
    exact = torch.as_tensor(y).permute(0, 3, 1, 2) + x.unsqueeze(2) * layer.D
    torch.testing.assert_close(layer(x)[0], exact.flatten(2), rtol=1e-11, atol=1e-11)


def test_frequency_filter_trains_at_its_rate_or_not_at_all():
    layer = FFTConvolution(3, "s4d", frequency_filter={"exponent": 0.0})
    assert layer.frequency_filter.exponent._optim == {"lr": 0.01, "weight_decay": 0.0}
    frozen = FFTConvolution(3, "s4d", frequency_filter={"exponent": -0.5, "lr": 0})
    assert not list(frozen.frequency_filter.parameters())


@pytest.mark.parametrize("name", ["s4d", "s4", "dss", "stable"])
def test_imag_scale_scales_the_frequencies_alone(name):
    make = registry.get(name)
    one, three = (make(d_model=H, d_state=6, imag_scale=scale, verbose=False).poles() for scale in (1, 3.0))
    torch.testing.assert_close(three.real, one.real)
    torch.testing.assert_close(three.imaginary, 3 * one.imaginary)
    with pytest.raises(ValueError, match="imag_scale must be a finite number above 0; got 0"):
        make(d_model=H, imag_scale=0, verbose=False)


@pytest.mark.parametrize(
    ("kernel", "options", "message"),
    [
        ("essm", {"heads": 3}, "heads must divide d_model=4; got 3"),
        ("essm", {"heads": 0}, "heads must be a whole number of at least 1; got 0"),
        ("essm", {"d_state": 0}, "d_state must be a whole number of at least 1; got 0"),
        ("essm", {"head": 2, "heads": 2}, "the essm layer has no option 'head'.*Did you mean 'heads'"),
        ("hope", {"input_memory": {"size": -1}}, "input_memory.size must be a whole number of at least 1; got -1"),
        ("hope", {"input_memory": {"sise": 2}}, "input_memory has no key 'sise'.*Did you mean 'size'"),
        ("hope", {"input_memory": 4}, "input_memory must be a mapping with size, activation, bias, or null; got 4"),
        ("hope", {"input_memory": {"activation": "sigmoit"}}, "input_memory.activation .*Did you mean 'sigmoid'"),
        ("hope", {"frequency_filter": {"beta": 1}}, "frequency_filter has no key 'beta'; valid are exponent, lr"),
        ("hope", {"frequency_filter": {"exponent": "a"}}, "frequency_filter.exponent must be a finite number; got 'a'"),
        ("hope", {"frequency_filter": {"exponent": 0}, "circular": True}, "circular must be false with a frequency"),
        ("hope", {"frequency_filter": 1.0}, "frequency_filter must be a mapping with exponent, lr, or null; got 1.0"),
    ],
)
def test_refusals(kernel, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        ESSM(H, **options) if kernel == "essm" else S4Block(H, kernel=kernel, **options)


def test_states_and_steps_that_are_refused():
    filtered = S4Block(H, kernel="hope", frequency_filter={"exponent": 0.0})
    x, state = torch.zeros(2, 5, H), filtered.default_state(2)
    for call in (lambda: filtered(x, state), lambda: filtered.step(x[:, 0], state), filtered.setup_step):
        with pytest.raises(ValueError, match="must be called on whole sequences, because the filter looks ahead"):
            call()
    short, long = (S4Block(H, kernel="hope", d_state=6, input_memory={"size": size}) for size in (2, 4))
    with pytest.raises(ValueError, match=r"input_memory.size=4 must be real of shape \(2, 36\); got .*\(2, 28\)"):
        long(x, short.default_state(2))
    with pytest.raises(TypeError, match=r"state must be complex of shape \(batch, 48, 1\)"):
        ESSM(H, heads=4, d_state=12)(x, filtered.default_state(2))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: ESSM(H, heads=2, d_state=3),
        lambda: S5(H, d_state=8),
        lambda: LinOSS(H, d_state=6),
        lambda: S4Block(H, kernel="hope", d_state=6, horizon=9, input_memory={"size": 3}),
        lambda: HopeLayer(H, d_state=6, horizon=9),
    ],
    ids=["essm", "s5", "linoss", "memory", "hope"],
)
def test_what_stands_in_the_padding_reaches_no_gradient(layer):
    """Not even if it is not a number: 0 · NaN is NaN."""
    module, lengths = layer().double(), torch.tensor([9, 4, 1])
    zeros = torch.randn(3, 9, H, dtype=torch.float64)
    for row, length in zip(zeros, lengths, strict=True):
        row[length:] = 0
    padding = torch.arange(9) >= lengths[:, None]
    gradients = []
    for x in (zeros, zeros.masked_fill(padding[..., None], math.nan)):
        y = module(x, lengths=lengths)
        y = y if isinstance(y, torch.Tensor) else y[0]
        gradients.append(torch.autograd.grad(y[~padding].square().sum(), list(module.parameters())))
    for got, wanted in zip(*gradients, strict=True):
        assert torch.equal(got, wanted)
