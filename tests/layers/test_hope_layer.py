"""HopeLayer: the block under another signature, for any kernel; and the optimizer groups of any module."""

from __future__ import annotations

import copy
import math
import os

import pytest
import torch

from features import needs
from hope_ssm import HopeLayer, parameter_groups
from hope_ssm.kernels.hope import HopeKernel
from hope_ssm.layers.s4block import S4Block
from hope_ssm.requirements import COMPILED
from kernel_cases import ENTRIES, RECURRENT

B, L, H = 3, 13, 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", ENTRIES)
def test_whole_sequences(kernel, dtype):
    layer = HopeLayer(H, kernel=kernel, l_max=L).to(dtype)
    x = torch.randn(B, L, H, dtype=dtype)
    y = layer(x)
    assert (y.shape, y.dtype) == (x.shape, dtype)
    y.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in layer.parameters())
    block = S4Block(H, mode=kernel, l_max=L).to(dtype)
    block.load_state_dict(layer.block.state_dict())  # a layer of the workbench, and back
    assert torch.equal(block(x)[0], y)


@pytest.mark.parametrize("kernel", RECURRENT)
def test_chunks_and_steps(kernel):
    layer = HopeLayer(H, kernel=kernel, d_state=6, gate=2, bottleneck=2).double()
    x = torch.randn(B, L, H, dtype=torch.float64)
    layer.setup_step()
    with torch.no_grad():
        whole = layer(x)
        first, state = layer(x[:, :5], state=layer.default_state(B))
        rest = []
        for u in x[:, 5:].unbind(1):
            y, state = layer.step(u, state)
            rest.append(y)
    torch.testing.assert_close(torch.cat([first, torch.stack(rest, 1)], 1), whole, rtol=1e-10, atol=1e-10)


def test_default_kernel_and_default_layer():
    assert isinstance(HopeLayer(H).block.layer.kernel, HopeKernel)
    torch.manual_seed(0)
    layer = HopeLayer(H, d_state=6)
    torch.manual_seed(0)
    block = S4Block(H, mode="hope", d_state=6)
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), block.parameters(), strict=True))


def test_lengths_and_rate():
    layer = HopeLayer(H, d_state=6).double()
    x, lengths = torch.randn(B, L, H, dtype=torch.float64), torch.tensor([4, 13, 1])
    for row, n in zip(x, lengths, strict=True):
        row[n:] = math.nan
    y, after = layer(x, lengths, state=layer.default_state(B))
    torch.testing.assert_close(layer(x, lengths), y)
    for i, n in enumerate(lengths.tolist()):
        own, state = layer(x[i : i + 1, :n], state=layer.default_state(1))
        torch.testing.assert_close(y[i : i + 1, :n], own, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(after[i : i + 1], state, rtol=1e-10, atol=1e-10)
        assert not y[i, n:].any()
    x = torch.randn(B, L, H, dtype=torch.float64)
    assert not torch.allclose(layer(x, rate=2.0), layer(x))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: HopeLayer(H, kernel="hop"), ValueError, r"kernel must be one of .*; got 'hop'\. Did you mean 'hope'"),
        (lambda: HopeLayer(H, drop_out=0.1), TypeError, r"the layer has no option 'drop_out'; .* mean 'dropout'"),
        (lambda: HopeLayer(H, "s4"), TypeError, "positional"),
        (lambda: HopeLayer(H)(torch.zeros(2, H)), ValueError, r"must have shape \(batch, length, 4\); got \(2, 4\)"),
        (
            lambda: HopeLayer(H)(torch.zeros(2, 5, 3)),
            ValueError,
            r"must have shape \(batch, length, 4\); got \(2, 5, 3\)",
        ),
        (lambda: HopeLayer(H, gate=2)(torch.zeros(2, 5, 3)), ValueError, r"must have shape \(batch, length, 4\); got"),
        (
            lambda: HopeLayer(H, bottleneck=2)(torch.zeros(2, 5, 3)),
            ValueError,
            r"\(batch, length, 4\); got \(2, 5, 3\)",
        ),
        (lambda: HopeLayer(H).step(torch.zeros(2, 3), None), ValueError, r"must have shape \(batch, 4\); got \(2, 3\)"),
        (lambda: HopeLayer(H, kernel="conv", l_max=3).default_state(2), NotImplementedError, "no recurrent mode"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()


# Optimizer groups


def test_groups_follow_the_layer_and_spare_biases_and_norms():
    layer = HopeLayer(H, d_state=6, lr={"dt": 0.002}, wd={"dt": 0.0})
    model = torch.nn.Sequential(layer, torch.nn.LayerNorm(H), torch.nn.GroupNorm(1, H))
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.01, weight_decay=0.1)
    found = {}
    for group in optimizer.param_groups:
        for name in group["names"]:
            found[name] = group["lr"], group["weight_decay"]
    assert set(found) == {name for name, _ in model.named_parameters()}
    kernel = "0.block.layer.kernel"
    assert found.pop(f"{kernel}.raw_sampling_period") == (0.002, 0.0)
    spared = {name for name, options in found.items() if options == (0.01, 0.0)}
    assert spared == {"0.block.output_linear.0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}
    assert {found[name] for name in set(found) - spared} == {(0.01, 0.1)}
    assert f"{kernel}.markov_parameters" in found


def test_a_module_without_kernels_and_a_copy():
    (group,) = parameter_groups(torch.nn.Linear(2, 3, bias=False))
    assert group["names"] == ["weight"]
    layer = HopeLayer(H, lr={"dt": 0.002})
    assert [g.get("lr") for g in parameter_groups(copy.deepcopy(layer))] == [
        g.get("lr") for g in parameter_groups(layer)
    ]


def longest_window(layer):
    return layer.block.layer.kernel.longest_window()


@pytest.mark.parametrize("kernel", ["hope", "hope-bands"])
def test_without_a_horizon_the_windows_suit_the_first_training_sequences(kernel, caplog):
    caplog.set_level("INFO", logger="hope_ssm")
    torch.manual_seed(0)
    layer, x = HopeLayer(40, kernel=kernel, d_state=8), torch.randn(1, 5000, 40)
    with torch.no_grad():
        layer(x)
    layer.eval()(x)
    assert longest_window(layer) < 1000, "only training says how long the sequences are"
    copied = copy.deepcopy(layer)
    layer.train()(x)
    assert longest_window(layer) > 5000
    assert sum("suit 5000 steps" in record.message for record in caplog.records) == 1
    before = copy.deepcopy(layer.state_dict())
    layer(x[:, :9])
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items()), "once"
    copied.load_state_dict(before)
    copied.train()(x[:, :9])
    assert longest_window(copied) == longest_window(layer), "a state dict says all"
    given = HopeLayer(40, kernel=kernel, d_state=8, horizon=5000).block.layer.kernel
    assert (given.dt_min, given.dt_max) == (layer.block.layer.kernel.dt_min, layer.block.layer.kernel.dt_max)


