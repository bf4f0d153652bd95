"""torch.compile, torch.export, ONNX, copies, torch.func: the same numbers every way it is run."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from features import needs
from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.requirements import COMPILED
from kernel_cases import every_family, recurrent_kernels
from numeric_cases import H, L, build, every_call, sequence_model, some_state

new_torch = needs(COMPILED)

# torch.compile


def training_step(model, optimizer, x, target):
    loss = nn.functional.mse_loss(model(x)[0], target)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


@new_torch
@pytest.mark.slow
@every_family
def test_compiled_training(name):
    """One graph for the whole model, and the parameters of the eager run after some steps."""
    torch._dynamo.reset()
    eager = sequence_model(name)
    compiled = copy.deepcopy(eager)
    compiled.compile(fullgraph=True, backend="aot_eager")
    x, target = torch.randn(2, L, 4), torch.randn(2, L, 4)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (eager, compiled)]
    for _ in range(3):
        losses = [training_step(m, o, x, target) for m, o in zip((eager, compiled), optimizers, strict=True)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)
    for p, q in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


@new_torch
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex operators")
def test_inductor():
    """Polynomial and warp with their gradients by generated code; complex numbers fall back to torch's functions.

    Without truncation: every fused loop costs a second of C++ compilation.
    """
    torch._dynamo.reset()
    kernel = build("hope", d_state=4, channels=1, truncation="none")
    weight = torch.randn(1, H, L)
    gradients = []
    for call in (kernel, torch.compile(kernel, fullgraph=True, backend="inductor")):
        k, _ = call(L=L)
        gradients.append((k.detach(), *torch.autograd.grad((k * weight).sum(), list(kernel.parameters()))))
    for got, exact in zip(gradients[1], gradients[0], strict=True):
        assert (got - exact).abs().max() < 1e-5 * exact.abs().max()


@new_torch
@pytest.mark.slow
@every_family
def test_compiled_recurrence_and_its_gradients(name):
    """State in, state out."""
    torch._dynamo.reset()
    kernel = build(name, d_state=4).double()
    u, state = torch.randn(2, H, L, dtype=torch.float64), some_state(kernel)

    def total():
        return sum(x.abs().sin().sum() for x in every_call(kernel, u, state))

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")()
    torch.testing.assert_close(compiled, total(), rtol=1e-12, atol=0)
    parameters = list(kernel.parameters())
    for p, q in zip(torch.autograd.grad(compiled, parameters), torch.autograd.grad(total(), parameters), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-9)


# torch.export and ONNX


class Step(nn.Module):
    """The model's step as a module: (x (B, H), states) to (y, states)."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, state):
        return self.model.step(x, state)


@new_torch
@pytest.mark.slow
@every_family
def test_export(name):
    """The step, and the convolution and a chunk with a carried state at a fixed length, saved and loaded."""
    model = sequence_model(name).eval()
    states, others = ([some_state(block.layer) * scale for block in model.layers] for scale in (1, -0.7))
    x = torch.randn(2, L, 4)
    for module, *inputs in ((Step(model), x[:, 0], states), (model, x), (model, x, states)):
        file = io.BytesIO()
        torch.export.save(torch.export.export(module, tuple(inputs)), file)
        file.seek(0)
        loaded = torch.export.load(file).module()
        inputs = (torch.randn_like(inputs[0]), others)[: len(inputs)]
        torch.testing.assert_close(loaded(*inputs), module(*inputs))


@pytest.mark.slow
def test_onnx_runtime_streams_the_same_numbers(tmp_path):
    """Outputs fed back as states for a while; no complex number is in the model."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = sequence_model("hope").eval()
    states = model.default_state(2)
    module = Step(model).eval()
    program = torch.onnx.export(module, (torch.randn(2, 4), states), dynamo=True, verbose=False)
    assert not any(v.is_complex() for v in states)
    program.save(tmp_path / "step.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "step.onnx")
    names, theirs = [i.name for i in session.get_inputs()], [state.numpy() for state in states]
    assert len(names) == 1 + len(states)
    for _ in range(100):
        x = torch.randn(2, 4)
        with torch.no_grad():
            y, states = model.step(x, states)
        output, *theirs = session.run(None, dict(zip(names, [x.numpy(), *theirs], strict=True)))
        np.testing.assert_allclose(output, y.numpy(), rtol=0, atol=1e-5)


# Copies, functional calls, second derivatives


@recurrent_kernels
@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_model(name, copier):
    model = sequence_model(name).bfloat16()
    x = torch.randn(2, L, 4).bfloat16()
    model(x)[0].sum().backward()
    assert torch.equal(copier(model)(x)[0], model(x)[0])


@every_family
def test_functional_call_and_grad(name):
    """Other parameters through the same model, and torch.func's gradient equal to autograd's."""
    model = sequence_model(name).double()
    x = torch.randn(2, L, 4, dtype=torch.float64)
    parameters = {key: value.detach() + 0.01 for key, value in model.named_parameters()}

    def loss(parameters):
        return torch.func.functional_call(model, parameters, (x,))[0].square().sum()

    gradients = torch.func.grad(loss)(parameters)
    model.load_state_dict(parameters)
    model(x)[0].square().sum().backward()
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[key], parameter.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@every_family
@pytest.mark.parametrize("dt", [0.3, 1.0])
def test_second_derivatives_of_a_layer(name, dt):
    """Of outputs and next state, in inputs, state and all parameters; also at Δt = 1, where a = 0."""
    torch.manual_seed(0)
    layer = FFTConvolution(1, name, d_state=4, dt_min=dt, dt_max=dt).double()
    keys, parameters = zip(*layer.named_parameters(), strict=True)
    x = torch.randn(1, 4, 1, dtype=torch.float64, requires_grad=True)
    state = some_state(layer.kernel, 1).requires_grad_()

    def of(x, state, *values):
        y, after = torch.func.functional_call(layer, dict(zip(keys, values, strict=True)), (x, state))
        return y, torch.view_as_real(after) if after.is_complex() else after

    values = [p.detach().clone().requires_grad_() for p in parameters]
    assert torch.autograd.gradcheck(of, (x, state, *values))
    assert torch.autograd.gradgradcheck(of, (x, state, *values), fast_mode=True)
