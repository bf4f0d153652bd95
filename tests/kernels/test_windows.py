"""Windows of the HOPE family where neither horizon nor l_max says how long the sequences are."""

from __future__ import annotations

import inspect
import logging

import pytest
import torch

from hope_ssm import checks, registry
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.training import build as build_task

FAMILY = pytest.mark.parametrize("name", ["hope", "hope-bands"])


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.WARNING, logger="hope_ssm")
    return caplog


def build(name, seed=0, **options):
    torch.manual_seed(seed)
    return registry.get(name)(**{"d_model": 40, "d_state": 8, "verbose": False} | options)


@FAMILY
def test_the_length_of_the_data_is_said_once(name):
    kernel, given = build(name), build(name, horizon=3000)
    before = kernel.sampling_period.detach().clone()
    kernel.set_length(3000)
    after = kernel.sampling_period.detach().clone()
    assert after.max() < before.max() / 5
    assert (kernel.dt_min, kernel.dt_max) == (given.dt_min, given.dt_max)
    kernel.set_length(9)
    given.set_length(9)
    assert torch.equal(kernel.sampling_period, after)
    assert given.sampling_period.max() < before.max() / 5


@FAMILY
def test_of_the_sizes_of_several_axes_l_max_says_which(name):
    one, axis = build(name, horizon=50), build(name, horizon=[9, 50], l_max=50)
    assert all(torch.equal(value, one.state_dict()[key]) for key, value in axis.state_dict().items())
    with pytest.raises(ValueError, match=r"one whole number where l_max does not say which axis .*; got \[9, 50\]\."):
        build(name, horizon=[9, 50])


@FAMILY
def test_a_checkpoint_goes_before_the_length_of_the_data(name):
    given, fresh = build(name, horizon=50), build(name, seed=1)
    fresh.load_state_dict(given.state_dict())
    fresh.set_length(9)
    torch.testing.assert_close(fresh(L=700)[0], given(L=700)[0])


def test_a_sequence_longer_than_every_window_is_one_warning(log):
    kernel = build("hope", horizon=10, verbose=True)
    kernel(L=100)
    assert not log.records
    for length in (400, 300, 400, 500):
        kernel(L=length)
    (warning,) = log.records
    assert warning.levelno == logging.WARNING
    assert "hope: a sequence of 400 steps is longer than every window, the longest of 1" in warning.getMessage()


@FAMILY
def test_a_length_that_nothing_says_is_one_warning(name, log):
    kernels = {
        "nothing": build(name, verbose=True), "a bound": build(name, verbose=True, dt_min=0.01),
        "l_max": build(name, verbose=True, l_max=90), "horizon": build(name, verbose=True, horizon=90),
        "the data set": build(name, verbose=True), "a checkpoint": build(name, verbose=True),
    }  # fmt: skip
    kernels["the data set"].set_length(90)
    kernels["a checkpoint"].load_state_dict(build(name, horizon=90).state_dict())
    warned = []
    for case, kernel in kernels.items():
        log.clear()
        for length in (9, 90):
            checks._said.clear()
            kernel(L=length)
        warned += [case for record in log.records if "Set horizon to the length of the longest one" in record.message]
    assert warned == ["nothing", "a bound"]


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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        *(
            (["pipeline=noisy-digits", "model=s4", f"model.layer.mode={name}"], 1)
            for name in ("hope", "hankel", "hope-bands", "banded")
        ),
        (["pipeline=noisy-digits", "model=s4", "kernel=hope"], 0),
        (["pipeline=noisy-digits", "model=s4", "kernel=hope", "model.layer.dt_min=0.001", "model.layer.dt_max=0.1"], 0),
        (["pipeline=noisy-digits", "model=s4", "model.layer.mode=s4d"], 0),
    ],
)
def test_the_workbench_says_once_what_mode_alone_keeps_of_s4(options, said, log):
    build_task(compose(options))
    kept = " keeps what the file of the layer sets for S4: n_ssm=1, dt_min=0.001, dt_max=0.1. Put kernel=hope"
    assert [kept in record.message for record in log.records if "mode=" in record.message] == [True] * said
