"""Pools, norms, dropout, activations and initializers of the blocks against their loops and formulas; bad options."""

from __future__ import annotations

import math

import pytest
import torch

from hope_ssm.layers.fftconv import FFTConvolution
from hope_ssm.layers.pointwise import GATED, TiedDropout, make_activation, make_linear
from hope_ssm.layers.s4block import S4Block
from hope_ssm.workbench.models import norms, pooling
from models import LENGTH, H, model_of

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
        (
            {"layer": "fftcnv"},
            ValueError,
            "layer must be one of 'fftconv', 'grouped_fftconv', .*; got 'fftcnv'. Did you mean 'fftconv'",
        ),
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
