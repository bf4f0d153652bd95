"""Random samples depend on (seed, split, epoch, index) alone: not on order, workers, start method or process."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from hope_ssm.datasets.noise_tail import NoiseTail
from hope_ssm.datasets.randomness import RandomDataset


class Draws(RandomDataset):
    """Three 32-bit numbers per sample."""

    n = 6

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        return torch.from_numpy(self.generator(index).integers(0, 2**32, 3))


def epoch_of(loader, dataset, epoch):
    dataset.set_epoch(epoch)
    return torch.cat(list(loader)).tolist()


def test_the_numbers_are_philox_under_the_key_and_the_counter():
    """Of NumPy's own generator, whose first block is that of the counter plus one."""
    draws = Draws(7, "val")
    raw = np.random.Philox(key=[7, 1], counter=[0, 0, 0, 5]).random_raw(4)
    assert (draws.generator(5).bit_generator.random_raw(4) == raw).all()


def test_every_part_of_the_address_counts():
    """3 seeds × 3 splits × 20 epochs × 20 indices: no two streams alike, small and large numbers."""
    seen = set()
    for seed in (0, 1, 2**63 - 1):
        for split in ("train", "val", "test"):
            draws = Draws(seed, split, fixed=False)
            draws.n = 2**41
            for epoch in [*range(18), 2**31, 2**40]:
                draws.set_epoch(epoch)
                seen |= {tuple(draws[index].tolist()) for index in [*range(18), 2**31, 2**40]}
    assert len(seen) == 3 * 3 * 20 * 20


def test_a_data_set_ends():
    """So that a loop over it does."""
    draws = Draws(0, "val")
    assert len(list(draws)) == 6
    assert torch.equal(draws[-1], draws[5])
    with pytest.raises(IndexError):
        draws[6]


def test_fresh_in_training_and_fixed_in_evaluation():
    for split, fixed in (("train", False), ("val", True), ("test", True)):
        draws = Draws(0, split)
        first = draws[2]
        assert torch.equal(first, draws[2]) == fixed, "without an epoch training samples change at every access"
        draws.set_epoch(0)
        first = draws[2]
        assert torch.equal(first, draws[2])
        draws.set_epoch(1)
        assert torch.equal(first, draws[2]) == fixed
    static = Draws(0, "train", fixed=True)
    assert torch.equal(static[2], static[2])


def test_without_epochs_the_samples_follow_torch_s_seed():
    """So that a host that sets no epochs has a repeatable run under its own seed."""
    rows = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        rows.append(Draws(0, "train")[0].tolist())
    assert rows[0] == rows[1] != rows[2]


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_persistent_workers_see_the_epoch_and_change_nothing(context):
    draws, own = Draws(5, "train"), Draws(5, "train")
    alone = DataLoader(own, batch_size=2)
    workers = DataLoader(draws, batch_size=2, num_workers=2, persistent_workers=True, multiprocessing_context=context)
    epochs = [epoch_of(workers, draws, epoch) for epoch in (0, 1, 0)]
    assert epochs == [epoch_of(alone, own, epoch) for epoch in (0, 1, 0)]
    assert epochs[0] == epochs[2] != epochs[1]


def test_wrappers_hand_the_epoch_on():
    class Signals(Draws):
        def __getitem__(self, index):
            return super().__getitem__(index).float().unsqueeze(-1), 0

    tail = NoiseTail(Signals(0, "train"), 4, 0, "train")
    tail.set_epoch(0)
    assert tail.generator(0).random() != tail.signals.generator(0).random()
    first = tail[0][0]
    tail.set_epoch(1)
    assert not torch.isin(tail[0][0], first).any()
    tail.set_epoch(0)
    assert torch.equal(tail[0][0], first)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1, "train"), ValueError, r"^seed must be a whole number from 0 to 2\*\*63 - 1; got -1\.$"),
        ((2**63, "train"), ValueError, "seed must be .*; got 9223372036854775808"),
        ((1.0, "train"), TypeError, r"seed must be .*; got 1.0 \(float\)"),
        ((True, "train"), TypeError, "seed must be"),
        ((0, "tran"), ValueError, "split must be one of 'train', 'val', 'test'; got 'tran'. Did you mean 'train'"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        NoiseTail(TensorDataset(torch.zeros(1, 1, 1)), 3, *arguments)
