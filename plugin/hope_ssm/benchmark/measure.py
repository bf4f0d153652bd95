"""Check, then time in turn, and count the memory.

Contenders take turns within one process, so that other work of the machine affects all of them. On a GPU a call is
timed by events after a write larger than its cache.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hope_ssm.benchmark.contenders import Contender
from hope_ssm.reporting.timing import seconds

TOLERANCES = {torch.float32: 1e-2, torch.float64: 1e-8}  # beyond, a contender is wrong and not timed
FEWEST = 3  # repetitions, however long one takes
_CACHE_BYTES = 1 << 28


@dataclass
class Measurement:
    """What is known of a contender: seconds of every call, bytes, and the error relative to the maximum at t ≥ 1."""

    name: str
    error: float | None = None
    memory: int | None = None
    seconds: dict[str, list[float]] = field(default_factory=dict)
    absent: str | None = None

    @property
    def total(self) -> str:
        """The longest call there is: forward + backward, or a whole training step."""
        return "forward+backward" if "forward+backward" in self.seconds else "step"

    def median(self, what: str) -> float:
        """Seconds of a call, the median."""
        return statistics.median(self.seconds[what])

    def quartiles(self, what: str) -> tuple[float, float]:
        """Seconds of a call, the lower and the upper quartile."""
        lower, _, upper = statistics.quantiles(self.seconds[what], n=4, method="inclusive")
        return lower, upper


def error(contender: Contender) -> float | None:
    """max_{t≥1} |k_t - exact| / max_{t≥1} |exact| over the features and steps that the reference has."""
    if contender.reference is None:
        return None
    exact = contender.reference()
    with torch.no_grad():
        value = contender.forward().flatten(0, -2)[: exact.shape[0], : exact.shape[1]].double()
    start = min(1, exact.shape[-1] - 1)
    exact, value = exact[:, start:], value[:, start:]
    return float(((value - exact).abs().amax(-1) / exact.abs().amax(-1)).max())


def calls(contender: Contender) -> dict[str, Callable[[], object]]:
    """What is timed of a contender, by name."""
    if not contender.inputs:
        return {"step": contender.forward}
    inputs = [tensor for tensor in contender.inputs if tensor.requires_grad]
    with torch.no_grad():
        output = contender.forward()
    weight = torch.randn_like(output)

    def forward() -> Tensor:
        with torch.no_grad():
            return contender.forward()

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(contender.forward(), inputs, weight, allow_unused=True)

    return {"forward": forward, "forward+backward": both}


def peak_memory(call: Callable[[], object], device: torch.device) -> int:
    """The most bytes of tensors that are alive at once during a call, above those alive before.

    On a CPU it is the sum of what torch's allocator gave and took back, from torch's profiler. It does not include what
    libraries allocate inside a single operation (FFT plans, workspaces of matrix products).
    """
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    only_cpu = [torch.profiler.ProfilerActivity.CPU]
    with _silence(), torch.profiler.profile(activities=only_cpu, profile_memory=True) as profile:
        kept = call()
    del kept
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


@contextmanager
def _silence() -> Iterator[None]:
    """Keep what the profiler's own library writes to the standard error, start and stop, off the screen."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def in_turn(
    everything: Mapping[tuple[str, str], Callable[[], object]], device: torch.device, repetitions: int, seconds: float
) -> dict[tuple[str, str], list[float]]:
    """Time every call once per round, after one that does not count, until it has its repetitions or its seconds."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in everything}
    for call in everything.values():
        call()
    for turn in range(repetitions):
        for key, call in everything.items():
            if turn < FEWEST or sum(times[key]) < seconds:
                times[key].append(_timed(call, device))
    return times


def _timed(call: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        return seconds(call)
    torch.empty(_CACHE_BYTES, dtype=torch.int8, device=device).zero_()
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    call()
    ended.record()
    ended.synchronize()
    return began.elapsed_time(ended) / 1e3
