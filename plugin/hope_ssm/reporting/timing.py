"""Times of calls, and how a quantity grows with a size."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor


def seconds(call: Callable[[], object]) -> float:
    """Return the wall time of one call, in seconds."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def median_seconds(call: Callable[[], object], repetitions: int, warm_up: int = 3) -> float:
    """Return the median wall time of a call, in seconds, after calls that do not count."""
    for _ in range(warm_up):
        call()
    return statistics.median(seconds(call) for _ in range(repetitions))


def exponents(sizes: Sequence[float], values: np.ndarray | Sequence[float]) -> np.ndarray:
    """β of the least-squares line  log y = β log x + c:  y grows like x to this power.

    Args:
        sizes: x, (K,), at least two different ones.
        values: y, (..., K); what is below 1e-300 counts as that.

    Returns:
        β, (...).
    """
    x = np.log(np.asarray(sizes, dtype=float))
    x = x - x.mean()
    return np.log(np.maximum(np.asarray(values, dtype=float), 1e-300)) @ x / (x @ x)


def step_seconds(
    steps: Sequence[Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]],
    inputs: Tensor,
    states: Sequence[Tensor],
    repetitions: int,
    warm_up: int = 10,
) -> list[list[float]]:
    """Return the wall times of ``repetitions`` steps of each recurrence, in seconds, taken in turns.

    Args:
        steps: map inputs and a state to outputs and the next state.
        inputs: of every step.
        states: the first state of each.
        repetitions: how many steps count.
        warm_up: how many come before them and do not count.
    """
    times: list[list[float]] = [[] for _ in steps]
    current = list(states)
    with torch.no_grad():
        for _ in range(warm_up + repetitions):
            for place, step in enumerate(steps):
                start = time.perf_counter()
                _, current[place] = step(inputs, current[place])
                times[place].append(time.perf_counter() - start)
    return [taken[warm_up:] for taken in times]
