"""A trained model one sample at a time: encoder, backbone and decoder, as ``load(run)`` gives them."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import hope_ssm
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.task import SequenceTask
from hope_ssm.workbench.training import train
from tiny import TINY

TOLERANCE = {"rtol": 1e-11, "atol": 1e-11}
DECODERS = {
    "last": ({"mode": "last"}, 0),
    "pool": ({"mode": "pool"}, 0),
    "sum": ({"mode": "sum"}, 0),
    "first": ({"mode": "first"}, 0),
    "every step": ({"mode": "last"}, None),
    "running means": ({"mode": "pool"}, None),
    "last steps": ({"mode": "last"}, 5),
    "means at the last steps": ({"mode": "pool"}, 5),
    "first steps": ({"mode": "first"}, 5),
    "tail": ({"_name_": "tail_pool", "l_tail": 7}, 0),
    "retrieval": ({"_name_": "retrieval", "mode": "pool"}, 0),
}


def model(kernel="hope", decoder="pool", tokens=False, **options):
    torch.manual_seed(0)
    overrides, l_output = DECODERS[decoder]
    config = compose(["pipeline=own", "model=s4", f"kernel={kernel}", "model.d_model=8", "model.n_layers=2"])
    config["model"]["layer"]["d_state"] = 6
    config["model"] |= options
    config["decoder"] = {"_name_": "sequence"} | overrides
    config["encoder"] = "embedding" if tokens else "linear"
    sizes = {"l_output": l_output, "n_tokens": 5 if tokens else None}
    return SequenceTask(config, d_input=3, d_output=2, **sizes).double().eval()


def inputs(tokens=False, steps=24):
    generator = torch.Generator().manual_seed(1)
    if tokens:
        return torch.randint(5, (4, steps), generator=generator)
    return torch.randn(4, steps, 3, dtype=torch.float64, generator=generator)


@torch.no_grad()
def stepped(task, x):
    state, found = task.default_state(len(x)), []
    for t in range(x.shape[1]):
        y, state = task.step(x[:, t], state)
        found.append(y)
    return torch.stack(found, 1), state


@torch.no_grad()
def in_chunks(task, x, sizes):
    state, found = task.default_state(len(x)), []
    for part in x.split(sizes, dim=1):
        y, state = task(part, state=state)
        found.append(y)
    return torch.cat(found, 1), state


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernel", "decoder", "options"),
    [
        *(("hope", decoder, {}) for decoder in DECODERS),
        ("s4d", "pool", {"norm": "batch"}),
        ("s4", "pool", {"prenorm": False, "residual": "H", "pool": {"_name_": "linear", "expand": 2}}),
        ("rtf", "tail", {}),
        ("hope-bands", "every step", {}),
        ("hope", "pool", {"tokens": True}),
    ],
)
def test_steps_and_chunks_are_the_model_on_what_was_heard(kernel, decoder, options):
    """After t steps the prediction is the model's of the first t, whatever the decoder makes of them."""
    tokens = options.pop("tokens", False)
    task, x = model(kernel, decoder, tokens, **options), inputs(tokens)
    steps, last = stepped(task, x)
    chunks, after = in_chunks(task, x, [1, 10, 13])
    torch.testing.assert_close(chunks, steps, **TOLERANCE)
    torch.testing.assert_close(after, last, **TOLERANCE)
    with torch.no_grad():
        if task.decoder.__dict__.get("l_output") is None and decoder in ("every step", "running means"):
            torch.testing.assert_close(steps, task(x), **TOLERANCE)
        elif decoder == "first steps":
            torch.testing.assert_close(steps[:, :5], task(x), **TOLERANCE)
        elif DECODERS[decoder][1]:
            torch.testing.assert_close(steps[:, -5:], task(x), **TOLERANCE)
        else:
            for t in (7, 16, 24):
                torch.testing.assert_close(steps[:, t - 1], task(x[:, :t]), **TOLERANCE)


@pytest.mark.parametrize(
    ("options", "layer", "message"),
    [
        ({"bidirectional": True}, {}, "bidirectional=true, whose second layer begins at the end of the sequence"),
        ({"norm": "group"}, {}, "the norm GroupNorm, whose mean and variance are of all steps"),
        ({"pool": {"_name_": "pool", "stride": 2}}, {}, "pool.stride=2, after which most steps have no output"),
        ({}, {"bidirectional": True}, "a bidirectional layer has no recurrent mode"),
        ({}, {"truncation": "none"}, "must have a kernel that does not wrap around"),
    ],
)
def test_what_has_no_recurrent_form_says_why(options, layer, message):
    config = compose(["pipeline=own", "model=s4", "kernel=hope", "model.d_model=8", "model.n_layers=1"])
    config["model"] |= options
    config["model"]["layer"] |= layer
    with pytest.raises((ValueError, NotImplementedError), match=message):
        SequenceTask(config, d_input=3, d_output=2).default_state(1)


def test_states_and_chunks_that_are_refused():
    task, x = model(), inputs()
    state = task.default_state(4)
    with pytest.raises(ValueError, match=r"a list of 4, one per layer and 2 of the decoder; got 3\. default_state"):
        task.step(x[:, 0], state[:-1])
    with pytest.raises(ValueError, match=r"must not be padded; got lengths\. Call each sequence by itself"):
        task(x, lengths=torch.tensor([4, 5, 6, 7]), state=state)


@pytest.mark.slow
def test_a_run_is_loaded_and_streamed_in_a_fresh_process(tmp_path):
    train(compose([*TINY, "kernel=hope"]), tmp_path / "run", callbacks=[])
    task = hope_ssm.load(tmp_path / "run")
    x = torch.randn(2, 80, 1)
    torch.save((x, task(x).detach()), tmp_path / "expected.pt")
    code = (
        "import sys, torch, hope_ssm\n"
        "model = hope_ssm.load(sys.argv[1])\n"
        "x, expected = torch.load(sys.argv[2])\n"
        "state = model.default_state(2)\n"
        "with torch.inference_mode():\n"
        "    for t in range(x.shape[1]):\n"
        "        y, state = model.step(x[:, t], state)\n"
        "torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)\n"
        "print('the same')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run"), str(tmp_path / "expected.pt")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == "the same", done.stderr
