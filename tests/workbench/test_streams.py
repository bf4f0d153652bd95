"""States in the workbench: steps and chunks of the whole model, what is refused, and truncated training."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from hope_ssm.workbench.backbone import SequenceModel
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.convolution import FFTConvolution
from hope_ssm.workbench.layers import S4Block
from hope_ssm.workbench.loaders import ChunkLoader
from hope_ssm.workbench.streaming import Stream, detached, streams
from hope_ssm.workbench.training import build, train
from tiny import TINY

KERNELS = ["hope", "s4d", "s4"]
QUIET = "+trainer.enable_progress_bar=false"
CHUNKS = ["experiment=hope/noisy-digits-chunks", *[o for o in TINY if o.startswith(("model.", "trainer", "+trainer"))]]
CHUNKS += ["dataset.l_noise=36", "loader.chunk_len=20", "trainer.limit_train_batches=10"]  # 64 + 36 = 5 · 20


def model_of(kernel="hope", **layer):
    layer = {"_name_": "s4", "mode": kernel, "d_state": 6} | layer
    return SequenceModel(4, layer, n_layers=2, norm="layer").double().eval()


# Steps and chunks


@pytest.mark.parametrize("kernel", KERNELS)
def test_setup_step_at_any_time_and_training_in_between(kernel):
    """At every level as in the host; after an optimizer step the next sample has the new parameters."""
    model = model_of(kernel)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    x = torch.randn(2, 9, 4, dtype=torch.float64)
    seen = []
    for turn in range(3):
        for part in [(), (model,), (model.layers[0].layer,), (model.layers[1].layer.layer, model)][turn]:
            part.setup_step()
        state, steps = model.default_state(2), []
        with torch.no_grad():
            for sample in x.unbind(1):
                y, state = model.step(sample, state)
                steps.append(y)
            torch.testing.assert_close(torch.stack(steps, 1), model(x)[0], rtol=1e-11, atol=1e-11)
        seen.append(steps[-1])
        optimizer.zero_grad()
        model(x)[0].square().mean().backward()
        optimizer.step()
    assert all((a - b).abs().max() > 1e-4 for a, b in pairwise(seen))
    with pytest.raises(TypeError, match="setup_step has no option 'stride'; it takes none"):
        model.setup_step(stride=2)


@pytest.mark.parametrize("kernel", KERNELS)
def test_l_max_longer_and_shorter_than_the_input(kernel):
    """Chunks up to l_max go on from their state exactly, as steps do; a longer one is refused, not cut."""
    layer = FFTConvolution(3, kernel, d_state=6, l_max=8).double()
    free = FFTConvolution(3, kernel, d_state=6).double()
    free.load_state_dict(layer.state_dict())
    x = torch.randn(2, 20, 3, dtype=torch.float64)
    with torch.no_grad():
        whole, last = free(x, free.default_state(2))
        state, parts = layer.default_state(2), []
        for chunk in x.split([1, 8, 3, 8], dim=1):
            y, state = layer(chunk, state)
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(state, last, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(layer(x)[0][:, :8], whole[:, :8], rtol=1e-11, atol=1e-11)
        assert not torch.allclose(layer(x)[0], whole)
        assert layer(x, rate=100)[0].shape == x.shape  # round(8 / 100) is no length
    with pytest.raises(
        ValueError, match=r"must not be longer than l_max=8, .*; got 9 steps\. Use l_max=null or shorter"
    ):
        layer(x[:, :9], state)


@pytest.mark.parametrize("kernel", KERNELS)
def test_states_that_are_refused(kernel):
    """Of another batch, feature, n, number of axes, dtype or kind: never broadcast."""
    layer = FFTConvolution(4, kernel, d_state=6)
    x, good = torch.zeros(2, 5, 4), layer.default_state(2)
    double, other = (good.double(), good.long()) if kernel == "hope" else (good.to(torch.complex128), good.real)
    shape = (
        r"^the state must be (real|complex) of shape \(batch, 4, [36]\); got shape .*\. default_state\(batch\) makes"
    )
    batch = r"^u and the state must have one batch size; got 2 and [13]\. default_state\(batch\) makes a state\.$"
    for bad, error, message in [
        (layer.default_state(1), ValueError, batch),
        (layer.default_state(3), ValueError, batch),
        (good[:, :1], ValueError, shape),
        (good[..., :1], ValueError, shape),
        (good[0], ValueError, shape),
        (good.unsqueeze(1), ValueError, shape),
        (double, TypeError, r"^the state must be torch\.\w+, as default_state\(batch\) makes it; got torch\.\w+\.$"),
        (other, TypeError, r"^the state must be .*; got torch\.\w+\."),
        ([good], TypeError, "got list"),
    ]:
        with pytest.raises(error, match=message):
            layer(x, bad)
        with pytest.raises(error, match=message):
            layer.step(x[:, 0], bad)
        with pytest.raises(error, match=message):
            layer(x, bad, lengths=torch.tensor([5, 2]))


def test_calls_that_are_refused():
    layer, both = FFTConvolution(4, "hope", d_state=6), S4Block(4, mode="hope", d_state=6, bidirectional=True)
    state, x = layer.default_state(2), torch.zeros(2, 5, 4)
    with pytest.raises(
        ValueError, match=r"^the layer's input must have shape \(batch, length, 4\); got \(2, 0, 4\)\.$"
    ):
        layer(x[:, :0], state)
    for rate in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"^rate must be a finite number above 0; got "):
            FFTConvolution(4, "hope", l_max=3)(x, rate=rate)
    with pytest.raises(
        ValueError, match=r"^the rate must be 1 with a state; got 2\.0\. Call without a state, or train"
    ):
        layer(x, state, rate=2)
    with pytest.raises(ValueError, match=r"^a bidirectional layer must be called without a state"):
        both(x, both.default_state(2))
    for call in (both.setup_step, lambda: both.step(x[:, 0], both.default_state(2))):
        with pytest.raises(ValueError, match=r"^a bidirectional layer has no recurrent mode; train it with"):
            call()
    model = model_of()
    for bad, got in ((model.default_state(2)[:1], "1"), (model.default_state(2)[0], "Tensor"), ([], "0")):
        for call in (model, model.step):
            with pytest.raises(
                ValueError, match=rf"^the state must be a list of 2, one a layer; got {got}\. default_state"
            ):
                call(x.double() if call is model else x[:, 0].double(), bad)


# Truncated training


def test_the_chunk_loader_cuts_inputs_and_targets_along_time():
    x, y = torch.randn(6, 10, 2), torch.arange(6)
    loader = ChunkLoader(torch.utils.data.TensorDataset(x, y), batch_size=4, chunk_len=4)
    batches = list(loader)
    assert len(loader) == len(batches) == 6
    assert [b[2]["reset"] for b in batches] == [True, False, False] * 2
    assert [tuple(b[0].shape) for b in batches[:3]] == [(4, 4, 2), (4, 4, 2), (4, 2, 2)]
    assert torch.equal(torch.cat([b[0] for b in batches[:3]], 1), x[:4])
    assert all(torch.equal(b[1], y[:4]) for b in batches[:3])
    along = ChunkLoader(torch.utils.data.TensorDataset(x, x + 1), batch_size=6, chunk_len=3)
    assert all(torch.equal(target, part + 1) for part, target, _ in along)
    with pytest.raises(ValueError, match=r"chunk_len needs batches \(x, y\); got more"):
        next(iter(ChunkLoader(torch.utils.data.TensorDataset(x, y, y), batch_size=6, chunk_len=3)))
    with pytest.raises(ValueError, match=r"loader\.chunk_len must be a whole number of at least 1; got 0"):
        ChunkLoader(torch.utils.data.TensorDataset(x, y), chunk_len=0)


def steps_of(task, batches, monkeypatch):
    monkeypatch.setattr(task, "log_dict", lambda *args, **options: None)
    return [task.training_step(batch, index) for index, batch in enumerate(batches)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_chunks_train_with_the_carried_and_detached_state(kernel, monkeypatch):
    """Loss and gradient of every chunk are those of the model called by hand with the state of the chunks before."""
    task, data = build(compose([*CHUNKS, f"kernel={kernel}"]))
    batches = [batch for batch, _ in zip(data.train_dataloader(), range(7), strict=False)]
    assert [batch[2]["reset"] for batch in batches] == [True, *[False] * 4, True, False]
    parameters = list(task.parameters())
    losses = steps_of(task, batches, monkeypatch)
    alone, state = [], None
    for (x, y, context), loss in zip(batches, losses, strict=True):
        state = task.default_state(len(x)) if context["reset"] else [s.detach() for s in state]
        out, state = task.model(task.encoder(x), state)
        expected = task.loss(task.decoder(out), y)
        torch.testing.assert_close(loss, expected)
        for value, exact in zip(
            torch.autograd.grad(loss, parameters),
            torch.autograd.grad(expected, parameters, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(value, exact)
        alone.append(task.loss(task(x), y))
    different = [abs(a - b).item() > 1e-6 for a, b in zip(alone, losses, strict=True)]
    assert different == [False, *[True] * 4, False, True]


def test_the_last_chunk_hears_the_first(monkeypatch):
    task, data = build(compose([*CHUNKS, "kernel=hope"]))
    batches = [batch for batch, _ in zip(data.train_dataloader(), range(5), strict=False)]
    changed = [(torch.zeros_like(batches[0][0]), *batches[0][1:]), *batches[1:]]
    assert steps_of(task, batches, monkeypatch)[-1] != steps_of(task, changed, monkeypatch)[-1]


class Sum:
    """A model whose state is the sum of its inputs times a weight."""

    def __init__(self):
        self.weight = torch.tensor(2.0, requires_grad=True)

    def default_state(self, batch):
        return [torch.zeros(batch)]

    def advance(self, x, state):
        return [state[0] + self.weight * x.sum((1, 2))]


def carried(mode, n_context, batches, resets=None):
    """The state each batch starts from, for inputs 1, 10, 100, …"""
    model, stream, seen = Sum(), Stream(mode, n_context), []
    for index in range(batches):
        x = torch.full((1, 1, 1), 10.0**index)
        state = stream.before(model, x, index, None if resets is None else index in resets)
        seen.append(None if state is None else state[0].item() / 2)
        assert state is None or not state[0].requires_grad
        stream.after(None if state is None else model.advance(x, state))
    return seen


def test_modes():
    assert carried(None, 3, 3) == carried("none", 3, 3) == [None] * 3
    assert carried("reset", 0, 3) == carried("bptt", 0, 3) == [None] * 3
    assert carried("reset", 2, 5) == [0, 1, 11, 0, 1000]
    assert carried("reset", None, 4) == [0, 1, 11, 111]
    assert carried("bptt", 1, 4) == [0, 1, 10, 100]
    assert carried("bptt", 2, 4) == [0, 1, 11, 110]
    assert carried("bptt", 2, 4, resets={0, 2}) == [0, 1, 0, 100]
    assert carried("bptt", None, 4) == [0, 1, 11, 111]
    assert carried("tbptt", 0, 5, resets={0, 3}) == [0, 1, 11, 0, 1000]


def test_bptt_passes_through_under_the_present_parameters():
    model, stream = Sum(), Stream("bptt", 1)
    x = torch.ones(1, 1, 1)
    stream.before(model, x, 0)
    with torch.no_grad():
        model.weight.fill_(7.0)
    assert stream.before(model, x, 1)[0].item() == 7.0


def test_splits_have_states_of_their_own_and_epochs_begin_without(monkeypatch):
    task, data = build(compose([*CHUNKS, "kernel=hope"]))
    (first, second), (held, _) = ([b for b, _ in zip(loader, range(2), strict=False)]
                                  for loader in (data.train_dataloader(), data.val_dataloader()))  # fmt: skip
    steps_of(task, [first], monkeypatch)
    kept = task.streams["train"].state
    task.on_validation_epoch_start()
    task.validation_step(held, 0)
    assert task.streams["train"].state is kept
    task.training_step(second, 1)
    assert task.streams["train"].state is not kept
    task.on_train_epoch_start()
    assert task.streams["train"].state is None
    assert detached(None) is None


def test_a_run_in_chunks(tmp_path):
    run = train(compose([*CHUNKS, QUIET, "kernel=hope"]), tmp_path)
    assert len(run.history.step_seconds) == 10
    assert {"train/loss", "val/accuracy", "test/accuracy"} <= set(run.metrics)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (
            ["train.state.mode=tbtt"],
            ValueError,
            r"train\.state\.mode must be one of .*; got 'tbtt'\. Did you mean 'tbptt'",
        ),
        (["train.state.n_context=-1"], ValueError, r"train\.state\.n_context must be .* at least 0, or null; got -1"),
        (["train.state.n_context_eval=two"], ValueError, "at least 0, or null; got 'two'"),
        (["train.state.mode=bptt"], ValueError, "n_context must be at least 1 with mode=bptt, or nothing is carried"),
        (
            ["loader.chunk_len=0", "decoder.l_tail=20"],
            ValueError,
            r"loader\.chunk_len must be a whole number of at least 1; got 0",
        ),
        (["loader.chunk_len=null", "decoder.l_tail=20"], ValueError, r"mode=tbptt .* Set loader\.chunk_len"),
    ],
)
def test_bad_configurations(overrides, error, message, tmp_path):
    with pytest.raises(error, match=message):
        train(compose([*CHUNKS, QUIET, *overrides]), tmp_path)


def test_unknown_option_of_the_state():
    with pytest.raises(TypeError, match=r"train\.state has no option 'n_contxt'; .* Did you mean 'n_context'"):
        streams({"n_contxt": 3})


def test_two_ranks_have_chunks_of_different_sequences(hope, tmp_path):
    """Lightning makes the chunk loader anew with its sampler: 629 of the 1258 digits a rank, 2 batches in 5 chunks."""
    whole = [o for o in CHUNKS if not o.startswith("trainer.limit_train")]
    done = hope(
        "train", *whole, "trainer.devices=2", "trainer.strategy=ddp", "loader.batch_size=300", "train.test=false"
    )
    assert done.returncode == 0, done.stderr
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    assert torch.load(checkpoint, weights_only=False)["global_step"] == 10
