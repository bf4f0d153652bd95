"""What the host and the workbench rely on, asked of every kernel of this distribution and of its variants.

A new kernel in registry.yaml is tested here without a line added; a kernel without a recurrent mode says so there.
"""

from __future__ import annotations

import copy
import inspect
import io
import logging
import math
import pickle

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import reference
from hope_ssm import registry

H, N, L = 4, 6, 12
ENTRIES = {name: e for name, e in registry.kernels().items() if e.distribution == registry.DISTRIBUTION}
RECURRENT = [name for name, entry in ENTRIES.items() if entry.recurrent]
VARIANTS = {
    "plain": {},
    "channels": {"channels": 2},
    "tied": {"n_ssm": 1},
    "half_tied": {"n_ssm": 2, "channels": 2},
    "exp": {"dt_transform": "exp"},
    "softplus": {"dt_transform": "softplus"},
    "deterministic": {"deterministic": True},
    "lr_none": {"lr": None, "wd": None},
    "lr_number": {"lr": 0.002, "wd": 0.03},
    "lr_mapping": {"lr": {"dt": 0.001, "A": 0.001, "B": 0.001}, "wd": 0.0},
    "lr_zero": {"lr": 0},
    "dt_frozen": {"lr": {"dt": 0}},
    "all_named_frozen": {"lr": {"dt": 0, "A": 0, "B": 0}},
    "C_frozen": {"lr": {"C": 0}},
}

every_kernel = pytest.mark.parametrize("name", ENTRIES)
every_variant = pytest.mark.parametrize("variant", VARIANTS)
recurrent_kernels = pytest.mark.parametrize("name", RECURRENT)


