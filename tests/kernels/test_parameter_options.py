"""Optimizer options and checkpoints: a kernel keeps them whatever tensors take the place of its parameters."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from hope_ssm import parameter_groups
from kernel_cases import build, every_kernel, optimizer_options

LR = {"lr": 0.001, "wd": 0.03}


def options(module):
    return sorted(
        (group.get("lr", -1), group.get("weight_decay", -1), tuple(group["names"]))
        for group in parameter_groups(module)
    )


def by_assignment(name):
    with torch.device("meta"):
        made = build(name, **LR)
    made.load_state_dict(build(name, **LR).state_dict(), assign=True)
    return made


def by_to_empty(name):
    with torch.device("meta"):
        made = build(name, **LR)
    return made.to_empty(device="cpu")


def by_conversion_that_overwrites(name):
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        return build(name, **LR).double()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


def by_new_parameters(name):
    made = build(name, **LR)
    for key, value in list(made.named_parameters()):
        setattr(made, key, nn.Parameter(value.detach() + 1))
    return made


def by_pickle(name):
    return pickle.loads(pickle.dumps(build(name, **LR)))


def by_deepcopy(name):
    return copy.deepcopy(by_assignment(name))


WAYS = [by_assignment, by_to_empty, by_conversion_that_overwrites, by_new_parameters, by_pickle, by_deepcopy]


@every_kernel
@pytest.mark.parametrize("way", WAYS)
def test_options_stay_with_their_names(name, way):
    """Where ``parameter_groups`` looks, and where the host does: on the parameter."""
    original, made = build(name, **LR), way(name)
    assert options(made) == options(original)
    on_parameters = [{k: optimizer_options(p) for k, p in module.named_parameters()} for module in (original, made)]
    assert on_parameters[0] == on_parameters[1]
    assert any(on_parameters[1].values())


@every_kernel
def test_a_parametrization_keeps_the_options(name):
    """Also one that has two tensors in a parameter's place."""
    kernel = build(name, **LR)
    key, options = next((key, value) for key, value in kernel.parameter_options.items() if value)
    parametrizations.weight_norm(kernel, key)
    groups = [group for group in parameter_groups(kernel) if f"parametrizations.{key}.original1" in group["names"]]
    assert len(groups) == 1
    assert {k: groups[0].get(k) for k in options} == options
    assert f"parametrizations.{key}.original0" in groups[0]["names"]


class Clamp(nn.Module):
    def forward(self, x):
        return x.clamp(-9, 9)

    def right_inverse(self, x):
        return x


@every_kernel
def test_a_parametrized_kernel_loads_its_own_state(name):
    one, other = build(name), build(name)
    for kernel in (one, other):
        parametrize.register_parametrization(kernel, next(iter(kernel.parameter_options)), Clamp())
    other.load_state_dict(one.state_dict())
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


@every_kernel
def test_pruned_weights_load(name):
    kernel = build(name)
    prune.l1_unstructured(kernel, next(iter(kernel.parameter_options)), 0.5)
    kernel.load_state_dict(copy.deepcopy(kernel.state_dict()))


@every_kernel
def test_not_strict_takes_what_fits(name):
    kernel, state = build(name), build(name).state_dict()
    lacking = next(iter(state))
    rest = {
        key: value + (0.5 if value.is_floating_point() else 1) for key, value in state.items() if key != lacking
    } | {"more": torch.zeros(1)}
    before = kernel.state_dict()[lacking].clone()
    found = kernel.load_state_dict(rest, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == ([lacking], ["more"])
    after = kernel.state_dict()
    assert torch.equal(after[lacking], before)
    assert all(torch.equal(after[key], rest[key]) for key in after if key != lacking)


@every_kernel
def test_all_members_can_be_listed(name):
    """No property raises: debuggers, notebooks and tracers read them all."""
    members = dict(inspect.getmembers(build(name)))
    assert members["d_state"] >= 0


def test_kernels_without_a_state_have_d_state_0():
    assert build("hope", truncation="none").d_state == 0
    assert build("rtf", truncation="none").d_state == 0
    assert build("hope", coefficients="complex_noncausal", truncation="none").d_state == 0
