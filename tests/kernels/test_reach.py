"""How many numbers of a pattern a feature can carry over noise: why S4D-Real stays at chance in docs/results.md."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, jacfwd

from hope_ssm import registry

PATTERN, STEPS = 160, 224  # the digit of 64 pixels lies 160 to 223 steps before the last step that is read


def carried(name: str, trained: str, period: float, largest: float = 1e3) -> int:
    """Count the orthonormal responses with more than half of their energy at the lags of the pattern.

    Responses are those of one feature for any ``trained`` parameter c, at the initial poles. Directions whose response
    is less than 1/``largest`` of the strongest one's for the same c are left out: training would have to find such c.
    """
    torch.manual_seed(0)
    kernel = registry.get(name)(d_model=1, d_state=64, dt_min=period, dt_max=period, verbose=False).double()
    c = dict(kernel.named_parameters())[trained].detach()
    responses = jacfwd(lambda c: functional_call(kernel, {trained: c}, (), {"L": STEPS})[0].flatten())(c)
    directions, sizes, _ = torch.linalg.svd(responses.detach().reshape(STEPS, -1), full_matrices=False)
    late = directions[PATTERN:, sizes * largest > sizes[0]]
    return int((torch.linalg.svdvals(late) > 0.5**0.5).sum())


@pytest.mark.parametrize(
    ("name", "trained", "periods", "numbers"),
    [
        ("hope", "markov_parameters", (0.0156, 0.06, 0.25, 0.5), [4, 7, 7, 0]),
        ("s4d", "C", (0.001, 0.006, 0.03, 0.1), [4, 15, 0, 0]),
        ("s4d-real", "C", (0.001, 0.006, 0.03, 0.1), [1, 1, 0, 0]),
    ],
)
def test_real_poles_carry_one_number_of_a_pattern_over_noise(name, trained, periods, numbers):
    """Over each kernel's own range of Δt; the mean over the pattern is such a number, its form is not."""
    found = [carried(name, trained, period) for period in periods]
    assert all(abs(a - b) <= (1 if b > 1 else 0) for a, b in zip(found, numbers, strict=True)), found
