"""The watch recordings: whole subjects in each split, scaled by the training ones; and padded batches."""

from __future__ import annotations

import io
import pickle

import numpy as np
import pytest
import torch
from seglearn.datasets import load_watch

from hope_ssm.datasets.watch import read, watch
from hope_ssm.workbench.data.loaders import DataModule
from hope_ssm.workbench.data.splits import pad, stack


def test_every_recording_is_there_once_and_no_subject_twice():
    parts, raw = watch(1), load_watch()
    assert {name: len(part) for name, part in parts.items()} == {"test": 28, "val": 14, "train": 98}
    subjects = [set(part.subjects) for part in parts.values()]
    assert [len(s) for s in subjects] == [2, 1, 7]
    assert set.union(*subjects) == set(range(1, 11))
    train = torch.cat(parts["train"].x)
    torch.testing.assert_close(train.double().mean(0), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(train.std(0), torch.ones(6), rtol=1e-4, atol=0)
    ours = np.isin(raw["subject"], parts["train"].subjects)
    whole = np.concatenate([x for x, own in zip(raw["X"], ours, strict=True) if own])
    shortest = min(range(140), key=lambda i: len(raw["X"][i]))
    scaled = torch.from_numpy((raw["X"][shortest] - whole.mean(0)) / whole.std(0)).float()
    found = [(x, y) for part in parts.values() for x, y in part if len(x) == 947]
    assert any(torch.equal(x, scaled) and y == raw["y"][shortest] for x, y in found)
    lengths = sorted(len(x) for part in parts.values() for x in part.x)
    assert lengths == sorted(len(x) for x in raw["X"])


def test_splits_follow_the_seed():
    one, again, other = (watch(seed)["test"].subjects for seed in (1, 1, 2))
    assert one == again != other


def test_batches_are_padded_and_say_how_far_they_are_whole():
    data = DataModule({"_name_": "watch"}, {"batch_size": 5, "num_workers": 0})
    x, y, context = next(iter(data.val_dataloader()))
    assert x.shape == (5, max(context["lengths"]), 6)
    for i, length in enumerate(context["lengths"].tolist()):
        own, label = data.splits.val[i]
        assert torch.equal(x[i, :length], own)
        assert not x[i, length:].any()
        assert y[i] == label


def test_padding_of_tokens_and_of_targets_at_every_step():
    x, y, context = pad([(torch.tensor([3, 1]), torch.tensor([1, 0])), (torch.tensor([2]), torch.tensor([5]))])
    assert x.tolist() == [[3, 1], [2, 0]]
    assert y.tolist() == [[1, 0], [5, 0]]
    assert context["lengths"].tolist() == [2, 1]


def test_samples_that_do_not_stack_ask_for_padding():
    with pytest.raises(
        ValueError, match=r"one shape; got inputs of \(3, 1\), \(4, 1\).* give Splits\(…, collate=pad\)"
    ):
        stack([(torch.zeros(3, 1), 0), (torch.zeros(4, 1), 0)])


def test_nothing_but_arrays_is_read():
    class Trap:
        def __reduce__(self):
            return print, ("sprung",)

    file = io.BytesIO()
    np.save(file, np.array({"X": Trap()}, dtype=object), allow_pickle=True)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match=r"must hold arrays alone; got builtins.print"):
        read(file)


@pytest.mark.parametrize(("n_test", "n_val"), [(0, 1), (2, 0), (5, 5)])
def test_a_split_without_subjects_is_refused(n_test, n_val):
    with pytest.raises(ValueError, match=f"a subject to each of three splits of 10; got {n_test} and {n_val}"):
        watch(n_test=n_test, n_val=n_val)
