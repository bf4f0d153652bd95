"""A model's training step on a device: precisions, compilation, optimizers, CUDA's graphs and streams."""

from __future__ import annotations

import copy

import pytest
import torch

from devices import exact_copy, outputs_and_gradients, worst
from hope_ssm import HopeKernel
from hope_ssm.layers.parameter_groups import parameter_groups
from kernel_cases import every_family
from numeric_cases import sequence_model

B, L = 3, 21


def loss_of(model, x):
    """A norm comes last, so a sum of squares would be the same for all parameters."""
    return (model(x)[0] - x.roll(1, dims=1)).square().mean()


def step(model, x, optimizer=None):
    """Loss and gradients of one step, on the device of the model."""
    model.zero_grad()
    loss = loss_of(model, x)
    loss.backward()
    if optimizer is not None:
        optimizer.step()
    return [loss.detach().clone(), *(p.grad.clone() for p in model.parameters())]


@every_family
def test_training_step(name, device):
    model = sequence_model(name, n_layers=2).to(device)
    x = torch.randn(B, L, 4)
    assert worst(step(model, x.to(device)), step(exact_copy(model), x.double())) < 1e-3


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 0.06), (torch.float16, 0.01)])
@every_family
def test_autocast(name, dtype, bound, device):
    """Kernels, states and transforms stay in float32: what is left are the roundings of the linear maps."""
    model = sequence_model(name, n_layers=2).to(device)
    x = torch.randn(B, L, 4)
    exact = exact_copy(model)(x.double())[0]
    with torch.autocast(device.type, dtype):
        y = model(x.to(device))[0]
    assert worst(y, exact) < bound
    (y.float() - x.to(device)).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex operators")
@every_family
def test_compiled(name, device):
    """Generated code where there is a GPU; the same graphs run as they are elsewhere."""
    torch._dynamo.reset()
    eager = sequence_model(name).to(device)
    compiled, x = copy.deepcopy(eager), torch.randn(B, L, 4, device=device)
    compiled.compile(fullgraph=True, backend="inductor" if device.type == "cuda" else "aot_eager")
    assert worst(step(compiled, x), [value.cpu() for value in step(eager, x)]) < 1e-3


@pytest.mark.parametrize("how", [{}, {"foreach": True}, {"fused": True}])
def test_optimizers(how, device):
    """Three updates, with every way torch has to make them."""
    model = sequence_model("hope", n_layers=2).to(device)
    exact, x = exact_copy(model), torch.randn(B, L, 4)
    for trained, inputs, options in ((model, x.to(device), how), (exact, x.double(), {})):
        groups = [{k: v for k, v in group.items() if k != "names"} for group in parameter_groups(trained)]
        optimizer = torch.optim.AdamW(groups, lr=1e-3, **options)
        for _ in range(3):
            step(trained, inputs, optimizer)
    assert worst(list(model.parameters()), list(exact.parameters())) < 1e-3


def test_gradients_are_the_same_again(device):
    """Two runs of one step on one device."""
    model = sequence_model("hope", n_layers=2).to(device)
    x = torch.randn(B, L, 4, device=device)
    assert worst(step(model, x), [value.cpu() for value in step(model, x)]) < 1e-6


def test_a_cuda_graph_of_a_step_follows_inputs_and_parameters(gpu):
    model = sequence_model("hope", n_layers=2).to(gpu)
    x = torch.randn(B, L, 4, device=gpu)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # plans and autotuning come before the capture
        for _ in range(3):
            step(model, x)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = loss_of(model, x)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
    x.copy_(torch.randn(B, L, 4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    graph.replay()
    got = [loss, *gradients]
    assert worst(got, [value.cpu() for value in step(model, x)]) < 1e-4


def test_a_captured_graph_in_evaluation_takes_nothing_kept(gpu):
    kernel = HopeKernel(d_model=4, d_state=8, horizon=L, verbose=False).to(gpu).eval()
    with torch.no_grad():
        kernel(L=L)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            k = kernel(L=L)[0]
        for parameter in kernel.parameters():
            parameter.mul_(1.1)
        graph.replay()
        assert worst(k, kernel(L=L)[0].cpu()) < 1e-5


def test_two_streams_share_a_model_in_evaluation(gpu):
    """Each stream computes for itself: what one of them keeps is not read before it is written."""
    model = sequence_model("hope", n_layers=2).to(gpu).eval()
    inputs = [torch.randn(B, L, 4, device=gpu) for _ in range(2)]
    exact = [exact_copy(model)(x.cpu().double())[0] for x in inputs]
    torch.cuda.synchronize()
    streams, found = [torch.cuda.Stream() for _ in inputs], []
    with torch.no_grad():
        for turn in range(6):
            with torch.cuda.stream(streams[turn % 2]):
                found.append(model(inputs[turn % 2])[0])
    torch.cuda.synchronize()
    for turn, y in enumerate(found):
        assert worst(y, exact[turn % 2]) < 1e-3


def test_outputs_and_gradients_sees_what_is_wrong(device):
    """The comparison itself: a wrong gradient is far."""
    x = torch.randn(4, requires_grad=True)
    exact = outputs_and_gradients(lambda x: x.double(), [x], [])
    assert worst(outputs_and_gradients(lambda x: x * 1.0001, [x], []), exact) > 5e-5
