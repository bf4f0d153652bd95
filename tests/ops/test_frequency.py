"""The frequency grid and the all-pass warp."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hope_ssm.ops.frequency import allpass_nodes, frequency_grid, laguerre_prefactor, warped_angle

PERIODS = [1e-6, 1e-3, 0.1, 0.999, 1.0, 3.0, 10.0, 1e4]
LENGTHS = [1, 2, 3, 4, 5, 64, 65]


def coefficient(dt):
    return (dt - 1) / (dt + 1)


@pytest.mark.parametrize("length", LENGTHS)
def test_grid_is_that_of_the_real_fft(length):
    theta = frequency_grid(length)
    assert theta.dtype == torch.float64
    np.testing.assert_allclose(theta.numpy(), 2 * np.pi * np.fft.rfftfreq(length), atol=1e-15)


@pytest.mark.parametrize("dt", PERIODS)
@pytest.mark.parametrize("length", LENGTHS)
def test_nodes_are_the_warped_angles_and_the_allpass_filter(dt, length):
    theta = frequency_grid(length)
    node = allpass_nodes(torch.tensor(dt, dtype=torch.float64), length)
    angle = warped_angle(theta, torch.tensor(dt, dtype=torch.float64))
    delay, a = torch.exp(-1j * theta), coefficient(dt)
    tolerance = 1e-14 * max(dt, 1 / dt)  # of the right-hand sides: their rounding is amplified by the slope of the warp
    torch.testing.assert_close(node, torch.exp(-1j * angle), rtol=0, atol=1e-14)
    torch.testing.assert_close(node, (delay + a) / (1 + a * delay), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-15), (torch.float32, 5e-7)])
def test_allpass_has_modulus_one(dtype, tolerance):
    node = allpass_nodes(torch.tensor(PERIODS, dtype=dtype), 1001)
    assert (node.abs() - 1).abs().max() < tolerance


def test_float32_nodes_have_signed_angles():
    """Up to rounding of a few ε at every angle, also near θ = π, where an unsigned angle would be 2π off."""
    dt = torch.tensor(np.float32(PERIODS))
    exact = allpass_nodes(dt.double(), 4096)
    assert (allpass_nodes(dt, 4096) - exact).abs().max() < 5e-7
    theta = frequency_grid(4096)
    assert (warped_angle(theta, dt.double()[:, None]) <= math.pi * (1 + 1e-15)).all()
    assert (warped_angle(-theta, dt.double()[:, None]) == -warped_angle(theta, dt.double()[:, None])).all()


def test_unit_period_is_the_identity():
    theta = frequency_grid(64)
    torch.testing.assert_close(warped_angle(theta, torch.tensor(1.0, dtype=torch.float64)), theta, rtol=0, atol=1e-15)


@given(
    theta=st.floats(-math.pi, math.pi),
    first=st.floats(1e-3, 1e3),
    second=st.floats(1e-3, 1e3),
)
def test_warps_form_a_group(theta, first, second):
    """Warping by Δ₁ and then by Δ₂ is warping by Δ₁Δ₂; the inverse is 1/Δ."""
    theta, first, second = (torch.tensor(x, dtype=torch.float64) for x in (theta, first, second))
    once = warped_angle(theta, first * second)
    twice = warped_angle(warped_angle(theta, second), first)
    assert torch.abs(torch.exp(1j * once) - torch.exp(1j * twice)) < 1e-12
    back = warped_angle(warped_angle(theta, first), 1 / first)
    assert torch.abs(torch.exp(1j * theta) - torch.exp(1j * back)) < 1e-10


@given(theta=st.floats(-3.1, 3.1), dt=st.floats(1e-3, 1e2), rate=st.floats(1e-2, 1e2))
def test_relative_rate_is_a_warp_of_the_angle(theta, dt, rate):
    """The system at r·Δt and θ_r is the system at Δt and θ where tan(θ_r/2) = r tan(θ/2)."""
    theta_r = torch.tensor(2 * math.atan(rate * math.tan(theta / 2)), dtype=torch.float64)
    there = warped_angle(theta_r, torch.tensor(rate * dt, dtype=torch.float64))
    here = warped_angle(torch.tensor(theta, dtype=torch.float64), torch.tensor(dt, dtype=torch.float64))
    assert torch.abs(torch.exp(1j * there) - torch.exp(1j * here)) < 1e-10


@pytest.mark.parametrize("dt", PERIODS)
@pytest.mark.parametrize("length", LENGTHS)
def test_laguerre_prefactor_is_the_first_order_section(dt, length):
    a, delay = coefficient(dt), torch.exp(-1j * frequency_grid(length))
    value = laguerre_prefactor(torch.tensor(dt, dtype=torch.float64), length)
    exact = 1 / (1 + a * delay)
    tolerance = 1e-14 * max(dt, 1 / dt)
    assert ((value - exact).abs() / exact.abs()).max() < tolerance


def test_laguerre_functions_are_orthonormal():
    """√(1 - a²) Pᵏ / (1 + a z⁻¹), k = 0 … 7: their Gram matrix over the circle is the identity."""
    length, dt = 2000, torch.tensor(0.3, dtype=torch.float64)
    theta = torch.arange(length, dtype=torch.float64) * (2 * math.pi / length)
    a = coefficient(0.3)
    half = laguerre_prefactor(dt, length) * allpass_nodes(dt, length) ** torch.arange(8)[:, None]
    full = torch.cat([half, half[:, 1 : length // 2].flip(-1).conj()], dim=-1) * math.sqrt(1 - a * a)
    assert full.shape[-1] == len(theta)
    gram = full @ full.mH / length
    torch.testing.assert_close(gram, torch.eye(8, dtype=gram.dtype), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 5, 6])
@pytest.mark.parametrize("function", [allpass_nodes, laguerre_prefactor])
def test_gradients(function, length):
    dt = torch.tensor([1e-2, 0.7, 1.0, 4.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: torch.view_as_real(function(x, length)), dt)
    assert torch.autograd.gradgradcheck(lambda x: torch.view_as_real(function(x, length)), dt)


def test_warped_angle_gradient():
    theta = torch.tensor([-3.0, -1.0, 0.2, 2.0], dtype=torch.float64)
    dt = torch.tensor([[0.05], [1.0], [8.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: warped_angle(theta, x), dt)
