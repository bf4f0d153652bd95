"""The options of the block and of the backbone: whole = chunks = steps, padded = alone, and what each computes."""

from __future__ import annotations

import math

import pytest
import torch

from hope_ssm.layers.padding import reversed_steps
from hope_ssm.layers.s4block import S4Block
from hope_ssm.workbench.models.backbone import SequenceModel
from models import LENGTH, H, model_of

LENGTHS = torch.tensor([7, 1, 11, 4])
GSS = {"gate": 4, "gate_act": "gelu", "bottleneck": 2, "final_act": "id"}
BLOCKS = {
    "plain": {},
    "gss": GSS,
    "gate_of_the_convolution_s_width": {"gate": 1},
    "gate_glu": {"gate": 2, "gate_act": "glu", "mult_act": "gelu"},
    "bottleneck": {"bottleneck": 4},
    "channels": {"channels": 3, "gate": 2, "final_act": "glu-silu"},
    "linear_maps": {"initializer": "normal", "weight_norm": True, "activation": "swish", "final_act": "relu2"},
    "no_output_map": {"final_act": None, "activation": "laplace"},
}
MODELS = {
    "affine": {"residual": {"_name_": "A", "scalar": False, "gamma": 0.5}},
    "highway": {"residual": "H"},
    "decay": {"residual": "D", "prenorm": False},
    "no_residual": {"residual": None, "norm": None},
    "expand": {"pool": {"_name_": "avg", "expand": 2}, "norm": "batch"},
    "expand_by_repeating": {"pool": {"_name_": "sample", "expand": 2}, "prenorm": False},
    "linear_pool": {"pool": {"_name_": "linear", "expand": 1}},
    "repeated": {"n_repeat": 2, "pool": {"_name_": "pool", "expand": 3}},
    "accepted": {"transposed": True, "track_norms": True, "encoder": None, "decoder": None},
}
WHOLE = {
    "bidirectional": {"bidirectional": True},
    "instance": {"norm": "instance"},
    "group": {"norm": "group", "prenorm": False},
    "average": {"pool": {"_name_": "pool", "stride": 2, "expand": None}},
    "average_twice": {"pool": {"_name_": "pool", "stride": 2, "expand": 2}, "prenorm": False},
    "sample": {"pool": {"_name_": "sample", "stride": 3, "expand": None}, "norm": "batch"},
    "linear": {"pool": {"_name_": "linear", "stride": 2, "expand": 2}, "bidirectional": True},
}


def assert_one_function(model, x):
    """Whole = random chunks = steps."""
    with torch.no_grad():
        whole, _ = model(x)
        state, chunks = model.default_state(len(x)), []
        for chunk in x.split([1, 6, 4], dim=1):
            y, state = model(chunk, state)
            chunks.append(y)
        state, steps = model.default_state(len(x)), []
        for u in x.unbind(1):
            y, state = model.step(u, state)
            steps.append(y)
    torch.testing.assert_close(torch.cat(chunks, 1), whole, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.stack(steps, 1), whole, rtol=1e-10, atol=1e-10)


def assert_padding_is_not_seen(model):
    x = torch.randn(len(LENGTHS), LENGTH, H, dtype=torch.float64)
    for row, length in zip(x, LENGTHS, strict=True):
        row[length:] = math.nan
    lengths = LENGTHS.clamp(min=4)  # what the pools need
    x = torch.where(torch.isnan(x) & (torch.arange(LENGTH) < lengths[:, None])[..., None], 0.3, x)
    y, _ = model(x, lengths=lengths)
    kept = lengths if not isinstance(model, SequenceModel) else model.output_lengths(lengths)
    together = torch.autograd.grad(sum(row[:n].square().sum() for row, n in zip(y, kept, strict=True)),
                                   list(model.parameters()))  # fmt: skip
    alone = [model(row[None, :n])[0][0] for row, n in zip(x, lengths, strict=True)]
    for row, own, n in zip(y, alone, kept, strict=True):
        assert len(own) == n
        torch.testing.assert_close(row[:n], own, rtol=1e-10, atol=1e-10)
    apart = torch.autograd.grad(sum(own.square().sum() for own in alone), list(model.parameters()))
    for value, exact in zip(together, apart, strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-8, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["hope", "s4d"])
