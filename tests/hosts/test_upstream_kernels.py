"""The kernels of the contribution to the host are those of this package: values, gradients, states, options."""

from __future__ import annotations

import importlib
import sys
import types

import pytest
import torch
from torch import nn

from hope_ssm import HopeKernel
from hope_ssm.hosts import upstream
from hope_ssm.kernels.hope_bands import HopeBandsKernel


class Kernel(nn.Module):
    """What the contribution takes from the host's base class."""

    def __init__(self, d_model, channels=1, l_max=None, lr=None, wd=0.0, verbose=True, **kwargs):
        super().__init__()
        self.H, self.L, self.l_max, self.channels, self.lr, self.wd = d_model, l_max, l_max, channels, lr, wd
        self.unused = kwargs

    def register(self, name, tensor, lr=None, wd=0.0):
        if lr == 0:
            self.register_buffer(name, tensor)
            return
        setattr(self, name, nn.Parameter(tensor))
        options = {"lr": lr, "weight_decay": wd}
        getattr(self, name)._optim = {key: value for key, value in options.items() if value is not None}


@pytest.fixture(scope="module")
def contributed() -> dict[type, type]:
    """The kernels of the contribution by ours, on a stand-in of the host's base class."""
    base, package = types.ModuleType("contribution.kernel"), types.ModuleType("contribution")
    base.Kernel, package.__path__ = Kernel, [str((upstream.contribution() / upstream.KERNEL).parent)]
    sys.modules.update({"contribution": package, "contribution.kernel": base})
    try:
        plain, bands = (importlib.import_module(f"contribution.{name}") for name in ("hope", "hope_bands"))
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "contribution"]:
            sys.modules.pop(name)
    return {HopeKernel: plain.HOPEKernel, HopeBandsKernel: bands.HOPEBandsKernel}


@pytest.fixture(scope="module")
def theirs(contributed) -> type:
    """HOPE of the contribution."""
    return contributed[HopeKernel]


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


SIZES = {  # options, length, rate
    "odd": ({"d_model": 4, "channels": 2, "d_state": 7, "n_ssm": 2, "dt_transform": "exp"}, 33, 1.0),
    "one sample": ({"d_model": 3, "d_state": 1}, 1, 2),
    "one parameter": ({"d_model": 2, "d_state": 1, "n_ssm": 1}, 5, 1.0),
    "long": ({"d_model": 2, "d_state": 8, "n_ssm": 1, "dt_min": 1e-3, "dt_max": 0.01}, 1000, 0.5),
    "shorter than n": ({"d_model": 2, "channels": 2, "d_state": 16}, 5, 1.0),
    "period one": ({"d_model": 2, "d_state": 6, "dt_min": 1.0, "dt_max": 1.0}, 17, 1.0),
    "long periods": ({"d_model": 3, "d_state": 5, "dt_min": 2.0, "dt_max": 20.0}, 40, 3.0),
    "window": ({"d_model": 2, "d_state": 8, "dt_min": None, "dt_max": None, "l_max": 50}, 50, 1.0),
    "horizon": ({"d_model": 2, "d_state": 8, "dt_min": None, "dt_max": None, "horizon": 90, "l_max": 50}, 50, 1.0),
    "an axis": ({"d_model": 2, "d_state": 8, "dt_min": None, "dt_max": None, "horizon": [9, 50], "l_max": 50}, 50, 1.0),
    "deterministic": ({"d_model": 4, "d_state": 8, "n_ssm": 2, "deterministic": True, "init_scale": 2.0}, 20, 1.0),
}


BANDED = {
    "odd": ({"d_model": 7, "channels": 2, "d_state": 12, "bands": 3, "dt_transform": "exp"}, 33, 1.0),
    "one sample": ({"d_model": 3, "d_state": 2}, 1, 2),
    "one state": ({"d_model": 2, "d_state": 4, "bands": 2, "n_ssm": 1}, 5, 1.0),
    "long": ({"d_model": 4, "d_state": 16, "n_ssm": 2, "banded_share": 0.5}, 1000, 0.5),
    "tied": ({"d_model": 6, "d_state": 8, "n_ssm": 2, "banded_share": 0.7}, 40, 3.0),
    "shorter than m": ({"d_model": 2, "channels": 2, "d_state": 32, "bands": 1, "band_width": 3.0}, 5, 1.0),
    "horizon": ({"d_model": 4, "d_state": 8, "dt_min": None, "dt_max": None, "horizon": 90, "l_max": 50}, 50, 1.0),
    "l_max": ({"d_model": 4, "d_state": 8, "l_max": 50, "band_scale": 3.0, "band_width": 0.4}, 50, 1.0),
    "deterministic": ({"d_model": 6, "d_state": 8, "deterministic": True, "band_scale": 2.0}, 20, 1.0),
}
CASES = [(HopeKernel, case) for case in SIZES.values()] + [(HopeBandsKernel, case) for case in BANDED.values()]
NAMES = [*SIZES, *(f"bands, {name}" for name in BANDED)]


