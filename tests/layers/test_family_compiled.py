"""eSSM, S5, LinOSS, the input memory and the frequency filter compiled, exported, and in half precision."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from features import needs
from hope_ssm.layers.essm import ESSM
from hope_ssm.layers.input_memory import InputMemory
from hope_ssm.layers.linoss import LinOSS
from hope_ssm.layers.s4block import S4Block
from hope_ssm.layers.s5 import S5
from hope_ssm.requirements import COMPILED

H, LENGTH = 4, 21
MEMORY, FILTER = {"input_memory": {"size": 3}}, {"frequency_filter": {"exponent": 0.5}}
LAYERS = {
    "essm": lambda: ESSM(H, heads=2, d_state=3, **MEMORY),
    "essm both ways": lambda: ESSM(H, heads=2, d_state=3, bidirectional=True, **FILTER),
    "memory": lambda: S4Block(H, kernel="hope", d_state=6, horizon=LENGTH, **MEMORY),
    "s5": lambda: S5(H, d_state=8, blocks=2, **MEMORY),
    "s5 both ways": lambda: S5(H, d_state=8, bidirectional=True),
    "linoss": lambda: LinOSS(H, d_state=6, discretization="damped", **MEMORY),
    "filter": lambda: S4Block(H, kernel="s4d", d_state=6, verbose=False, **FILTER),
}
RECURRENT = ["essm", "memory", "s5", "linoss"]
every_layer = pytest.mark.parametrize("name", LAYERS)


def made(name):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    for module in layer.modules():
        if isinstance(module, InputMemory):
            torch.nn.init.normal_(module.weight)
    return layer


@needs(COMPILED)
@pytest.mark.slow
@every_layer
def test_one_graph_with_the_same_gradients(name):
    torch._dynamo.reset()
    layer, x = made(name).double(), torch.randn(2, LENGTH, H, dtype=torch.float64)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found, exact = ([*copies(layer, call, x)] for call in (compiled, layer))
    for got, wanted in zip(found, exact, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-11)


def copies(layer, call, x):
    y, _ = call(x)
    yield y
    yield from torch.autograd.grad(y.sin().sum(), list(layer.parameters()))


@needs(COMPILED)
@pytest.mark.slow
@pytest.mark.parametrize("name", RECURRENT)
def test_steps_and_chunks_in_one_graph(name):
    torch._dynamo.reset()
    layer, x = made(name).eval(), torch.randn(2, LENGTH, H)
    state = torch.randn_like(layer.default_state(2))
    for method in (layer.forward, layer.step):
        u = x if method == layer.forward else x[:, 0]
        compiled = torch.compile(method, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(u, state), method(u, state))


@needs(COMPILED)
@pytest.mark.slow
@every_layer
@pytest.mark.parametrize("dynamic", [False, True])
def test_exported_programs(name, dynamic):
    """Of one length, and of any up to a largest one; the filter that looks both ways depends on it."""
    layer, file, x = made(name).eval(), io.BytesIO(), torch.randn(2, LENGTH, H)
    shapes = ({1: torch.export.Dim("length", min=2, max=41)},) if dynamic else None
    if dynamic and name == "essm both ways":
        with pytest.raises(ValueError, match=r"must have sequences of one length in .*; got a dynamic one\. Leave"):
            torch.export.export(layer, (x,), dynamic_shapes=shapes)
        return
    torch.export.save(torch.export.export(layer, (x,), dynamic_shapes=shapes), file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for length in (2, 16, LENGTH, 41) if dynamic else (LENGTH,):
        x = torch.randn(2, length, H)
        torch.testing.assert_close(loaded(x)[0], layer(x)[0], rtol=1e-5, atol=1e-5)


@every_layer
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_and_nothing_else(name, dtype):
    """Outputs in the dtype of the inputs, near those in float32 from the same rounded numbers; all gradients finite."""
    layer, x = made(name).to(dtype), torch.randn(2, LENGTH, H, dtype=dtype)
    exact = copy.deepcopy(layer).float()(x.float())[0]
    y, _ = layer(x)
    assert y.dtype == dtype
    assert (y - exact).abs().max() < 16 * torch.finfo(dtype).eps * exact.abs().max()
    y.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
    assert {parameter.grad.dtype for parameter in layer.parameters()} == {dtype}


@pytest.mark.parametrize("name", RECURRENT)
@torch.no_grad()
def test_steps_in_half_precision(name):
    layer, x = made(name).bfloat16().eval(), torch.randn(2, LENGTH, H).bfloat16()
    state, outputs = layer.default_state(2), []
    assert state.dtype in (torch.float32, torch.complex64)
    for u in x.unbind(1):
        y, state = layer.step(u, state)
        outputs.append(y)
    whole, _ = layer(x)
    assert torch.stack(outputs, 1).dtype == torch.bfloat16
    assert (torch.stack(outputs, 1) - whole).abs().max() < 16 * torch.finfo(torch.bfloat16).eps * whole.abs().max()


@every_layer
def test_autocast_trains_near_float32(name):
    layer, x = made(name), torch.randn(2, LENGTH, H)
    exact, _ = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, _ = layer(x)
    assert (y - exact).abs().max() < 16 * torch.finfo(torch.bfloat16).eps * exact.abs().max()
    y.float().square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
