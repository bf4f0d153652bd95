"""Combinations of two parametrized values, of which the fast tests keep a few."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest


def diagonal(first: Sequence[Any], second: Sequence[Any]) -> list[Any]:
    """All pairs, slow but for a diagonal on which every value of both stands; tuples are values of several names."""
    return [
        pytest.param(
            *(one if isinstance(one, tuple) else (one,)),
            *(other if isinstance(other, tuple) else (other,)),
            marks=[] if i % len(second) == j % len(first) else pytest.mark.slow,
        )
        for i, one in enumerate(first)
        for j, other in enumerate(second)
    ]
