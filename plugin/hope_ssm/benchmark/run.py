"""The benchmark: contenders made, checked and timed at one size, or at several."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch

from hope_ssm.benchmark.contenders import DTYPES, Sizes, make
from hope_ssm.benchmark.measure import TOLERANCES, Measurement, calls, error, in_turn, peak_memory


def compare(
    names: Iterable[str], sizes: Sizes, repetitions: int, seconds: float, say: Callable[[str], None] = print
) -> list[Measurement]:
    """Check all contenders at ``sizes`` and time those that are right, in turn.

    Args:
        names: of contenders.
        sizes: what is computed.
        repetitions: at most, of every call of a contender.
        seconds: at most, for every call of a contender.
        say: called with a line about what is being done.
    """
    device, rows = torch.device(sizes.device), []
    everything: dict[tuple[str, str], Callable[[], object]] = {}
    tolerance = TOLERANCES[DTYPES[sizes.dtype]]
    for name in names:
        say(f"checking {name}")
        row = Measurement(name)
        rows.append(row)
        try:
            contender = make(name, sizes)
            row.error = error(contender)
            if row.error is not None and not row.error <= tolerance:
                row.absent = f"not timed: its error {row.error:.1e} is above {tolerance:.0e}"
                continue
            timed = calls(contender)
            row.memory = peak_memory(list(timed.values())[-1], device)
        except (ImportError, ValueError, MemoryError, torch.cuda.OutOfMemoryError) as absence:
            row.absent = f"not available: {' '.join(str(absence).split())}"
            continue
        everything |= {(name, what): call for what, call in timed.items()}
    say(f"timing {len(everything)} calls in turn")
    times = in_turn(everything, device, repetitions, seconds)
    for row in rows:
        row.seconds = {what: value for (name, what), value in times.items() if name == row.name}
    return rows


def _at(sizes: Sizes, axis: str, value: Any) -> Sizes:
    return replace(sizes, **{axis: value})


def sweep(
    names: Iterable[str], sizes: Sizes, axis: str, values: Iterable[int], repetitions: int, seconds: float
) -> dict[int, list[Measurement]]:
    """Return ``compare`` at every value of ``axis`` (``"length"`` or ``"states"``)."""
    return {value: compare(names, _at(sizes, axis, value), repetitions, seconds, lambda _: None) for value in values}
