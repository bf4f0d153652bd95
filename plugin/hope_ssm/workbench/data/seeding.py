"""Randomness as a function of (seed, epoch, rank), so that a resumed run draws the same numbers."""

from __future__ import annotations

import random

import numpy as np
import torch


def mixed(*numbers: int) -> int:
    """Return 63 bits that depend on every number (whole, at least 0) and on their order."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def seed_epoch(seed: int, epoch: int, rank: int) -> None:
    """Seed the global generators of Python, NumPy and torch for one epoch of one process."""
    number = mixed(seed, epoch, rank)
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)
