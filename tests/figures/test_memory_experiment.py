"""What the picture of the memory experiment draws."""

from __future__ import annotations

import math

import torch

from hope_ssm.figures.memory_experiment import BANDS, HOP, energy_to_come


class Bursts(torch.nn.Module):
    """A wave of period 64 around lag 300, and one of period 4 around lag 100."""

    def forward(self, L):
        t = torch.arange(L, dtype=torch.float64)
        slow = torch.cos(2 * math.pi * t / 64) * torch.exp(-(((t - 300) / 30) ** 2))
        fast = torch.cos(2 * math.pi * t / 4) * torch.exp(-(((t - 100) / 10) ** 2))
        return (slow + fast)[None, None], None


def test_energy_to_come_is_told_apart_by_lag_and_frequency():
    left = energy_to_come([Bursts()], 512)
    assert list(left) == list(BANDS)
    slow, _, fast = left.values()
    assert slow[0] == fast[0] == 1
    assert slow == sorted(slow, reverse=True)
    assert slow[200 // HOP] > 0.95
    assert slow[400 // HOP] < 0.05
    assert fast[50 // HOP] > 0.95
    assert fast[150 // HOP] < 0.05
