"""``hope modes``: convolution, chunks and steps of every recurrent kernel side by side."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

from hope_ssm import registry
from hope_ssm.checks import check_positive_integer
from hope_ssm.reporting.tables import markdown_table
from hope_ssm.reporting.timing import step_seconds

HEADINGS = (
    "kernel",
    "state bytes",
    "chunks, float64",
    "steps, float64",
    "chunks, float32",
    "steps, float32",
    "step µs",
    "compiled µs",
)


def run(arguments: list[str]) -> int:
    """Print the largest difference from the convolution, relative to its maximum, and the time of a step."""
    parser = argparse.ArgumentParser(
        prog="hope modes",
        description="For every recurrent kernel: the outputs of random chunks and of single steps against the "
        "convolution (largest difference over the largest output, white noise), and the time of one step "
        "(median ± half the range between the quartiles).",
    )
    parser.add_argument("--features", type=int, default=256, help="H (default: 256)")
    parser.add_argument("--d-state", "--d_state", type=int, default=64, help="n, real states per feature (default: 64)")
    parser.add_argument("--length", type=int, default=1000, help="samples compared (default: 1000)")
    parser.add_argument("--repeats", type=int, default=200, help="steps timed (default: 200)")
    parser.add_argument("--compile", action="store_true", help="also time the step under torch.compile")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    for name in ("features", "d_state", "length", "repeats"):
        check_positive_integer(f"--{name.replace('_', '-')}", getattr(options, name))

    import torch

    rows: list[tuple[str, ...]] = [HEADINGS]
    for entry in registry.kernels().values():
        if not (entry := entry.described()).recurrent:
            continue
        torch.manual_seed(options.seed)
        kernel = entry(d_model=options.features, d_state=options.d_state, verbose=False)
        timed = [_microseconds(kernel, options.repeats, compiled) for compiled in (False, True)[: 1 + options.compile]]
        state = kernel.default_state()
        rows.append(
            (
                entry.name,
                f"{state.numel() * state.element_size():,}",
                *(f"{error:.0e}" for error in _errors(_small(entry, options, torch.float64), options.length)),
                *(f"{error:.0e}" for error in _errors(_small(entry, options, torch.float32), options.length)),
                *(timed if options.compile else [*timed, "–"]),
            )
        )
    print(markdown_table(rows))
    print(
        f"\nH = {options.features}, n = {options.d_state}, batch 1, L = {options.length} (differences: H = 8), "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads."
    )
    if options.compile:
        print(_compare_recurrences(options.features, options.d_state, options.repeats))
    return 0


def _small(entry: registry.Entry, options: argparse.Namespace, dtype: Any) -> Any:
    import torch

    torch.manual_seed(options.seed)
    return entry(d_model=8, d_state=options.d_state, verbose=False).to(dtype)


def _errors(kernel: Any, length: int) -> tuple[float, float]:
    """Largest difference from the convolution, over its maximum: of chunks of random lengths, and of steps."""
    import torch

    parameter = next(kernel.parameters())
    with torch.no_grad():
        u = torch.randn(1, kernel.d_model, length, dtype=parameter.dtype)
        whole = _convolve(kernel, u)
        state = stepped = kernel.default_state(1)
        chunks, steps, start = [], [], 0
        while start < length:
            chunk = u[..., start : start + int(torch.randint(1, 1 + max(1, length // 4), ()))]
            start += chunk.shape[-1]
            chunks.append(_convolve(kernel, chunk) + kernel(L=chunk.shape[-1], state=state)[1][:, 0])
            state = kernel.forward_state(chunk, state)
        for t in range(length):
            y, stepped = kernel.step(u[..., t], stepped)
            steps.append(y[:, 0])
        scale = whole.abs().max()
        return float((torch.cat(chunks, -1) - whole).abs().max() / scale), float(
            (torch.stack(steps, -1) - whole).abs().max() / scale
        )


def _convolve(kernel: Any, u: Any) -> Any:
    import torch

    n = 2 * u.shape[-1]
    k = kernel(L=u.shape[-1])[0][0]
    return torch.fft.irfft(torch.fft.rfft(u, n=n) * torch.fft.rfft(k, n=n), n=n)[..., : u.shape[-1]]


def _microseconds(kernel: Any, repeats: int, compiled: bool) -> str:
    """Time of one step of batch 1, median ± half the range between the quartiles."""
    import torch

    step: Callable = torch.compile(kernel.step) if compiled else kernel.step
    state, u = kernel.default_state(1), torch.randn(1, kernel.d_model)
    (times,) = step_seconds([step], u, [state], repeats)
    return _spread(times)


def _spread(times: list[float]) -> str:
    lower, median, upper = statistics.quantiles([1e6 * value for value in times], n=4)
    return f"{median:.0f} ± {(upper - lower) / 2:.0f}"


def _compare_recurrences(features: int, states: int, repeats: int) -> str:
    """HOPE's recurrence and the fastest there is of S4D, both compiled, in turns, at equal state bytes in float32.

    The one of S4D is n/2 rotations of two real numbers with the coefficients ready; the one of HOPE begins with its
    parameters.
    """
    import torch

    from hope_ssm.ops import realization

    h, dt = torch.randn(1, features, states) / states, torch.linspace(0.01, 0.3, features)
    f, g, b, d, c, e = 0.5 * torch.rand(6, features, states // 2)

    def hope(u: Any, state: Any) -> tuple[Any, Any]:
        return realization.step(h, dt, u, state)

    def s4d(u: Any, state: Any) -> tuple[Any, Any]:
        x, y = state.chunk(2, dim=-1)
        u = u.unsqueeze(-1)
        x, y = f * x - g * y + b * u, g * x + f * y + d * u
        return (c * x - e * y).sum(-1), torch.cat([x, y], dim=-1)

    u, width = torch.randn(1, features), 2 * (states // 2)
    start = [torch.zeros(1, features, states), torch.zeros(1, features, width)]
    ours, theirs = step_seconds([torch.compile(hope), torch.compile(s4d)], u, start, repeats)
    passes = 0
    while 4**passes < states:
        passes += 1
    ratio = statistics.median(ours) / statistics.median(theirs)
    return (
        f"\nThe recurrences alone, compiled, in turns: hope {_spread(ours)} µs ({(3 * passes + 6) * states} "
        f"multiply-adds per feature), s4d in real numbers with its coefficients ready {_spread(theirs)} µs "
        f"({4 * width}): {ratio:.2f} times."
    )
