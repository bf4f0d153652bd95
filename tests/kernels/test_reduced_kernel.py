"""Kernels cut down to fewer states, and the state space of any kernel read off its steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hope_ssm import registry
from hope_ssm.hankel import certificates, h_infinity_norm, state_space_singular_values
from hope_ssm.kernels.orthonormal import all_pass_chain, paired, reflections
from hope_ssm.kernels.reduced import reduce_kernel
from hope_ssm.kernels.to_state_space import stepped_system, system
from kernel_cases import KINDS


def make(name, n=16, **options):
    torch.manual_seed(1)
    own = {"d_model": 3, "d_state": n, "dt_min": 0.02, "dt_max": 0.5, "verbose": False}
    return registry.get(name)(**own | options).double()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", [*KINDS, "reduced"])
def test_the_steps_tell_the_state_space(name, channels):
    kernel = make(name, channels=channels)
    response = stepped_system(kernel).impulse_response(60).transpose(0, 1)
    torch.testing.assert_close(response, kernel(L=60)[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("options", [{"d_state": 6}, {"tolerance": 0.5}])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", KINDS)
def test_the_error_is_within_the_certificate(name, channels, options):
    """Of the responses themselves, sampled until they have decayed: nothing of the analysis is used but the claim."""
    kernel = make(name, channels=channels)
    reduced, report = reduce_kernel(kernel, **options)
    difference = kernel(L=8192)[0] - reduced(L=8192)[0]
    sampled = torch.fft.rfft(difference).abs().square().sum(0).sqrt().amax(-1).detach()
    assert (sampled <= report.certificate * (1 + 1e-6) + 1e-9).all()
    torch.testing.assert_close(sampled, report.measured, rtol=2e-2, atol=1e-6)
    sigma = state_space_singular_values(system(kernel)[0])
    for i, order in enumerate(report.orders.tolist()):
        rounding = report.certificate[i] - certificates(sigma)[i, order]
        assert 0 <= rounding <= 1e-9 * sigma[i, 0], "of float64"
        if "tolerance" in options:
            assert report.certificate[i] <= 0.5 * sigma[i, 0]
            assert order == 1 or certificates(sigma)[i, order - 1] > 0.5 * sigma[i, 0]
        else:
            assert order == 6


@pytest.mark.parametrize("name", KINDS)
def test_the_matrices_are_those_of_the_steps(name):
    """With orthonormal states, poles inside the circle, and a real state of as many numbers as were asked for."""
    reduced, _ = reduce_kernel(make(name, channels=2), d_state=6)
    A, B, C, D = reduced.matrices()
    stepped = stepped_system(reduced)
    for ours, theirs in zip((A, B, C, D), (stepped.A, stepped.B, stepped.C, stepped.D), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    eye = torch.eye(6, dtype=A.dtype).expand(3, 6, 6)
    torch.testing.assert_close(A @ A.mT + B.unsqueeze(-1) * B.unsqueeze(-2), eye, rtol=0, atol=1e-12)
    assert reduced.default_state(5).shape == (5, 3, 6)
    assert not reduced.default_state(5).is_complex()


@pytest.mark.parametrize(
    "poles", [[0.9, 0.9, 0.9, 0.9], [0.5 + 0.5j, 0.5 - 0.5j, 0.3, -0.3], [0.0, 0.0, 1 - 1e-9, 0.5], [0.7], [-0.2] * 3]
)
def test_a_chain_has_the_poles_asked_for(poles):
    """Equal ones, real ones of both signs, slow ones, and an odd number, which the pole 0 makes even."""
    poles = torch.tensor(poles, dtype=torch.complex128)
    chosen = paired(poles)
    A, B = all_pass_chain(reflections(chosen).unsqueeze(0))
    wanted = np.poly(chosen.numpy())
    assert np.poly(A[0].numpy()) == pytest.approx(wanted.real, abs=1e-12)
    assert len(chosen) == 2 * -(-len(poles) // 2)
    torch.testing.assert_close((A @ A.mT)[0] + torch.outer(B[0], B[0]), torch.eye(len(chosen)).double())


def test_every_kernel_can_keep_all_its_states():
    """Poles that are all equal (hope's), and modes that are far from orthogonal (those of S4)."""
    for name in KINDS:
        kernel = make(name)
        reduced, report = reduce_kernel(kernel, d_state=16)
        torch.testing.assert_close(reduced(L=100)[0], kernel(L=100)[0], rtol=0, atol=1e-7)
        assert (report.measured <= 1e-8 * report.largest).all()


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("name", ["s4", "s4d"])
def test_the_certificate_holds_of_what_is_stored_in_float32(name, tolerance):
    """Measured in float64 from the float32 parameters, of kernels as they are at the start."""
    torch.manual_seed(0)
    kernel = registry.get(name)(d_model=3, d_state=16, verbose=False)
    reduced, report = reduce_kernel(kernel, tolerance=tolerance)
    full, stored = (stepped_system(each) for each in (kernel, reduced))
    error = torch.stack([h_infinity_norm(full[i] - stored[i]) for i in range(3)])
    torch.testing.assert_close(error, report.measured, rtol=1e-4, atol=1e-12)
    assert (error <= report.certificate).all()
    assert (report.certificate <= tolerance * report.largest).all()


@pytest.mark.parametrize("name", KINDS)
def test_half_of_the_states_are_a_smaller_model_with_a_smaller_state(name):
    kernel = registry.get(name)(d_model=4, d_state=64, verbose=False)
    reduced, report = reduce_kernel(kernel, d_state=30)
    assert report.orders.tolist() == [30] * 4
    assert sum(p.numel() for p in reduced.parameters()) == 4 * 61 < sum(p.numel() for p in kernel.parameters())
    assert reduced.d_state == 4 * 30


def test_training_a_reduced_kernel_changes_all_of_it_and_keeps_it_stable():
    reduced, _ = reduce_kernel(make("hope"), d_state=6)
    before = {name: value.clone() for name, value in reduced.named_parameters()}
    optimizer = torch.optim.SGD(reduced.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        (reduced(L=64)[0] - 1).square().sum().backward()
        optimizer.step()
    assert all((value != before[name]).all() for name, value in reduced.named_parameters())
    assert torch.linalg.eigvals(reduced.matrices()[0]).abs().max() < 1


def test_hope_is_reduced_alike_at_every_sampling_period():
    """The systems at Δt = 1 are the same, so are orders, certificates and errors; and ``rate`` warps both alike."""
    reports = []
    for dt in (1e-3, 1.0, 30.0):
        kernel = make("hope", dt_min=dt, dt_max=dt)
        with torch.no_grad():
            kernel.markov_parameters.copy_(torch.tensor(np.random.default_rng(0).standard_normal((1, 3, 16))))
        reports.append(reduce_kernel(kernel, d_state=7)[1])
    for report in reports[1:]:
        torch.testing.assert_close(report.measured, reports[0].measured, rtol=1e-6, atol=0)
    kernel = make("hope", dt_min=0.5, dt_max=0.5)
    reduced, report = reduce_kernel(kernel, d_state=7)
    difference = kernel(L=4096, rate=2)[0] - reduced(L=4096, rate=2)[0]
    sampled = torch.fft.rfft(difference).abs()[0].amax(-1).detach()
    torch.testing.assert_close(sampled, report.measured, rtol=2e-2, atol=1e-6)


def test_float32_is_good_to_rounding():
    kernel = make("hope", n=32).float()
    reduced, report = reduce_kernel(kernel, d_state=16)
    assert {p.dtype for p in reduced.parameters()} == {torch.float32}
    assert (report.measured <= report.certificate).all()


def test_a_longer_memory_of_fewer_states_than_asked_for():
    """One mode needs two states: the other fourteen are not there."""
    kernel = make("s4d")
    with torch.no_grad():
        kernel.C[..., 1:, :] = 0
        kernel.C[..., 0, :] = 1
        kernel.A_imag[:] = 1.0
    _, report = reduce_kernel(kernel, d_state=9)
    assert report.orders.tolist() == [2, 2, 2]
    assert (report.measured < 1e-6 * report.largest).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tolerance": 0}, ValueError, "tolerance must be a finite number above 0; got 0"),
        ({"tolerance": float("nan")}, ValueError, "tolerance must be a finite number above 0; got nan"),
        ({"d_state": 0}, ValueError, "d_state must be a whole number of at least 1; got 0"),
        ({"d_state": 17}, ValueError, "d_state must be at most 16, what the kernel has; got 17"),
        ({"d_state": 2.5}, TypeError, "d_state must be a whole number"),
        ({}, ValueError, "either a tolerance or d_state must be given; got tolerance=None, d_state=None"),
        ({"tolerance": 1, "d_state": 1}, ValueError, "either a tolerance or d_state"),
        ({"tolerance": 1e-15}, ValueError, "tolerance must leave room for rounding to torch.float64, .* Ask for more"),
    ],
)
def test_bad_requests(options, error, message):
    with pytest.raises(error, match=message):
        reduce_kernel(make("hope"), **options)


def test_kernels_that_cannot_be_reduced():
    with pytest.raises(NotImplementedError, match="no recurrent mode"):
        reduce_kernel(registry.get("conv")(d_model=2, l_max=4), d_state=1)
    with pytest.raises(NotImplementedError, match="must have step and default_state to be a state space; Linear"):
        reduce_kernel(torch.nn.Linear(1, 1), d_state=1)
    kernel = make("hope")
    kernel.markov_parameters.data[:] = 0
    with pytest.raises(ValueError, match="must have a memory to reduce"):
        reduce_kernel(kernel, d_state=1)
    kernel.markov_parameters.data[:] = torch.nan
    with pytest.raises(ValueError, match="must be finite"):
        reduce_kernel(kernel, d_state=1)
    with pytest.raises(
        ValueError, match="d_state of reduced must be even, because its sections have two states; got 3"
    ):
        make("reduced", n=3)
