"""Digits and noise tails: real images, splits by seed, noise fresh in training and fixed in evaluation."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from hope_ssm.datasets.digits import digits
from hope_ssm.datasets.noise_tail import NoiseTail
from hope_ssm.layers.tail_pool import TailPool
from hope_ssm.workbench.data.builtin import noisy_digits
from hope_ssm.workbench.data.loaders import DataModule


def test_digits_are_split_once_and_whole():
    parts = digits(seed=3)
    assert {name: len(part) for name, part in parts.items()} == {"test": 359, "val": 180, "train": 1258}
    images = torch.cat([part.tensors[0] for part in parts.values()]).squeeze(-1)
    expected = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    assert images.shape == (1797, 64)
    assert sorted(map(tuple, images.tolist())) == sorted(map(tuple, expected.tolist()))
    assert torch.equal(digits(seed=3)["test"].tensors[0], parts["test"].tensors[0])
    assert not torch.equal(digits(seed=4)["test"].tensors[0], parts["test"].tensors[0])


def test_the_signal_comes_first_and_the_noise_is_uniform():
    splits = noisy_digits(l_noise=100)
    x, y = splits.test[5]
    assert x.shape == (164, 1)
    assert torch.equal(x[:64], digits(42)["test"][5][0])
    assert int(y) == int(digits(42)["test"][5][1])
    noise = torch.stack([splits.test[i][0][64:] for i in range(100)])
    assert noise.min() >= 0
    assert noise.max() < 1
    assert abs(noise.mean() - 0.5) < 0.02
    assert abs(noise.var() - 1 / 12) < 0.005


def test_noise_is_fresh_in_training_and_fixed_in_evaluation():
    splits = noisy_digits(l_noise=20)
    assert not torch.equal(splits.train[0][0][64:], splits.train[0][0][64:])
    for part in (splits.val, splits.test):
        assert torch.equal(part[0][0], part[0][0])
        assert not torch.equal(part[0][0][64:], part[1][0][64:])
    assert not torch.equal(splits.val[0][0][64:], splits.test[0][0][64:])
    splits.train.set_epoch(0)
    assert torch.equal(splits.train[0][0], splits.train[0][0])


def test_training_noise_differs_between_workers():
    data = DataModule({"_name_": "noisy-digits", "l_noise": 8}, {"batch_size": 4, "num_workers": 2, "drop_last": True})
    torch.manual_seed(0)
    batches = [x[:, 64:] for x, _ in data.train_dataloader()]
    rows = torch.cat(batches).flatten(1)
    assert len(rows.unique(dim=0)) == len(rows)


def test_tail_pool_is_the_mean_of_the_tail():
    pool = TailPool(3, None, l_tail=4)
    x = torch.randn(2, 9, 3)
    torch.testing.assert_close(pool(x), x[:, 5:].mean(1))
    with pytest.raises(ValueError, match="at least l_tail=4 steps; got 3"):
        pool(x[:, :3])


@pytest.mark.parametrize(
    ("dataset", "loader", "error", "message"),
    [
        ({"_name_": "noisy-digit"}, {}, ValueError, "dataset must be one of .* Did you mean 'noisy-digits'"),
        ({"_name_": "noisy-digits", "lnoise": 3}, {}, TypeError, "no option 'lnoise'.* Did you mean 'l_noise'"),
        ({"_name_": "noisy-digits", "l_noise": 0}, {}, ValueError, "l_noise must be a whole number of at least 1"),
        ({"_name_": "noisy-digits"}, {"batchsize": 3}, TypeError, "no option 'batchsize'.* Did you mean 'batch_size'"),
    ],
)
def test_bad_options(dataset, loader, error, message):
    with pytest.raises(error, match=message):
        DataModule(dataset, loader)


def test_noise_tail_refuses_an_empty_tail():
    with pytest.raises(ValueError, match="l_noise must be a whole number of at least 1; got 0"):
        NoiseTail([], 0, 0, "train")
