"""In evaluation the transform of a layer's kernel is kept: the same bits, made once, never those of another kernel."""

from __future__ import annotations

import copy
import io

import pytest
import torch

import hope_ssm.layers.fftconv as fftconv
from hope_ssm.layers.fftconv import FFTConvolution

B, L, H = 2, 33, 3
LAYERS = {
    "plain": {"convolution": "plain"}, "grouped": {"convolution": "grouped"}, "whole": {"convolution": "whole"},
    "channels": {"channels": 2},
    "bidirectional": {"bidirectional": True, "convolution": "grouped"}, "cut": {"l_max": 9},
    "both-now": {"bidirectional": True, "reverse_lag": 0}, "dropped": {"drop_kernel": 0.3},
}  # fmt: skip


@pytest.fixture
def made(monkeypatch):
    """How often a transform was made to be kept."""
    times, make = [], fftconv.kernel_spectrum

    def counted(*arguments):
        times.append(arguments)
        return make(*arguments)

    monkeypatch.setattr(fftconv, "kernel_spectrum", counted)
    return times


@torch.no_grad()
def afresh(layer, x, **options):
    """The outputs of a copy that keeps no transform."""
    copied = copy.deepcopy(layer)
    copied.spectra.of = lambda *_: None
    return copied(x, **options)[0]


def build(**options):
    return FFTConvolution(H, "hope", d_state=8, horizon=L, verbose=False, **options).eval()


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_same_bits_made_once(options, dtype, made):
    layer, x = build(**options), torch.randn(B, L, H, dtype=dtype)
    exact = afresh(layer, x)
    layer(x)  # with gradients: nothing is kept
    assert not made
    with torch.no_grad():
        assert all(torch.equal(layer(x)[0], exact) for _ in range(3))
        assert len(made) == 1
        state = layer.default_state(B) if not (layer.bidirectional or layer.l_max) else None
        if state is not None:
            assert torch.allclose(layer(x, state=state)[0].to(dtype), exact, atol=1e-2 if dtype.itemsize == 2 else 1e-5)


def by_parameter(layer):
    layer.kernel.markov_parameters.data.mul_(1.1)


def by_feedthrough(layer):
    layer.D.data.add_(1)


def by_mode(layer):
    layer.convolution = "plain"


def by_hook(layer):
    layer.kernel.register_forward_hook(lambda module, inputs, output: (2 * output[0], output[1]))


@pytest.mark.parametrize("change", [by_parameter, by_feedthrough, by_mode, by_hook])
def test_a_change_is_noticed(change, made):
    layer, x = build(convolution="grouped"), torch.randn(B, L, H)
    with torch.no_grad():
        before = layer(x)[0]
        change(layer)
        after = layer(x)[0]
    assert len(made) == 2
    assert torch.equal(after, afresh(layer, x))
    assert change is by_mode or not torch.equal(before, after)


def test_other_lengths_rates_batches_and_dtypes():
    layer = build()
    with torch.no_grad():
        for _ in range(2):
            for batch, length, rate, dtype in (
                (2, 33, 1, torch.float32),
                (3, 33, 1, torch.float64),
                (2, 7, 2, torch.float32),
            ):
                x = torch.randn(batch, length, H, dtype=dtype)
                assert torch.equal(layer(x, rate=rate)[0], afresh(layer, x, rate=rate))


def test_training_forgets_it_and_files_do_not_hold_it():
    layer, x = build(), torch.randn(B, L, H)
    sizes = []
    for _ in range(2):
        buffer = io.BytesIO()
        torch.save(layer, buffer)
        sizes.append(len(buffer.getvalue()))
        with torch.no_grad():
            layer(torch.randn(1, 3000, H))
    assert sizes[1] < sizes[0] + 1000
    assert layer.spectra._kept is not None
    assert copy.deepcopy(layer).spectra._kept is None
    layer(x)[0].sum().backward()
    assert layer.spectra._kept is None


def test_what_is_kept_is_five_times_the_kernel():
    layer = build(convolution="grouped")
    with torch.no_grad():
        layer(torch.randn(1, 1000, H))
    kept = layer.spectra._kept
    numbers = 2 * kept.result.numel() + sum(value.numel() for value in kept.values)
    assert numbers + layer.kernel.cache._kept.result.numel() == pytest.approx(4 * 1000 * H, rel=0.03)
