"""A data set of the wrong shape is refused in one sentence at its first batch, and later batches cost nothing."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.data import DATASETS, Splits, pad
from hope_ssm.workbench.data.batches import FirstBatch
from hope_ssm.workbench.training import train
from tiny import TINY

REAL = torch.zeros(4, 7, 2)
TOKENS = torch.zeros(4, 7, dtype=torch.long)
CLASSES = torch.zeros(4, dtype=torch.long)


def look(x, y, loss="cross_entropy", d_output=3, prediction=(4, 3), n_tokens=None, **context):
    check = FirstBatch(loss, 2, d_output, n_tokens)
    check.batch("val", (x, y, context) if context else (x, y))
    check.target("val", torch.zeros(prediction), y)


@pytest.mark.parametrize(
    ("x", "y", "options"),
    [
        (REAL, CLASSES, {}),
        (REAL, CLASSES, {"lengths": torch.tensor([7, 1, 3, 7])}),
        (TOKENS, CLASSES, {"n_tokens": 1}),
        (TOKENS.int(), CLASSES, {"n_tokens": 1}),
        (REAL, TOKENS, {"prediction": (4, 7, 3)}),
        (REAL, torch.zeros(4), {"loss": "mse", "prediction": (4, 1), "d_output": 1}),
        (REAL, torch.zeros(4, 1), {"loss": "mae", "prediction": (4, 1), "d_output": 1}),
        (REAL, torch.ones(4, 3), {"loss": "binary_cross_entropy"}),
        (REAL, torch.ones(4, 3).long(), {"loss": "binary_cross_entropy"}),
    ],
)
def test_good_batches(x, y, options):
    look(x, y, **options)


SPLIT = "of the val split"


@pytest.mark.parametrize(
    ("x", "y", "options", "error", "message"),
    [
        (REAL[..., 0], CLASSES, {}, ValueError,
         rf"^the inputs {SPLIT} must have shape \(batch, length, d_input=2\); got \(4, 7\)\.$"),
        (REAL[..., :1], CLASSES, {}, ValueError, r"d_input=2\); got \(4, 7, 1\)\.$"),
        (REAL.double(), CLASSES, {}, TypeError, r"must be float32; got torch.float64. Convert with .float\(\)\.$"),
        (TOKENS, CLASSES, {}, TypeError, r"must be real numbers; got torch.int64\. Convert with .float\(\), or"),
        (TOKENS + 5, CLASSES, {"n_tokens": 5}, ValueError, r"must be tokens from 0 to 4, for n_tokens=5; got 5\.$"),
        (TOKENS - 1, CLASSES, {"n_tokens": 5}, ValueError, r"must be tokens from 0 to 4, for n_tokens=5; got -1\.$"),
        (TOKENS[..., None], CLASSES, {"n_tokens": 5}, ValueError, r"of shape \(batch, length\); got \(4, 7, 1\)"),
        (REAL, CLASSES, {"lengths": torch.tensor([8, 1, 1, 1])}, ValueError, "lengths must be .* from 1 to 7; got 8"),
        (REAL, CLASSES, {"length": CLASSES}, ValueError, "got the key 'length'. Did you mean 'lengths'"),
        (REAL, CLASSES.float(), {}, TypeError,
         rf"^the targets {SPLIT}, for task.loss=cross_entropy, must be int64 "
         r"classes of shape \(4,\); got torch.float32 of shape \(4,\)\. Convert with \.long\(\)\.$"),
        (REAL, CLASSES.int(), {}, TypeError, "got torch.int32"),
        (REAL, CLASSES[:, None], {}, ValueError, r"classes of shape \(4,\); got shape \(4, 1\)"),
        (REAL, CLASSES, {"prediction": (4, 7, 3)}, ValueError, r"classes of shape \(4, 7\); got shape \(4,\)"),
        (REAL, CLASSES + 3, {}, ValueError, r"must be classes from 0 to 2, for d_output=3; got 3\.$"),
        (REAL, CLASSES - 100, {}, ValueError, "must be classes from 0 to 2, for d_output=3; got -100"),
        (REAL, CLASSES, {"loss": "mse"}, TypeError, r"real numbers of shape \(4, 3\); got torch.int64"),
        (REAL, torch.zeros(4), {"loss": "mse"}, ValueError, r"real numbers of shape \(4, 3\); got shape \(4,\)"),
        (REAL, torch.zeros(4, 4), {"loss": "mse", "prediction": (4, 1)}, ValueError, r"shape \(4, 1\) or \(4,\); got "),
        (REAL, torch.zeros(4, 3) + 2, {"loss": "binary_cross_entropy"}, ValueError, "from 0 to 1; got 2.0 to 2.0"),
    ],
)  # fmt: skip
def test_refused_batches(x, y, options, error, message):
    with pytest.raises(error, match=message):
        look(x, y, **options)


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        (REAL, "Tensor"),
        ((REAL,), "1 parts"),
        ((REAL, CLASSES, {}, {}), "4 parts"),
        ((REAL, [1, 2]), "list for y"),
        ((REAL.numpy(), CLASSES), "ndarray for x"),
        ((REAL, CLASSES, torch.tensor([7, 7, 7, 7])), "Tensor as its third part"),
    ],
)
def test_what_is_no_batch(batch, got):
    with pytest.raises(TypeError, match=rf"a batch of the test split must be \(x, y\) or .*; got {got}\.$"):
        FirstBatch("mse", 2, 1, None).batch("test", batch)


def test_only_the_first_batch_of_each_split_is_looked_at():
    check = FirstBatch("cross_entropy", 2, 3, None)
    for split in ("train", "val"):
        check.batch(split, (REAL, CLASSES))
        check.target(split, torch.zeros(4, 3), CLASSES)
        x, _, context = check.batch(split, (REAL.double(), CLASSES.float()))
        check.target(split, torch.zeros(4, 3), CLASSES.float())
        assert x.dtype == torch.float64
        assert context == {}
    check.batch("test", (REAL, CLASSES))
    with pytest.raises(TypeError, match=r"targets of the test split"):
        check.target("test", torch.zeros(4, 3), CLASSES.float())


def test_a_run_on_a_bad_data_set_ends_in_that_sentence(tmp_path, monkeypatch):
    good = TensorDataset(torch.zeros(8, 5, 2), torch.zeros(8, dtype=torch.long))
    bad = TensorDataset(torch.zeros(8, 5, 2), torch.full((8,), 4))
    options = [o for o in TINY if not o.startswith(("pipeline", "dataset"))] + ["loader.batch_size=4"]
    config = compose(["pipeline=own", "dataset._name_=ours", *options])
    monkeypatch.setitem(DATASETS, "ours", lambda: Splits(good, bad, good, d_input=2, d_output=4))
    message = r"^the targets of the val split, .* must be classes from 0 to 3, for d_output=4; got 4\.$"
    with pytest.raises(ValueError, match=message):
        train(config, tmp_path / "a", callbacks=[])
    ragged = [(torch.zeros(5, 2), 0), (torch.zeros(4, 2), 1)] * 4
    monkeypatch.setitem(DATASETS, "ours", lambda: Splits(ragged, ragged, ragged, d_input=2, d_output=4))
    with pytest.raises(ValueError, match=r"one shape; got inputs of \(4, 2\), \(5, 2\)"):
        train(config, tmp_path / "b", callbacks=[])
    monkeypatch.setitem(DATASETS, "ours", lambda: Splits(ragged, ragged, ragged, d_input=2, d_output=4, collate=pad))
    assert 0 <= train(config, tmp_path / "c", callbacks=[]).metrics["test/accuracy"] <= 1