def build(name, **options):
    return ENTRIES[name].load()(
        **{"d_model": H, "d_state": N, "dt_min": 0.05, "dt_max": 2.0, "verbose": False} | options
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


def optimizer_options(parameter):
    return getattr(parameter, "_optim", {})


# The constructor


@every_kernel
def test_constructor_takes_keywords_only(name):
    signature = inspect.signature(ENTRIES[name].load())
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    assert kinds <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
    assert {"d_model", "d_state", "channels", "l_max", "lr", "wd"} <= set(signature.parameters)
    with pytest.raises(TypeError, match="positional"):
        ENTRIES[name].load()(H)


@every_kernel
def test_constructor_takes_the_options_of_the_host(name):
    kernel = ENTRIES[name](d_model=H, **host_options())
    assert kernel(L=5)[0].shape == (1, H, 5)


@every_kernel
@every_variant
def test_names_are_safe_and_the_module_is_silent(name, variant, caplog):
    """The host resets ``_optim`` of names that end in bias; ``verbose=False`` logs nothing."""
    caplog.set_level(logging.DEBUG, logger="hope_ssm.kernels")
    kernel = build(name, **VARIANTS[variant])
    assert not caplog.records
    held = [*dict(kernel.named_parameters()), *dict(kernel.named_buffers())]
    assert held
    assert not [key for key in held if key.endswith("bias")]
    assert all(math.isfinite(float(v)) for v in getattr(kernel, "metrics", {}).values())


@every_kernel
def test_deterministic_needs_no_random_numbers(name):
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        states.append(build(name, deterministic=True).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


# The kernel


@every_kernel
@every_variant
def test_shapes_and_dtypes(name, variant):
    options = VARIANTS[variant]
    kernel = build(name, **options)
    for length in (1, 2, 3, L, 33):
        k, response = kernel(L=length)
        assert k.shape == (options.get("channels", 1), H, length)
        assert k.dtype == torch.float32
        assert torch.isfinite(k).all()
        assert response is None
    assert kernel.double()(L=L)[0].dtype == torch.float64


@every_kernel
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


@every_kernel
def test_rate(name):
    """An int is a rate too; 1 is none; 2 is the same kernel with twice the sampling period."""
    kernel = build(name, dt_transform="exp").double()
    torch.testing.assert_close(kernel(L=L, rate=1)[0], kernel(L=L)[0], rtol=0, atol=0)
    torch.testing.assert_close(kernel(L=L, rate=2)[0], kernel(L=L, rate=2.0)[0], rtol=0, atol=0)
    faster = copy.deepcopy(kernel)
    for key, value in faster.named_parameters():
        if optimizer_options(value) == optimizer_options(kernel.raw_sampling_period) and "sampling_period" in key:
            value.data += math.log(2.0)
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


@every_kernel
@every_variant
def test_optimizer_options_are_plain_and_hashable(name, variant):
    """The host makes one group of every distinct set of items; nothing of OmegaConf may be in it."""
    options = dict(VARIANTS[variant])
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


@every_kernel
def test_lr_and_wd_rules(name):
    """dt answers to its name and to every bare number, C to its name; 0 by name freezes; None inherits."""

    def of(**options):
        kernel = build(name, **options)
        C = "markov_parameters" if name == "hope" else "C"
        return kernel._parameters.get("raw_sampling_period"), kernel._parameters.get(C)

    def said(parameter):
        return optimizer_options(parameter)

    dt, C = of(lr=None, wd=None)
    assert said(dt) == said(C) == {}
    dt, C = of()
    assert said(dt) == {"weight_decay": 0.0}
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


@every_kernel
@every_variant
def test_what_is_not_frozen_learns(name, variant, rng):
    """Every parameter has a finite gradient that is not zero; what is frozen is a buffer and is saved."""
    kernel, free = build(name, **VARIANTS[variant]), build(name)
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
    if "frozen" in variant or variant == "lr_zero":
        assert dict(kernel.named_buffers())
    else:
        assert not dict(kernel.named_buffers())


@every_kernel
@every_variant
def test_state_dict_round_trip(name, variant):
    options = VARIANTS[variant] | {"deterministic": False}
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


@every_kernel
@every_variant
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_are_equal_and_independent(name, variant, copier):
    """Copies keep the optimizer's options, or they would train at other learning rates."""
    kernel = build(name, **VARIANTS[variant])
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


# The recurrent mode


@every_kernel
def test_registry_says_whether_there_is_a_recurrent_mode(name):
    kernel = build(name)
    if ENTRIES[name].recurrent:
        assert torch.is_tensor(kernel.default_state(1))
    else:
        with pytest.raises(NotImplementedError, match="no recurrent mode"):
            kernel.default_state(1)


@recurrent_kernels
@every_variant
@pytest.mark.parametrize("length", [1, 2, 17, 30])
def test_convolution_is_step_is_any_chunking(name, variant, length, rng):
    """From a state that is not zero: all at once, sample by sample, and in random stretches with ``forward_state``."""
    kernel = build(name, **VARIANTS[variant]).double()
    u = torch.tensor(rng.standard_normal((3, H, length)))
    start = kernel.default_state(3)
    start = start + torch.tensor(rng.standard_normal(start.shape)) * (1 + 0.5j if start.is_complex() else 1)

    def convolve(u, state):
        k, response = kernel(L=u.shape[-1], state=state)
        y = torch.zeros_like(response)
        for t in range(u.shape[-1]):
            y[..., t] = torch.einsum("chs,bhs->bch", k[..., : t + 1].flip(-1), u[..., : t + 1])
        return y + response, kernel.forward_state(u, state)

    with torch.no_grad():
        whole, last = convolve(u, start)
        assert whole.shape == (3, kernel.channels, H, length)

        kernel._setup_step()
        state, steps = start, []
        for x in u.unbind(-1):
            y, state = kernel.step(x, state)
            assert y.shape == (3, kernel.channels, H)
            steps.append(y)
        torch.testing.assert_close(torch.stack(steps, -1), whole, rtol=0, atol=1e-10)
        torch.testing.assert_close(state, last, rtol=0, atol=1e-10)

        for _ in range(3):
            cuts = np.sort(rng.choice(np.arange(1, length), size=min(3, length - 1), replace=False))
            state, parts = start, []
            for part in np.split(np.arange(length), cuts):
                y, state = convolve(u[..., part], state)
                parts.append(y)
            torch.testing.assert_close(torch.cat(parts, -1), whole, rtol=0, atol=1e-10)
            torch.testing.assert_close(state, last, rtol=0, atol=1e-10)


@recurrent_kernels
def test_convolution_is_the_double_loop(name, rng):
    """From rest, in numpy."""
    kernel = build(name, channels=2).double()
    u = rng.standard_normal((1, H, 15))
    state, steps = kernel.default_state(1), []
    with torch.no_grad():
        for t in range(15):
            y, state = kernel.step(torch.tensor(u[..., t]), state)
            steps.append(y)
        k = kernel(L=15)[0].numpy()
    y = torch.stack(steps, -1)[0].numpy()
    for c, h in np.ndindex(2, H):
        np.testing.assert_allclose(y[c, h], reference.causal_convolution(k[c, h], u[0, h]), atol=1e-11)


@recurrent_kernels
@every_variant
def test_default_state(name, variant):
    """Zeros of shape (*batch, H, …) on the parameters' device and in their precision, also when those are frozen."""
    kernel = build(name, **VARIANTS[variant])
    for batch in ((), (1,), (5,), (2, 3)):
        state = kernel.default_state(*batch)
        assert state.shape[: len(batch) + 1] == (*batch, H)
        assert not state.any()
        assert not state.requires_grad
        assert state.device == next(iter(kernel.state_dict().values())).device
        assert state.abs().dtype == torch.float32
    assert kernel.double().default_state(2).abs().dtype == torch.float64
    assert kernel.to("meta").default_state(2).device.type == "meta"
    assert kernel.d_state == math.prod(kernel.default_state().shape)
    assert kernel.state_to_tensor(torch.zeros(3, H, kernel.d_state // H)).shape == (3, kernel.d_state)


@recurrent_kernels
def test_state_keeps_its_shape_and_dtype(name):
    kernel = build(name)
    state = kernel.default_state(2)
    y, after = kernel.step(torch.randn(2, H), state)
    assert y.dtype == torch.float32
    assert (after.shape, after.dtype) == (state.shape, state.dtype)
    after = kernel.forward_state(torch.randn(2, H, 5), state)
    assert (after.shape, after.dtype) == (state.shape, state.dtype)
    response = kernel(L=5, state=state)[1]
    assert response.dtype == torch.float32


@recurrent_kernels
def test_everything_is_on_the_device_of_the_parameters(name):
    """On the device that holds no numbers, any tensor made elsewhere is an error."""
    kernel = build(name, channels=2).to("meta")
    u, state = torch.zeros(3, H, L, device="meta"), kernel.default_state(3)
    k, response = kernel(L=L, state=state)
    y, after = kernel.step(u[..., 0], state)
    last = kernel.forward_state(u, state)
    assert {x.device.type for x in (k, response, y, after, last)} == {"meta"}
    (k.sum() + response.sum() + last.abs().sum()).backward()


@recurrent_kernels
def test_gradients_flow_through_the_state(name):
    """Through a chunk: to the inputs and sampling periods before it."""
    kernel = build(name).double()
    u = torch.randn(2, H, 5, dtype=torch.float64, requires_grad=True)
    before = (kernel.default_state(2) + 0.3).requires_grad_()
    response = kernel(L=4, state=kernel.forward_state(u, before))[1]
    wanted = [u, before, *kernel.parameters()]
    for gradient in torch.autograd.grad(response.square().sum(), wanted):
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 1e-9

    def stretch(u):
        return torch.view_as_real(kernel.forward_state(u, before.detach()) + 0j)

    assert torch.autograd.gradcheck(stretch, u)


@recurrent_kernels
def test_setup_step(name):
    kernel = build(name)
    kernel._setup_step()
    kernel._setup_step(mode="dense")
    with pytest.raises(TypeError, match="setup_step has no option 'stride'"):
        kernel._setup_step(stride=2)
