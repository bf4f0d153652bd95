"""Randomness as a function of (seed, epoch, rank), so that a resumed run draws the same numbers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def mixed(*numbers: int) -> int:
    """Return 63 bits that depend on every number (whole, at least 0) and on their order."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


def seed_epoch(seed: int, epoch: int, rank: int) -> None:
    """Seed the global generators of Python, NumPy and torch for one epoch of one process."""
    number = mixed(seed, epoch, rank)
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)


def generators() -> dict[str, Any]:
    """Return the states of the global generators of Python, NumPy and torch."""
    state: Any = np.random.get_state()
    name, numbers, *rest = state
    found: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    found["numpy"] = (name, torch.from_numpy(numbers.astype(np.int64)), *rest)
    return {**found, "cuda": torch.cuda.get_rng_state_all()} if torch.cuda.is_available() else found


def set_generators(states: Mapping[str, Any]) -> None:
    """Set the global generators to what ``generators`` returned."""
    random.setstate(states["python"])
    name, numbers, *rest = states["numpy"]
    np.random.set_state((name, numbers.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])


def gathered(value: Any) -> list[Any]:
    """Return the values of all processes of a training, by rank."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    found: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(found, value)
    return found
