"""What the host and the workbench rely on, asked of every kernel of this distribution and of its variants.

A new kernel in registry.yaml is tested here without a line added; a kernel without a recurrent mode says so there.
"""

from __future__ import annotations

import copy
import inspect
import io
import logging
import pickle

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from kernel_cases import (
    ENTRIES,
    OUTPUTS,
    RECURRENT,
    H,
    L,
    build,
    double_the_periods,
    every_case,
    every_kernel,
    optimizer_options,
    recurrent_kernels,
    sampled_kernels,
)


def host_options():
    """What FFTConv passes from the host's s4.yaml, as OmegaConf hands it over."""
    return OmegaConf.create(
        {
            "d_state": 64, "channels": 1, "init": "legs", "measure": None, "rank": 1, "dt_min": 0.001, "dt_max": 0.1,
            "dt_transform": "softplus", "lr": {"dt": 0.001, "A": 0.001}, "wd": 0.0, "n_ssm": 1, "verbose": True,
            "deterministic": False, "l_max": None,
        }
    )  # fmt: skip


# The constructor


@every_kernel
def test_constructor_takes_keywords_only(name):
    signature = inspect.signature(ENTRIES[name].load())
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    assert {"d_model", "channels", "l_max", "lr", "wd"} <= set(signature.parameters)
    with pytest.raises(TypeError, match="positional"):
        ENTRIES[name].load()(H)


@every_kernel
def test_constructor_takes_the_options_of_the_host(name):
    options = host_options()
    if name not in RECURRENT:
        options.l_max = 5
    kernel = ENTRIES[name](d_model=H, **options)
    assert kernel(L=5)[0].shape == (1, H, 5)


@every_case
def test_names_are_safe_and_the_module_is_silent(name, options, caplog):
    """The host resets ``_optim`` of names that end in bias; ``verbose=False`` logs nothing."""
    caplog.set_level(logging.DEBUG, logger="hope_ssm.kernels")
    kernel = build(name, **options)
    assert not caplog.records
    held = [*dict(kernel.named_parameters()), *dict(kernel.named_buffers())]
    assert held
    assert not [key for key in held if key.endswith("bias")]