@pytest.mark.parametrize(
    "options", [{"horizon": 100}, {"l_max": 5000}, {"dt_min": 0.01, "dt_max": 0.1}], ids=lambda options: min(options)
)
def test_what_is_said_of_the_windows_is_not_changed_by_a_call(options):
    layer = HopeLayer(4, d_state=8, **options)
    window = longest_window(layer)
    layer(torch.randn(1, 3000, 4))
    assert longest_window(layer) == window


@needs(COMPILED)
@pytest.mark.slow
def test_a_compiled_layer_says_that_it_does_not_look_at_the_first_sequences(caplog):
    layer = HopeLayer(4, d_state=8)
    torch.compile(layer, fullgraph=True, backend="eager")(torch.randn(1, 50, 4))
    assert "neither horizon nor l_max says how long the sequences are" in caplog.text


def windows_of_one_process(rank, folder):
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.manual_seed(rank)
    frozen = {"lr": {"dt": 0}} if folder.name == "frozen" else {}
    layer = torch.nn.parallel.DistributedDataParallel(HopeLayer(4, d_state=8, **frozen), broadcast_buffers=False)
    layer(torch.randn(1, (300, 4000)[rank], 4)).sum().backward()
    torch.save(layer.module.state_dict(), f"{folder}/{rank}.pt")
    os._exit(0)  # gloo's threads sometimes never end


@pytest.mark.slow
@pytest.mark.parametrize("period", ["trained", "frozen"])
def test_processes_agree_on_the_windows_of_their_longest_sequences(period, tmp_path):
    (folder := tmp_path / period).mkdir()
    torch.multiprocessing.spawn(windows_of_one_process, (folder,), nprocs=2)
    first, second = (torch.load(folder / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    layer = HopeLayer(4, d_state=8)
    layer.load_state_dict(first)
    assert longest_window(layer) > 4000


@pytest.mark.slow
def test_three_levels_at_the_beginning_of_ten_thousand_steps_are_read_at_their_end():
    """The windows of some hundred steps forget them, whatever is trained."""
    torch.manual_seed(0)
    length, levels = 10_000, torch.arange(3).repeat(8)
    x = 0.3 * torch.randn(len(levels), length, 1)
    x[:, :800, 0] += levels[:, None] - 1.0
    layer, encoder, decoder = HopeLayer(8, d_state=16), torch.nn.Linear(1, 8), torch.nn.Linear(8, 3)
    model = torch.nn.ModuleList([encoder, layer, decoder])
    optimizer = torch.optim.AdamW(parameter_groups(model), lr=0.01)
    for _ in range(40):
        answers = decoder(layer(encoder(x))[:, -2000:].mean(1))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(answers, levels).backward()
        optimizer.step()
    assert (answers.argmax(1) == levels).float().mean() > 0.95


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda layer: layer(torch.randn(2, 4, 900)), "must have shape"),
        (lambda layer: layer(torch.randn(2, 900, 4), rate=-1.0), "rate must be"),
        (lambda layer: layer(torch.randn(2, 900, 4), torch.tensor([1, 901])), "lengths must be"),
    ],
    ids=["axes", "rate", "lengths"],
)
def test_a_first_call_that_is_refused_sets_nothing(call, sentence):
    layer = HopeLayer(4, d_state=8)
    before = longest_window(layer)
    with pytest.raises((TypeError, ValueError), match=sentence):
        call(layer)
    layer(torch.randn(0, 700, 4))
    assert longest_window(layer) == before
    layer(torch.randn(2, 900, 4), torch.tensor([100, 50]))
    assert longest_window(layer) < 4000, "padding is no length"


@pytest.mark.parametrize("cast", [lambda layer: layer, lambda layer: layer.double(), lambda layer: layer.bfloat16()])
def test_windows_that_were_trained_or_set_before_the_first_call_stay(cast):
    moved, fresh = cast(HopeLayer(4, d_state=8)), cast(HopeLayer(4, d_state=8))
    with torch.no_grad():
        moved.block.layer.kernel.raw_sampling_period.add_(1)
    before = longest_window(moved)
    dtype = next(moved.parameters()).dtype
    for layer in (moved, fresh):
        layer(torch.randn(1, 5000, 4, dtype=dtype))
    assert longest_window(moved) == before
    assert longest_window(fresh) > 5000
