"""The options of the block and of the backbone: whole = chunks = steps, padded = alone, and what each computes."""

from __future__ import annotations

import math

import pytest
import torch

from hope_ssm.workbench import norms, pooling
from hope_ssm.workbench.backbone import SequenceModel
from hope_ssm.workbench.convolution import FFTConvolution, reversed_steps
from hope_ssm.workbench.layers import S4Block
from hope_ssm.workbench.pointwise import GATED, TiedDropout, make_activation, make_linear

LENGTH, H = 11, 4
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


def model_of(layer=None, kernel="hope", **options):
    layer = {"_name_": "s4", "mode": kernel, "d_state": 6} | (layer or {})
    model = SequenceModel(H, layer, n_layers=2, **options).double().eval()
    for module in model.modules():
        if isinstance(module, norms.BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


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


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_every_backbone_whole_in_chunks_and_in_steps_and_padded(options):
    model = model_of(**options)
    assert_one_function(model, torch.randn(2, LENGTH, H, dtype=torch.float64))
    assert_padding_is_not_seen(model)


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


# Pools and norms against explicit loops


@pytest.mark.parametrize("stride", [1, 2, 3, 7])
@pytest.mark.parametrize("expand", [None, 2])
def test_pools_are_their_loops(stride, expand):
    x = torch.randn(2, 7, 3, dtype=torch.float64)
    for name in pooling.POOLS:
        pool = pooling.make_pool({"_name_": name, "stride": stride, "expand": expand}, 3).double()
        rows = []
        for sequence in x:
            if name == "sample":
                steps = [sequence[t] for t in range(0, 7, stride)]
                rows.append([torch.stack([v for v in s for _ in range(expand or 1)]) for s in steps])
                continue
            rows.append([])
            for start in range(0, 7 - stride + 1, stride):
                window = sequence[start : start + stride]
                flat = window.reshape(-1) if name == "linear" else window.sum(0) / stride
                trained = name == "linear" or expand is not None
                rows[-1].append(pool.linear.weight @ flat + pool.linear.bias if trained else flat)
        expected = torch.stack([torch.stack(row) for row in rows])
        torch.testing.assert_close(pool(x), expected, rtol=1e-12, atol=1e-12)
        assert pool.output_lengths(torch.tensor([7])).item() == expected.shape[1]
        assert pool.d_output == expected.shape[2]


@pytest.mark.parametrize("name", ["instance", "group"])
def test_norms_are_their_loops(name):
    norm = norms.make_norm(name, 3).double()
    if name == "group":
        torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
    x, lengths = torch.randn(2, 5, 3, dtype=torch.float64), [5, 3]
    y = norms.normalize(norm, x, torch.tensor(lengths))
    for row, out, n in zip(x, y, lengths, strict=True):
        for h in range(3):
            values = row[:n] if name == "group" else row[:n, h]
            mean = sum(values.flatten()) / values.numel()
            variance = sum((v - mean) ** 2 for v in values.flatten()) / values.numel()
            expected = (row[:n, h] - mean) / torch.sqrt(variance + 1e-5)
            if name == "group":
                expected = expected * norm.weight[h] + norm.bias[h]
            torch.testing.assert_close(out[:n, h], expected)
    reference = {"instance": torch.nn.InstanceNorm1d(3), "group": torch.nn.GroupNorm(1, 3)}[name].double()
    reference.load_state_dict(norm.state_dict())
    torch.testing.assert_close(norm(x), reference(x.transpose(1, 2)).transpose(1, 2))


# Dropout


def test_tied_dropout_of_the_block_drops_a_feature_at_all_steps():
    torch.manual_seed(0)
    model = model_of(dropout=0.5, tie_dropout=True).train()
    drops = [m for m in model.modules() if isinstance(m, TiedDropout) and m.p]
    assert len(drops) == 4  # in two layers and on two branches
    assert not any(isinstance(m, torch.nn.Dropout) and m.p for m in model.modules())
    y = drops[0](torch.ones(3, 7, 64))
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert (y == y[:, :1]).all()


def test_dropout_on_the_kernel():
    """Samples of the impulse response are 0, or twice what they are without; nothing in evaluation."""
    layer = FFTConvolution(64, "hope", d_state=8, drop_kernel=0.5, bidirectional=True).double()
    with torch.no_grad():
        layer.D.zero_()
        u = torch.zeros(1, 9, 64, dtype=torch.float64)
        u[:, 4] = 1
        dropped, whole = layer(u)[0], layer.eval()(u)[0]
    ratio = dropped[whole.abs() > 1e-6] / whole[whole.abs() > 1e-6]
    kept = (ratio - 2).abs() < 1e-6
    assert ratio[~kept].abs().max() < 1e-6
    assert 0.4 < kept.double().mean() < 0.6


# Names


@pytest.mark.parametrize("name", [None, "id", "gelu", "relu", "silu", "tanh", "sigmoid", "elu", "softplus"])
def test_activations_are_torch_s(name):
    x = torch.randn(50)
    expected = x if name in (None, "id") else getattr(torch.nn.functional, name)(x)
    torch.testing.assert_close(make_activation(name)(x), expected)


def test_activations_by_formula():
    x = torch.linspace(-3, 3, 25, dtype=torch.float64)
    torch.testing.assert_close(make_activation("sqrelu")(x), x.clamp(min=0) ** 2)
    normal = torch.distributions.Normal(math.sqrt(0.5), math.sqrt(1 / (4 * math.pi)))
    torch.testing.assert_close(make_activation("laplace")(x), normal.cdf(x))
    for name in GATED:
        linear = make_linear(3, 2, name)
        y = linear[0](x[:3].float())
        gate = torch.sigmoid if name == "glu" else make_activation(name[4:])
        torch.testing.assert_close(linear(x[:3].float()), y[:2] * gate(y[2:]))


@pytest.mark.parametrize(("initializer", "std"), [("normal", math.sqrt(2 / 400)), ("uniform", math.sqrt(2 / 400)),
                                                 ("xavier", math.sqrt(2 / 900)), ("zero", 0.0)])  # fmt: skip
def test_initializers(initializer, std):
    """Kaiming: gain² / fan-in, with √2 for gelu; Xavier: 2 / (fan-in + fan-out)."""
    weight = make_linear(400, 500, "gelu", initializer=initializer)[0].weight
    assert weight.std().item() == pytest.approx(std, rel=0.02)
    assert make_linear(4, 5, initializer="one").weight.eq(1).all()


def test_old_names_are_told_once(caplog):
    block = S4Block(H, mode="s4d", d_state=6, final_act=None, postact="glu", measure="legs")
    assert isinstance(block.output_linear, torch.nn.Sequential)
    assert [r.message for r in caplog.records if "old name" in r.message] == [
        "postact is the old name of final_act; use final_act=glu.", "measure is the old name of init; use init=legs.",
    ]  # fmt: skip
    new = S4Block(H, mode="s4d", d_state=6, init="legs")
    torch.testing.assert_close(block.layer.kernel.A_imag, new.layer.kernel.A_imag)


def test_norms_of_the_layers_are_kept_in_training():
    model = model_of(track_norms=True, n_repeat=1)
    x, lengths = torch.randn(2, LENGTH, H, dtype=torch.float64), torch.tensor([11, 3])
    model(x, lengths=lengths)
    assert not model.metrics
    model.train()(x, lengths=lengths)
    assert list(model.metrics) == ["norm/0", "norm/1", "norm/2"]
    torch.testing.assert_close(model.metrics["norm/0"], torch.cat([x[0], x[1, :3]]).square().mean())
    assert not any(value.requires_grad for value in model.metrics.values())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"gate": 0}, ValueError, "gate must be a whole number of at least 1; got 0"),
        ({"bottleneck": 3}, ValueError, "bottleneck must divide d_model=4; got 3"),
        ({"gate": 2, "gate_act": "gel"}, ValueError, "gate_act must be one of .* Did you mean 'gelu'"),
        (
            {"activation": "glu"},
            ValueError,
            "activation must keep the number of features; got 'glu'. It fits final_act",
        ),
        ({"mult_act": "glu-relu"}, ValueError, "mult_act must keep the number of features"),
        ({"final_act": "glue"}, ValueError, "final_act must be one of .* Did you mean 'glu'"),
        ({"final_act": None, "gate": 2}, ValueError, "final_act must not be null where the block is 8 features wide"),
        (
            {"postact": "glu", "final_act": "id"},
            ValueError,
            "final_act and its old name postact must not both be given",
        ),
        ({"init": "legs", "measure": "legs"}, ValueError, "init and its old name measure must not both be given"),
        ({"initializer": "norml"}, ValueError, "initializer must be one of .* Did you mean 'normal'"),
        ({"initializer": "zero", "weight_norm": True}, ValueError, "weight_norm must be false with initializer=zero"),
        ({"weight_norm": "yes"}, TypeError, "weight_norm must be true or false; got 'yes'"),
        ({"layer": "fftcnv"}, ValueError, "layer must be one of 'fftconv'; got 'fftcnv'. Did you mean 'fftconv'"),
        ({"drop_kernel": 1.5}, ValueError, "drop_kernel must be at least 0 and below 1; got 1.5"),
        ({"bidirectional": "no"}, TypeError, "bidirectional must be true or false; got 'no'"),
        ({"gats": 4}, TypeError, "no option 'gats'; .*gate.* Did you mean 'gate'"),
        ({"d_stat": 4}, TypeError, "no option 'd_stat'; .* Did you mean 'd_state'"),
    ],
)
def test_a_block_refuses_in_one_sentence(options, error, message):
    with pytest.raises(error, match=message):
        S4Block(H, mode="hope", **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"residual": "RR"}, ValueError, "residual must be one of 'R', "),
        ({"residual": {"_name_": "R", "alfa": 1}}, TypeError, "residual 'R' has no option 'alfa'; .* mean 'alpha'"),
        ({"norm": "instances"}, ValueError, "norm must be one of .* Did you mean 'instance'"),
        (
            {"pool": {"_name_": "spectral"}},
            ValueError,
            "pool must be one of 'pool', 'avg', 'linear', 'sample'; got 'sp",
        ),
        ({"pool": {"_name_": "pool", "stride": 0}}, ValueError, "pool.stride must be a whole number of at least 1"),
        ({"pool": {"_name_": "pool", "expand": 0.5}}, TypeError, "pool.expand must be a whole number of at least 1"),
        ({"encoder": "linear"}, ValueError, "model.encoder must be null; got linear. Set the group encoder instead"),
        ({"bidirectional": "both"}, TypeError, "bidirectional must be true or false; got 'both'"),
        ({"dropinp": -0.1}, ValueError, "dropinp must be at least 0 and below 1; got -0.1"),
    ],
)
def test_a_backbone_refuses_in_one_sentence(options, error, message):
    with pytest.raises(error, match=message):
        model_of(**options)


def test_sequences_too_short_for_the_pools():
    model = model_of(pool={"_name_": "pool", "stride": 3})
    message = r"^every sequence must have at least pool\.stride=3 steps where it is pooled; got {}\. Lower model\.pool"
    with pytest.raises(ValueError, match=message.format(2)):
        model(torch.zeros(1, 8, H, dtype=torch.float64))
    with pytest.raises(ValueError, match=message.format(2)):
        model(torch.zeros(2, LENGTH, H, dtype=torch.float64), lengths=torch.tensor([11, 8]))