@every_kernel
def test_deterministic_needs_no_random_numbers(name):
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        states.append(build(name, deterministic=True).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


# The kernel


@every_case
def test_shapes_and_dtypes(name, options):
    kernel = build(name, **options)
    for length in (1, 2, 3, L, 33):
        k, response = kernel(L=length)
        assert k.shape == (options.get("channels", 1), H, length)
        assert k.dtype == torch.float32
        assert torch.isfinite(k).all()
        assert response is None
    assert kernel.double()(L=L)[0].dtype == torch.float64


@recurrent_kernels
def test_lengths(name):
    """Any L with or without l_max; l_max where L is not given; a shorter kernel is the start of a longer one."""
    kernel, bounded = build(name), build(name, l_max=L)
    assert kernel.l_max is None
    assert bounded.l_max == L
    assert bounded()[0].shape[-1] == bounded(L=None)[0].shape[-1] == L
    assert bounded(L=5)[0].shape[-1] == 5
    assert bounded(L=40)[0].shape[-1] == 40
    assert kernel(L=np.int64(7))[0].shape[-1] == 7
    kernel.double()
    torch.testing.assert_close(kernel(L=20)[0][..., :9], kernel(L=9)[0], rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="L when l_max is None"):
        kernel()


@sampled_kernels
def test_rate(name):
    """An int is a rate too; 1 is none; 2 is the same kernel with twice the sampling period."""
    kernel = build(name, dt_transform="exp").double()
    torch.testing.assert_close(kernel(L=L, rate=1)[0], kernel(L=L)[0], rtol=0, atol=0)
    torch.testing.assert_close(kernel(L=L, rate=2)[0], kernel(L=L, rate=2.0)[0], rtol=0, atol=0)
    faster = copy.deepcopy(kernel)
    double_the_periods(faster)
    torch.testing.assert_close(faster(L=L)[0], kernel(L=L, rate=2)[0], rtol=1e-9, atol=1e-12)


@every_kernel
def test_default_dtype_is_followed(name):
    torch.set_default_dtype(torch.float64)
    try:
        kernel = build(name)
    finally:
        torch.set_default_dtype(torch.float32)
    assert {p.dtype for p in kernel.parameters()} == {torch.float64}
    assert kernel(L=L)[0].dtype == torch.float64


@every_kernel
@pytest.mark.parametrize("channels", [1, 2])
def test_bidirectional_as_in_the_host(name, channels, rng):
    """The layer asks for twice the channels, splits them (s c) and flips the second half: lags -1, -2, …"""
    kernel = build(name, channels=2 * channels).double()
    k = kernel(L=L)[0].detach()
    assert k.shape == (2 * channels, H, L)
    forward, backward = k.reshape(2, channels, H, L)
    assert not torch.allclose(forward, backward)

    u = torch.tensor(rng.standard_normal((H, L)))
    two_sided = torch.nn.functional.pad(forward, (0, L)) + torch.nn.functional.pad(backward.flip(-1), (L, 0))
    y = torch.fft.irfft(torch.fft.rfft(two_sided, n=2 * L) * torch.fft.rfft(u, n=2 * L), n=2 * L)[..., :L]
    for c, h in np.ndindex(channels, H):
        for t in range(L):
            past = sum(forward[c, h, t - s] * u[h, s] for s in range(t + 1))
            future = sum(backward[c, h, s - t - 1] * u[h, s] for s in range(t + 1, L))
            assert y[c, h, t].item() == pytest.approx((past + future).item(), abs=1e-12)


# Optimizer options, gradients, state dictionaries


@every_case
def test_optimizer_options_are_plain_and_hashable(name, options):
    """The host makes one group of every distinct set of items; nothing of OmegaConf may be in it."""
    options = dict(options)
    if isinstance(options.get("lr"), dict):
        options["lr"] = OmegaConf.create(options["lr"])
    kernel = build(name, **options)
    for parameter in kernel.parameters():
        said = optimizer_options(parameter)
        assert type(said) is dict
        assert set(said) <= {"lr", "weight_decay"}
        assert all(type(value) is float for value in said.values())
        hash(frozenset(said.items()))
        assert said.get("lr") != 0


@sampled_kernels
def test_lr_and_wd_rules(name):
    """dt answers to its name and to every bare number, C to its name; 0 by name freezes; None inherits."""

    def of(**options):
        kernel = build(name, **options)
        return kernel._parameters.get("raw_sampling_period"), kernel._parameters.get(OUTPUTS.get(name, "C"))

    def said(parameter):
        return optimizer_options(parameter)

    dt, C = of(lr=None, wd=None)
    assert said(dt) == said(C) == {}
    dt, C = of()
    assert said(dt) == {"weight_decay": 0.0, **({"lr": 0.001} if name in ("hope", "hope-bands") else {})}
    assert said(C) == {}
    dt, C = of(lr={"dt": 0.001}, wd={"dt": 0.1})
    assert said(dt) == {"lr": 0.001, "weight_decay": 0.1}
    assert said(C) == {}
    dt, C = of(lr={"C": 0.5}, wd={"C": 0.2, "dt": None})
    assert said(dt) == {}
    assert said(C) == {"lr": 0.5, "weight_decay": 0.2}
    assert said(of(lr=1)[0])["lr"] == 1.0
    dt, C = of(lr={"dt": 0})
    assert dt is None
    assert C is not None
    dt, C = of(lr=0)
    assert dt is None
    assert C is not None
    assert said(C).get("lr") is None
    dt, C = of(lr={"C": 0})
    assert dt is not None
    assert C is None


@every_case
def test_what_is_not_frozen_learns(name, options, rng):
    """Every parameter has a finite gradient that is not zero; what is frozen is a buffer and is saved."""
    kernel, free = build(name, **options), build(name)
    k, _ = kernel(L=L)
    (k * torch.tensor(rng.standard_normal(k.shape), dtype=k.dtype)).sum().backward()
    for parameter in kernel.parameters():
        assert parameter.requires_grad
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().max() > 1e-6
    assert not any(buffer.requires_grad for buffer in kernel.buffers())
    assert set(kernel.state_dict()) == set(free.state_dict())
    assert len(dict(kernel.named_buffers())) == len(dict(free.named_parameters())) - len(
        dict(kernel.named_parameters())
    )
    lr = options.get("lr")
    frozen = lr == 0 or (isinstance(lr, dict) and 0 in lr.values())
    assert bool(dict(kernel.named_buffers())) == frozen


@every_case
def test_state_dict_round_trip(name, options):
    options = options | {"deterministic": False}
    kernel = build(name, **options)
    file = io.BytesIO()
    torch.save(kernel.state_dict(), file)
    file.seek(0)
    other = build(name, **options)
    assert not torch.equal(other(L=L)[0], kernel(L=L)[0])
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(L=L)[0], kernel(L=L)[0])
    if "channels" not in options and "n_ssm" not in options:
        thawed = build(name)  # frozen or not, the names are the same
        thawed.load_state_dict(build(name, lr={"dt": 0, "C": 0}).state_dict())
        assert list(thawed.parameters())


@every_case
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_equal_and_independent(name, options, copier):
    """Copies keep the optimizer's options, or they would train at other learning rates."""
    kernel = build(name, **options)
    kernel(L=L)
    before = kernel(L=L)[0].detach()
    duplicate = copier(torch.nn.ModuleList([kernel]))[0]
    assert type(duplicate) is type(kernel)
    assert torch.equal(duplicate(L=L)[0], before)
    for (key, parameter), (other_key, other) in zip(
        kernel.named_parameters(), duplicate.named_parameters(), strict=True
    ):
        assert key == other_key
        assert optimizer_options(parameter) == optimizer_options(other)
    with torch.no_grad():
        for tensor in duplicate.state_dict().values():
            tensor.add_(0.5)
    assert torch.equal(kernel(L=L)[0], before)
    assert not torch.equal(duplicate(L=L)[0], before)


@every_kernel
def test_registry_says_whether_there_is_a_recurrent_mode(name):
    kernel = build(name)
    if ENTRIES[name].recurrent:
        assert torch.is_tensor(kernel.default_state(1))
    else:
        with pytest.raises(NotImplementedError, match="no recurrent mode"):
            kernel.default_state(1)