def outcome(cls, options, length, rate):
    """Everything a kernel computes, with gradients, by name."""
    torch.manual_seed(0)
    kernel = cls(**{"dt_min": 0.05, "dt_max": 3.0} | options)
    torch.manual_seed(1)
    state = torch.randn(2, options["d_model"], options["d_state"], requires_grad=True)
    u = torch.randn(*state.shape[:2], length, requires_grad=True)
    k, response = kernel(L=length, rate=rate, state=state)
    last = kernel.forward_state(u, state)
    weighted = sum((x * torch.randn(x.shape)).sum() for x in (k, response, last))
    variables = {**dict(kernel.named_parameters()), "state": state, "u": u}
    gradients = dict(zip(variables, torch.autograd.grad(weighted, list(variables.values())), strict=True))
    kernel._setup_step()
    stepped, y, s = [], None, state
    for sample in u.unbind(-1):
        y, s = kernel.step(sample, s)
        stepped.append(y)
    default = kernel.default_state(3)
    return kernel.state_dict(), {
        "kernel": k, "alone": kernel(L=length, rate=rate)[0], "response": response, "last": last, "state": s,
        "steps": torch.stack(stepped), "default": default, "flat": kernel.state_to_tensor(default),
        "size": torch.tensor(kernel.d_state), **{f"gradient of {name}": g for name, g in gradients.items()},
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("cls", "case"), CASES, ids=NAMES)
def test_the_same_kernel_to_1e_12(contributed, cls, case):
    (ours_saved, ours), (saved, found) = outcome(cls, *case), outcome(contributed[cls], *case)
    assert list(saved) == list(ours_saved)
    for name in saved:
        torch.testing.assert_close(saved[name], ours_saved[name], rtol=1e-14, atol=1e-14, msg=name)
    assert list(found) == list(ours)
    for name, value in ours.items():
        assert found[name].shape == value.shape, name
        error = (found[name] - value).detach().abs().max() / value.detach().abs().max().clamp(min=1)
        assert error <= 1e-12, name


@pytest.mark.usefixtures("double")
def test_whole_steps_and_chunks_agree(theirs):
    kernel = theirs(d_model=3, channels=2, d_state=9, dt_min=0.05, dt_max=2.0)
    kernel._setup_step()
    u, start = torch.randn(2, 3, 41), torch.randn(2, 3, 9)
    k, response = kernel(L=41, state=start)
    product = torch.fft.rfft(u, n=82).unsqueeze(1) * torch.fft.rfft(k, n=82)
    whole = torch.fft.irfft(product, n=82)[..., :41] + response
    state, steps = start, []
    for sample in u.unbind(-1):
        y, state = kernel.step(sample, state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, -1), whole)
    carried = start
    for chunk in u.split([1, 25, 15], dim=-1):
        carried = kernel.forward_state(chunk, carried)
    torch.testing.assert_close(carried, state)


@pytest.mark.parametrize("period", [1e-3, 0.1, 30.0])
def test_the_memory_in_float32(theirs, period):
    """The part t ≥ 1 of the kernel, which is small at small Δt, keeps its digits; so do many steps."""
    options = {"d_model": 2, "d_state": 16, "dt_min": period, "dt_max": period, "dt_transform": "exp"}
    kernel = theirs(**options)
    k, _ = kernel(L=3000)
    exact = theirs(**options).double()
    exact.load_state_dict({name: value.double() for name, value in kernel.state_dict().items()})
    reference = exact(L=3000)[0][..., 1:]
    error = (k[..., 1:].double() - reference).abs().amax(-1) / reference.abs().amax(-1)
    assert float(error.detach().max()) < 2e-5
    kernel._setup_step()
    state, u = kernel.default_state(1), torch.zeros(1, 2)
    y, state = kernel.step(u + 1, state)
    for _ in range(2000):
        y, state = kernel.step(u, state)
    distance = (y[0].double() - reference[..., 1999]).abs() / reference.abs().amax(-1)
    assert float(distance.detach().max()) < 2e-5


@pytest.mark.parametrize(("lr", "wd"), [
    (None, 0.0), (0.001, 0.0), (0.0, 0.0), (0.002, 0.1), ({"dt": 0.001}, 0.0), ({"dt": 0.0, "C": 0.01}, {"C": 0.0}),
    ({"C": 0.0}, None), (None, None), ({"dt": 0.001, "A": None, "B": None}, {"dt": 0.0}), ({"A": 0.002}, {"A": 0.1}),
])  # fmt: skip
@pytest.mark.parametrize("cls", [HopeKernel, HopeBandsKernel])
def test_the_same_optimizer_options(contributed, cls, lr, wd):
    pair = (cls, contributed[cls])
    made = [cls(d_model=2, d_state=4, l_max=9, lr=lr, wd=wd, verbose=False) for cls in pair]
    ours, found = (
        {name: getattr(p, "_optim", "the global group") for name, p in kernel.named_parameters()} for kernel in made
    )
    assert found == ours


# The patch
