"""Windows of the HOPE family where neither horizon nor l_max says how long the sequences are."""

from __future__ import annotations

import copy
import inspect
import logging

import pytest
import torch

from hope_ssm import HopeLayer, registry
from hope_ssm.workbench.configuration import compose

FAMILY = pytest.mark.parametrize("name", ["hope", "hope-bands"])


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="hope_ssm.kernels")
    return caplog


def build(name, seed=0, **options):
    torch.manual_seed(seed)
    return registry.get(name)(**{"d_model": 40, "d_state": 8, "verbose": False} | options)


@FAMILY
def test_the_first_batch_says_it_once_and_the_checkpoint_keeps_it(name):
    kernel, early, given = build(name), build(name, seed=3), build(name, horizon=3000)
    early.load_state_dict(kernel.state_dict())  # saved before the first batch
    twin = copy.deepcopy(kernel)
    before, next_number = kernel.sampling_period.detach(), torch.get_rng_state()
    for each in (kernel, twin, early):
        each(L=3000)
    assert torch.equal(torch.get_rng_state(), next_number)
    after = kernel.sampling_period.detach()
    assert torch.equal(twin.sampling_period, after)
    assert torch.equal(early.sampling_period, after)
    assert kernel.windows[0] == 3000
    assert after.max() < before.max() / 5
    assert (kernel.dt_min, kernel.dt_max) == (given.dt_min, given.dt_max)
    assert given.sampling_period.min() / 2 < after.min()
    assert after.max() < 2 * given.sampling_period.max()
    kernel(L=9)
    assert torch.equal(kernel.sampling_period, after)

    with torch.no_grad():
        next(iter(kernel.parameters())).add_(1)
    for other in (build(name, seed=1), build(name, seed=1, horizon=50)):
        other.load_state_dict(kernel.state_dict())
        torch.testing.assert_close(other(L=70)[0], kernel(L=70)[0])


@FAMILY
def test_a_checkpoint_without_the_length_is_one_of_trained_windows(name):
    """As every checkpoint before this was."""
    given, fresh = build(name, horizon=50), build(name, seed=1)
    fresh.load_state_dict(given.state_dict())
    torch.testing.assert_close(fresh(L=700)[0], given(L=700)[0])


@FAMILY
def test_chunks_and_steps_see_one_system(name):
    chunked, stepped = build(name), build(name)
    u = torch.randn(2, 40, 30)
    after = chunked.forward_state(u, chunked.default_state(2))
    chunked(L=30, state=chunked.default_state(2))
    torch.testing.assert_close(chunked.forward_state(u, chunked.default_state(2)), after)
    assert chunked.windows[0] == 30
    stepped.step(u[..., 0], stepped.default_state(2))
    before = stepped.sampling_period
    stepped(L=5000)
    assert torch.equal(stepped.sampling_period, before)


def test_parameters_that_someone_else_has_set_stay():
    kernel = build("hope")
    with torch.no_grad():
        kernel.raw_sampling_period.add_(1)
    before = kernel.sampling_period.detach().clone()
    kernel(L=3000)
    assert torch.equal(kernel.sampling_period, before)


def test_other_parameters_in_place_of_the_own_ones_are_not_written_to():
    kernel = build("hope")
    given = {key: value.detach().clone() for key, value in kernel.named_parameters()}
    before = {key: value.clone() for key, value in given.items()}
    k, _ = torch.func.functional_call(kernel, given, kwargs={"L": 3000})
    assert all(torch.equal(given[key], before[key]) for key in given)
    torch.testing.assert_close(kernel(L=3000)[0], k)


def test_compiled_first_it_stays_as_it_is_and_called_first_it_follows():
    """So that the compiled model and the model itself are one."""
    torch.manual_seed(0)
    layer, x = HopeLayer(3, d_state=8, verbose=False), torch.randn(2, 500, 3)
    y = torch.compile(layer, backend="eager", fullgraph=True)(x)
    kernel = layer.block.layer.kernel
    assert kernel.windows[0] == 0
    torch.testing.assert_close(layer(x), y, rtol=1e-4, atol=1e-5)
    other = HopeLayer(3, d_state=8, verbose=False)
    y = other(x)
    assert other.block.layer.kernel.windows[0] == 500
    torch.testing.assert_close(torch.compile(other, backend="eager", fullgraph=True)(x), y, rtol=1e-4, atol=1e-5)


def test_a_sequence_longer_than_every_window_is_one_warning(log):
    kernel = build("hope", horizon=10, verbose=True)
    kernel(L=100)
    assert not log.records
    for length in (400, 300, 400):
        kernel(L=length)
    (warning,) = log.records
    assert warning.levelno == logging.WARNING
    assert "hope: a sequence of 400 steps is longer than every window, the longest of 1" in warning.getMessage()
    log.clear()
    build("hope", verbose=True)(L=70)
    assert [record.getMessage() for record in log.records] == [
        "hope: neither horizon nor l_max said how long the sequences are; the windows follow the first ones, of 70 "
        "steps."
    ]


@FAMILY
def test_the_class_alone_is_the_recommended_kernel(name):
    """Its defaults say what kernel=NAME says in both hosts: values, sizes and learning rates are the same."""
    layer = compose(["pipeline=noisy-digits", f"kernel={name}"])["model"]["layer"]
    taken = inspect.signature(registry.get(name)).parameters
    options = {key: value for key, value in layer.items() if key in taken and key != "verbose"}
    configured, alone = build(name, **options), build(name, horizon=layer["horizon"])
    assert dict(configured.named_parameters()).keys() == dict(alone.named_parameters()).keys() != set()
    assert configured.parameter_options == alone.parameter_options
    torch.manual_seed(0)
    configured = registry.get(name)(**{**options, "d_model": 6, "verbose": False})
    torch.manual_seed(0)
    alone = registry.get(name)(d_model=6, horizon=layer["horizon"], verbose=False)
    for key, value in alone.state_dict().items():
        assert torch.equal(value, configured.state_dict()[key]), key
