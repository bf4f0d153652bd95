"""States in the workbench: steps and chunks of the whole model, what is refused, and truncated training."""

from __future__ import annotations

import pytest
import torch

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.data.loaders import ChunkLoader
from hope_ssm.workbench.streaming import Stream, detached, streams
from hope_ssm.workbench.training import build, train
from kernel_cases import KINDS
from tiny import TINY

QUIET = "+trainer.enable_progress_bar=false"
CHUNKS = ["experiment=hope/noisy-digits-chunks", *[o for o in TINY if o.startswith(("model.", "trainer", "+trainer"))]]
CHUNKS += ["dataset.l_noise=36", "loader.chunk_len=20", "trainer.limit_train_batches=10"]  # 64 + 36 = 5 · 20


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


@pytest.mark.parametrize("kernel", KINDS)
def test_chunks_train_with_the_carried_and_detached_state(kernel, monkeypatch):
    """Loss and gradient of every chunk are those of the model called by hand with the state of the chunks before."""
    task, data = build(compose([*CHUNKS, f"kernel={kernel}"]))
    batches = [batch for batch, _ in zip(data.train_dataloader(), range(7), strict=False)]
    assert [batch[2]["reset"] for batch in batches] == [True, *[False] * 4, True, False]
    parameters = list(task.parameters())
    losses = steps_of(task, batches, monkeypatch)
    alone, state = [], None
    for (x, y, context), loss in zip(batches, losses, strict=True):
        state = task.model.default_state(len(x)) if context["reset"] else [s.detach() for s in state]
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
        (["train.state.n_context_eval=two"], TypeError, "at least 0, or null; got 'two'"),
        (["train.state.mode=bptt"], ValueError, "n_context must be at least 1 with mode=bptt, or nothing is carried"),
        (
            ["loader.chunk_len=0", "decoder.l_tail=20"],
            ValueError,
            r"loader\.chunk_len must be a whole number of at least 1, or null; got 0",
        ),
        *(
            (
                [f"loader.chunk_len={few}", "decoder.l_tail=20"],
                ValueError,
                rf"at least l_tail=20 steps; got {few}\. It is shortened by loader\.chunk_len={few}\.",
            )
            for few in (1, 3)
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


@pytest.mark.slow
def test_two_ranks_have_chunks_of_different_sequences(hope, tmp_path):
    """Lightning makes the loader anew with its sampler: 629 of the 1258 digits per rank, 2 batches in 5 chunks."""
    whole = [o for o in CHUNKS if not o.startswith("trainer.limit_train")]
    done = hope(
        "train", *whole, "trainer.devices=2", "trainer.strategy=ddp", "loader.batch_size=300", "train.test=false"
    )
    assert done.returncode == 0, done.stderr
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    assert torch.load(checkpoint, weights_only=False)["global_step"] == 10


# Batches of other sizes


@pytest.mark.parametrize("mode", ["reset", "bptt"])
def test_a_smaller_batch_goes_on_with_its_first_sequences(mode):
    """The last batch of an epoch; a larger one begins anew."""
    model, stream = Sum(), Stream(mode, None)
    x = torch.arange(12.0).reshape(4, 3, 1)
    stream.before(model, x, 0)
    stream.after(model.advance(x, model.default_state(4)))
    torch.testing.assert_close(stream.before(model, x[:2], 1), model.advance(x[:2], model.default_state(2)))
    stream.after(model.default_state(2))
    torch.testing.assert_close(stream.before(model, x, 2), model.default_state(4))


def test_a_target_as_long_as_the_sequence_is_no_target_of_every_step():
    """With l_output = 0 it goes with every chunk, whatever its size; otherwise it is cut."""
    samples = [(torch.zeros(6, 1), torch.arange(6.0))] * 2
    for l_output, shape in ((0, (2, 6)), (None, (2, 2)), (6, (2, 2))):
        loader = ChunkLoader(samples, batch_size=2, chunk_len=2, l_output=l_output)
        assert [tuple(y.shape) for _, y, _ in loader] == [shape] * 3