@pytest.mark.parametrize("options", BLOCKS.values(), ids=BLOCKS)
def test_every_block_whole_in_chunks_and_in_steps_and_padded(kernel, options):
    x = torch.randn(2, LENGTH, H, dtype=torch.float64)
    block = S4Block(H, mode=kernel, d_state=6, **options).double().eval()
    assert_one_function(block, x)
    assert_padding_is_not_seen(block)
    assert_one_function(model_of(options, kernel), x)


@pytest.mark.parametrize(("kernel", "options"), [("hope", {"bidirectional": True, **GSS}), ("conv", {"l_max": 5}),
                                                ("conv", {"l_max": 20, "bidirectional": True})])  # fmt: skip
def test_blocks_without_steps_do_not_see_padding(kernel, options):
    assert_padding_is_not_seen(S4Block(H, mode=kernel, d_state=6, **options).double())


@pytest.mark.slow
@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_every_backbone_whole_in_chunks_and_in_steps_and_padded(options):
    model = model_of(**options)
    assert_one_function(model, torch.randn(2, LENGTH, H, dtype=torch.float64))
    assert_padding_is_not_seen(model)


@pytest.mark.slow
@pytest.mark.parametrize("options", WHOLE.values(), ids=WHOLE)
def test_what_needs_the_whole_sequence(options):
    """Padded = alone; a state or a step is refused with what to change."""
    model = model_of(**options)
    assert_padding_is_not_seen(model)
    x = torch.randn(2, LENGTH, H, dtype=torch.float64)
    state = model.default_state(2)
    message = r"^a model must be called whole, without a state or steps, with .*; got a state\. Use model\.\w"
    for call in (lambda: model(x, state), lambda: model.step(x[:, 0], state), model.setup_step):
        with pytest.raises(ValueError, match=message):
            call()


def test_the_gated_block_is_its_formula():
    """o = W (W_y gelu(SSM(W_u x)) ⊙ gelu(W_v x)) with widths H/2, 4H and H."""
    block = S4Block(H, mode="hope", d_state=6, **GSS).double()
    x = torch.randn(3, LENGTH, H, dtype=torch.float64)
    maps = [block.input_linear, block.input_gate[0], block.output_gate, block.output_linear[0]]
    assert [tuple(m.weight.shape) for m in maps] == [(2, 4), (16, 4), (16, 2), (4, 16)]
    W_u, W_v, W_y, W = [lambda z, m=m: z @ m.weight.T + m.bias for m in maps]
    y, _ = block.layer(W_u(x))
    gelu = torch.nn.functional.gelu
    torch.testing.assert_close(block(x)[0], W(W_y(gelu(y)) * gelu(W_v(x))), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [GSS, BLOCKS["gate_glu"], BLOCKS["linear_maps"]])
def test_every_parameter_of_the_block_has_a_gradient(options):
    block = S4Block(H, mode="hope", d_state=6, **options)
    block(torch.randn(2, LENGTH, H))[0].square().sum().backward()
    assert all(p.grad.abs().max() > 0 for p in block.parameters())


# Both directions


def test_the_reverse_layer_hears_the_sequence_backwards():
    """Time turned around and the two layers exchanged is the same model, turned around."""
    model = model_of(bidirectional=True, norm=None, residual=None)
    other = model_of(bidirectional=True, norm=None, residual=None)
    other.load_state_dict(model.state_dict())
    for block in other.layers:
        block.layer, block.reverse_layer = block.reverse_layer, block.layer
        with torch.no_grad():
            block.bidirectional_linear.weight.copy_(block.bidirectional_linear.weight.roll(H, dims=1))
    x = torch.randn(2, LENGTH, H, dtype=torch.float64)
    torch.testing.assert_close(other(x.flip(1))[0].flip(1), model(x)[0], rtol=1e-11, atol=1e-11)
    late = x.clone()
    late[:, -1] += 1
    assert (model(late)[0] - model(x)[0])[:, 0].abs().max() > 1e-9


def test_reversed_steps():
    x = torch.arange(10.0).view(2, 5, 1)
    assert reversed_steps(x, None)[0, :, 0].tolist() == [4, 3, 2, 1, 0]
    y = reversed_steps(x, torch.tensor([3, 5]))
    assert y[..., 0].tolist() == [[2, 1, 0, 3, 4], [9, 8, 7, 6, 5]]
