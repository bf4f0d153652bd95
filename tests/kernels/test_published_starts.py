"""Initial parameters against those of their authors' code: mean, deviation and greatest modulus at H = 64, n = 64.

The figures of S4 and S4D are also compared with the host's own kernels where STATE_SPACES_HOME names a checkout:
tests/hosts/test_real_host_starts.py. The others are what the authors' public code draws.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hope_ssm import registry

H, N = 64, 64
SPREAD = 6 / math.sqrt(H * N)  # six standard errors of a mean of H n normal numbers


def kernel(name, **options):
    torch.manual_seed(0)
    return registry.get(name)(d_model=H, d_state=N, n_ssm=1, verbose=False, **options)


def complex_numbers(pairs):
    return torch.view_as_complex(pairs.detach().double().contiguous()).numpy()


@pytest.mark.parametrize(
    ("init", "rank", "real", "imaginary", "whole"),
    [
        ("legs", 1, 0.5258, 2.0, 40.7518),
        ("legt", 2, 14.5069, 2.0, 14.5113),
        ("lagt", 1, 0.1250, 2.0, 5.0935),
        ("fout", 1, 1.0, 0.0, 1.0),
    ],
)
def test_inputs_of_s4_end_at_2(init, rank, real, imaginary, whole):
    """As in state-spaces/s4, where the imaginary part is cut off; B_clip=None is the whole B of the paper."""
    B = complex_numbers(kernel("s4", init=init, rank=rank).B)
    assert abs(B.real).max() == pytest.approx(real, abs=1e-4)
    assert abs(B.imag).max() <= imaginary + 1e-4
    B = complex_numbers(kernel("s4", init=init, rank=rank, B_clip=None).B)
    assert abs(B).max() == pytest.approx(whole, abs=1e-4)


def test_inputs_of_s4d():
    """HiPPO's B, cut off at 2, for diag-legs, and ones for the others; input_init decides otherwise."""
    hippo = complex_numbers(kernel("s4", init="legs").B)
    assert np.array_equal(complex_numbers(kernel("s4d", init="diag-legs").B), hippo)
    assert (complex_numbers(kernel("s4d", init="diag-lin").B) == 1).all()
    assert (complex_numbers(kernel("s4d", init="diag-legs", input_init="ones").B) == 1).all()


@pytest.mark.parametrize("name", ["s4", "s4d", "dss", "stable"])
def test_complex_outputs_have_variance_1(name):
    C = complex_numbers(kernel(name).C)
    assert abs(C.mean()) < SPREAD * math.sqrt(2)
    assert (abs(C) ** 2).mean() == pytest.approx(1, abs=2 * SPREAD)


def test_s4d_real_has_the_gain_of_state_spaces():
    """There k = 2 Σ C_j …, C the real part of a number of variance 1, of n real modes -1 … -n; and B = 1."""
    ours, earlier = kernel("s4d-real", output_gain=2.0), kernel("s4d-real")
    torch.testing.assert_close(ours.outputs(), math.sqrt(2) * earlier.outputs())
    assert ours.C.var().item() == pytest.approx(0.5, abs=2 * SPREAD)
    torch.testing.assert_close(torch.exp(ours.A_log)[0], torch.arange(1.0, N + 1))
    with torch.no_grad():
        earlier.C.copy_(ours.C)
    torch.testing.assert_close(ours(L=20)[0], 2 * earlier(L=20)[0])


@pytest.mark.parametrize(("offset", "weight"), [(0.1, math.sqrt(1.9)), (0.5, math.sqrt(1.5))])
def test_decay_of_stable_ssm(offset, weight):
    """-1/(w² + 0.1) is -½ at w = √1.9; files of earlier versions have ½ in place of 0.1."""
    stable = kernel("stable", offset=offset)
    torch.testing.assert_close(stable.A_weight, torch.full_like(stable.A_weight, weight))
    torch.testing.assert_close(stable.poles().real, torch.full_like(stable.poles().real, -0.5))


@pytest.mark.parametrize("variant", ["exp", "softmax"])
def test_two_periods_of_dss(variant):
    """Equal at the start; Δt' alone turns the modes: e^{t(Δt Re λ + i Δt' Im λ)}, and what divides by λ stays."""
    one, two = (kernel("dss", variant=variant, l_max=31, separate_periods=flag).double() for flag in (False, True))
    two.load_state_dict(one.state_dict() | {"raw_imaginary_period": one.raw_sampling_period})
    torch.testing.assert_close(two(L=31)[0], one(L=31)[0])
    with torch.no_grad():
        two.raw_imaginary_period += 0.3
    poles = two.poles().real + 1j * two.poles().imaginary
    dt, other = (two.transformed(raw).unsqueeze(-1) for raw in (two.raw_sampling_period, two.raw_imaginary_period))
    turned = dt * poles.real + 1j * other * poles.imag
    scale = (torch.exp(turned) - 1) / poles / (torch.exp(31 * turned) - 1 if variant == "softmax" else 1)
    powers = torch.exp(turned.unsqueeze(-1) * torch.arange(31))
    expected = 2 * torch.einsum("chn,hnl->chl", torch.view_as_complex(two.C) * scale, powers).real
    torch.testing.assert_close(two(L=31)[0], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("start", "bound"), [("xavier", 1 / 8), ("montel", 1 / 64)])
def test_starts_of_rtf(start, bound):
    """Uniform: deviation bound/√3."""
    rtf = kernel("rtf", start=start)
    assert rtf.numerator.abs().max() <= bound
    assert rtf.numerator.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03)
    assert 0.8 * bound < rtf.denominator.abs().max() <= bound


def test_constraint_of_rtf_keeps_the_poles_inside():
    rtf = kernel("rtf", start="xavier", constraint="l1_montel")
    with torch.no_grad():
        rtf.denominator *= 50
    a = rtf.coefficients().detach().numpy()[0]
    assert abs(np.roots([1, *a])).max() < 1
    raw, slack = rtf.denominator.detach().double(), rtf.slack.detach().double()
    np.testing.assert_allclose(a, raw[0] / (raw.abs().sum() + slack + 1e-6), rtol=1e-12)
    rtf(L=65)[0].square().sum().backward()
    assert rtf.slack.grad.abs().item() > 0
