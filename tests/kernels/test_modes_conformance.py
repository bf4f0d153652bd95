"""Convolution, steps and chunks are one function: random configurations of every kernel with a recurrent mode.

A configuration is drawn from one seed, which is the test's name; ``--every-seed`` draws many more, with whole step
loops. float64 is measured relative to the largest output of a feature, and also to the largest that memory adds;
float32 on the impulse response for t ≥ 1, relative to its own maximum, where the direct term does not hide it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch

from kernel_cases import ENTRIES, recurrent_kernels
from recurrence import convolve, in_steps

ANY_ORDER = {"hope", "rtf", "s4d-real"}  # the others have pairs of states
QUICK, THOROUGH = 12, 300
STEPS = 10_000  # n·L up to which the quick tests step through everything


def pytest_generate_tests(metafunc):
    if "seed_" in metafunc.fixturenames:
        count = THOROUGH if metafunc.config.getoption("--every-seed") else QUICK
        seeds = [pytest.param(seed, id=f"seed{seed}", marks=pytest.mark.slow if seed else ()) for seed in range(count)]
        metafunc.parametrize("seed_", seeds)


def log_uniform(rng, low, high):
    return math.exp(rng.uniform(math.log(low), math.log(high)))


@dataclass
class Configuration:
    """What a seed draws: a kernel, inputs (B, H, L) and the ends of the chunks."""

    name: str
    seed: int

    def __post_init__(self):
        rng = self.rng = np.random.default_rng(self.seed)
        self.n = round(log_uniform(rng, 1, 256))
        self.length = round(log_uniform(rng, 1, 4096))
        self.d_model = int(rng.choice([1, 2, 4, 6]))
        self.batch = int(rng.integers(1, 4))
        low, high = sorted(log_uniform(rng, 1e-4, 1e2) for _ in range(2))
        divisors = [k for k in range(1, self.d_model + 1) if self.d_model % k == 0]
        options = {
            "d_state": self.n if self.name in ANY_ORDER else 2 * math.ceil(self.n / 2),
            "channels": int(rng.integers(1, 4)),
            "n_ssm": int(rng.choice(divisors)),
            "dt_min": low,
            "dt_max": high,
            "dt_transform": str(rng.choice(["exp", "softplus"])),
        }
        torch.manual_seed(self.seed)
        self.kernel = ENTRIES[self.name].load()(d_model=self.d_model, verbose=False, **options)
        cuts = rng.integers(1, self.length, size=rng.integers(0, 6)) if self.length > 1 else []
        self.cuts = [0, *sorted({int(cut) for cut in cuts}), self.length]
        self.said = f"seed={self.seed} {self.name} L={self.length} B={self.batch} {options} cuts={self.cuts}"

    def chunks(self):
        return list(pairwise(self.cuts))


def in_chunks(kernel, u, chunks, first=0):
    """Outputs in stretches, and the states at their starts and at the end."""
    states, outputs = [kernel.default_state(len(u))], []
    for start, end in chunks:
        outputs.append(convolve(kernel, u[..., start:end], states[-1], first))
        states.append(kernel.forward_state(u[..., start:end], states[-1]))
    return torch.cat(outputs, -1), states


def stretches(configuration, chunks, whole):
    """Where to step: everything, or a few steps from the start of each chunk if that is too long for a quick test."""
    if whole or configuration.n * configuration.length <= STEPS:
        return [(start, end) for start, end in chunks]
    few = max(1, STEPS // (configuration.n * len(chunks)))
    return [(start, min(end, start + few)) for start, end in chunks]


def worst(value, exact, scale):
    """Largest error of a system relative to its largest ``scale``."""
    largest = scale.abs().amax(-1).clamp(min=torch.finfo(torch.float64).tiny)
    return ((value - exact).abs().amax(-1) / largest).max().item()


@recurrent_kernels
def test_float64(name, seed_, request):
    """From rest, on white noise: convolution = chunks = steps to 1e-11; states after chunks and after steps to 1e-9."""
    case = Configuration(name, seed_)
    kernel = case.kernel.double()
    u = torch.tensor(case.rng.standard_normal((case.batch, case.d_model, case.length)))
    with torch.inference_mode():
        whole = convolve(kernel, u)
        chunked, states = in_chunks(kernel, u, case.chunks())
        assert worst(chunked, whole, whole) < 1e-11, case.said
        memory = convolve(kernel, u, first=1)
        if case.length > 1:
            assert worst(in_chunks(kernel, u, case.chunks(), first=1)[0], memory, memory) < 1e-11, case.said
        for (start, end), state in zip(
            stretches(case, case.chunks(), request.config.getoption("--every-seed")), states, strict=False
        ):
            steps, after = in_steps(kernel, u[..., start:end], state)
            assert worst(steps, whole[..., start:end], whole) < 1e-11, case.said
            expected = kernel.forward_state(u[..., start:end], state)
            assert worst(after, expected, expected) < 1e-9, case.said  # worst of 300: 7e-11, where inputs gain 4 Δt


@recurrent_kernels
def test_float32(name, seed_, request):
    """The impulse response for t ≥ 1, by kernel, state responses and steps, against float64 and its own maximum."""
    case = Configuration(name, seed_)
    case.length = max(2, case.length)
    case.cuts[-1] = case.length
    u = torch.zeros(1, case.d_model, case.length)
    u[..., 0] = 1
    kernel, state = case.kernel.float(), case.kernel.default_state(1)
    runs = []  # (first sample, what, outputs (C, H, …))
    with torch.inference_mode():
        runs.append((0, "kernel", kernel(L=case.length)[0]))
        parts = stretches(case, case.chunks(), request.config.getoption("--every-seed"))
        for (start, end), (_, stop) in zip(case.chunks(), parts, strict=True):
            k, response = kernel(L=end - start, state=state)
            runs.append((start, "chunk", response[0] + (k if start == 0 else 0)))
            runs.append((start, "steps", in_steps(kernel, u[..., start:stop], state)[0][0]))
            state = kernel.forward_state(u[..., start:end], state)
        exact = kernel.double()(L=case.length)[0]
    for start, what, y in runs:
        assert y.dtype == torch.float32
        skip = int(start == 0)
        expected = exact[..., start : start + y.shape[-1]]
        if y.shape[-1] > skip:
            error = worst(y[..., skip:], expected[..., skip:], exact[..., 1:])
            assert error < 1e-4, f"{error:.1e} {what} from {start}: {case.said}"
