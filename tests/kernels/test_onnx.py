"""The forward pass in ONNX: every kernel and every kind of convolution, as ONNX Runtime computes it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hope_ssm.layers.essm import ESSM
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.linoss import LinOSS
from hope_ssm.layers.s4block import S4Block
from hope_ssm.layers.s5 import S5
from hope_ssm.reporting.machine import silence
from kernel_cases import ENTRIES, RECURRENT, H
from numeric_cases import sequence_model

LONGEST = 24
UNTRUNCATED = {"truncation": "none"}
CASES = [
    *((name, {}) for name in ENTRIES),
    ("hope", {"bidirectional": True}),
    ("hope", {"backend": "blocked"}),
    ("hope", UNTRUNCATED),
    ("hope", {**UNTRUNCATED, "circular": True}),
    ("hope", {**UNTRUNCATED, "coefficients": "complex_noncausal"}),
    ("hope", {"frequency_filter": {"exponent": 0.5}, "bidirectional": True}),
    ("rtf", UNTRUNCATED),
    ("s4", {"rank": 2, "init": "legt"}),
]


class Output(nn.Module):
    """What a layer or model returns, without the state."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)[0]


def convolution(name, **options):
    own = {"d_state": 6} if name in RECURRENT else {"l_max": LONGEST}
    own |= {"horizon": LONGEST} if name.startswith("hope") else {}  # what is exported does not wait for a length
    torch.manual_seed(0)
    layer = FFTConvolution(H, name, **own, **options).eval()
    if name == "rtf":  # which begins at 0
        nn.init.normal_(layer.kernel.numerator)
        nn.init.uniform_(layer.kernel.denominator, -0.15, 0.15)
    return layer


@torch.no_grad()
def compared(module, *others, **options):
    """Export on one input, then compare the outputs of the runtime with torch's there and on other inputs."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    module, x = Output(module).eval(), torch.randn(2, LONGEST, H)
    with silence("torch.onnx", "onnxscript", "onnx_ir"):
        program = torch.onnx.export(module, (x,), dynamo=True, verbose=False, **options)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for given in (x, *others):
        (found,) = session.run(None, {session.get_inputs()[0].name: given.numpy()})
        exact = module(given)
        assert exact.abs().max() > 0
        assert (torch.from_numpy(found) - exact).abs().max() < 1e-5 * exact.abs().max()
    return session


def dynamic():
    return {"dynamic_shapes": ({0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=2, max=41)},)}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_kernel(name, options):
    compared(convolution(name, **options))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"), [("hope", {}), ("hope-bands", {}), ("s4d", {"bidirectional": True}), ("rtf", {}), ("conv", {})]
)
def test_any_length_up_to_a_largest_one(name, options):
    others = (torch.randn(batch, length, H) for batch, length in ((1, 2), (3, 15), (2, 41)))
    compared(convolution(name, **options), *others, **dynamic())


LAYERS = {
    "a model": lambda: sequence_model("hope", n_layers=2, norm="batch"),
    "essm": lambda: ESSM(H, heads=2, d_state=4, bidirectional=True),
    "s5": lambda: S5(H, d_state=8, bidirectional=True),
    "linoss": lambda: LinOSS(H, d_state=6, discretization="im"),
    "an input memory": lambda: S4Block(H, kernel="s4d", d_state=6, input_memory={"size": 3}, verbose=False),
    "a gate": lambda: S4Block(H, kernel="conv", l_max=LONGEST, gate=2, bottleneck=2, channels=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_or_model(name):
    torch.manual_seed(0)
    compared(LAYERS[name]())


@pytest.mark.slow
def test_what_depends_on_the_length_is_exported_at_one():
    """The exporter falls back on the length of the example; the runtime refuses others."""
    session = compared(convolution("hope", frequency_filter={"exponent": 0.5}), **dynamic())
    (given,) = session.get_inputs()
    assert given.shape[1] == LONGEST
    with pytest.raises(Exception, match="Got invalid dimensions"):
        session.run(None, {given.name: torch.randn(2, 10, H).numpy()})
