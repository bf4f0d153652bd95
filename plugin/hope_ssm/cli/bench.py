"""``hope bench``: every way to a kernel, a convolution, a layer and a training step, checked and timed side by side."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from hope_ssm.checks import check_choice, check_positive_integer, check_positive_number


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",") if part]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hope bench",
        description="Check every contender against a float64 reference, then time all that are right in turn, in one "
        "process. With STATE_SPACES_HOME set, the host's own kernels take part.",
    )
    add = parser.add_argument
    add("--features", type=int, default=256, help="H (default: 256)")
    add("--d-state", "--d_state", type=int, default=64, help="n, real states per feature (default: 64)")
    add("--length", type=int, default=4096, help="L (default: 4096)")
    add(
        "--batch",
        type=int,
        default=16,
        help="B, the batch size of convolutions, layers and steps (default: 16)",
    )
    add("--device", default="cpu", help="cpu or cuda (default: cpu)")
    add("--dtype", default="float32", help="float32 or float64 (default: float32)")
    add("--contenders", default="", help="names, separated by commas; 'list' prints them (default: all but trainings)")
    add("--repetitions", type=int, default=20, help="largest number of repetitions of a call (default: 20)")
    add(
        "--seconds",
        type=float,
        default=20.0,
        help="most seconds for a call, after 3 repetitions (default: 20)",
    )
    add("--keep-memory", action="store_true", help="freed memory stays with the process, as in hope train")
    add("--lengths", type=_numbers, default=[], help="lengths for the picture, e.g. 256,1024,4096")
    add("--d-states", type=_numbers, default=[], help="numbers of states n for the picture, e.g. 16,64,256")
    add(
        "--targets",
        action="store_true",
        help="measure instead what the convolution saves over its plain lines, at fixed sizes on a CPU; status 1 if a "
        "floor is missed",
    )
    add("--out", type=Path, default=Path("runs/bench"), help="where results go (default: runs/bench)")
    return parser


def run(arguments: list[str]) -> int:
    """Print the table, save it with all numbers, and with ``--lengths`` or ``--d-states`` a picture."""
    options = _parser().parse_args(arguments)
    import torch

    from hope_ssm.benchmark import contenders, report
    from hope_ssm.benchmark.run import compare, sweep
    from hope_ssm.ops import backends
    from hope_ssm.reporting.machine import machine
    from hope_ssm.workbench.freed_memory import keep_freed_memory

    if options.contenders == "list":
        print("\n".join(contenders.CONTENDERS))
        return 0
    names = [name for name in options.contenders.split(",") if name] or list(contenders.USUAL)
    for name in names:
        check_choice("a contender", name, contenders.CONTENDERS)
    for name in ("features", "d_state", "length", "batch", "repetitions"):
        check_positive_integer(f"--{name.replace('_', '-')}", getattr(options, name))
    check_positive_number("--seconds", options.seconds)
    check_choice("--dtype", options.dtype, contenders.DTYPES)
    if options.keep_memory and not keep_freed_memory():
        raise ValueError("--keep-memory needs glibc, and none of its variables set (MALLOC_…, GLIBC_TUNABLES).")
    if options.targets:
        return _targets(options)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device must be a device that torch sees here; got {options.device!r}. Use --device cpu.")
    sizes = contenders.Sizes(
        options.features, options.d_state, options.length, options.batch, options.device, options.dtype
    )

    def say(message: str) -> None:
        print(f"{message} …", flush=True)

    baseline = f"hope-{backends.automatic(torch.device(options.device))}"
    rows = compare(names, sizes, options.repetitions, options.seconds, say)
    conditions = (
        f"H = {sizes.features}, n = {sizes.states}, L = {sizes.length}, batch {sizes.batch}, {sizes.dtype}; median "
        f"(quartiles) of up to {options.repetitions} repetitions, in turn; {machine(options.device)}."
    )
    parts = [conditions, report.table(rows, baseline)]
    sweeps = {}
    for symbol, axis, values in (("L", "length", options.lengths), ("n", "states", options.d_states)):
        if values:
            say(f"timing at {symbol} = {', '.join(map(str, values))}")
            sweeps[symbol] = sweep(names, sizes, axis, values, options.repetitions, options.seconds)
            parts.append(report.growth(sweeps[symbol], symbol))
    text = "\n\n".join(parts)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "table.md").write_text(text + "\n", encoding="utf-8")
    numbers = {"conditions": conditions, "sizes": asdict(sizes), "rows": [asdict(row) for row in rows]}
    numbers["sweeps"] = {
        symbol: {size: [asdict(row) for row in rows] for size, rows in found.items()}
        for symbol, found in sweeps.items()
    }
    (options.out / "results.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    print(f"\n{text}\n\nTable and numbers: {options.out}/table.md, results.json")
    if sweeps:
        report.draw(sweeps, conditions, options.out / "speed.png")
        print(f"Picture: {options.out}/speed.png, .pdf, .svg")
    return 0


def _targets(options: argparse.Namespace) -> int:
    """Print and save the table of targets; 1 if one misses its floor."""
    from hope_ssm.benchmark import report, targets
    from hope_ssm.benchmark.run import compare
    from hope_ssm.reporting.machine import machine

    found = {
        run: compare(names, sizes, options.repetitions, options.seconds, lambda message: print(f"{message} …"))
        for run, (sizes, names) in targets.RUNS.items()
    }
    table, missed = targets.table(found)
    conditions = f"Medians of up to {options.repetitions} repetitions, in turn; {machine()}."
    measured = [
        f"{run}, H = {sizes.features}, L = {sizes.length}, batch {sizes.batch}:\n\n{report.table(found[run], '')}"
        for run, (sizes, _) in targets.RUNS.items()
    ]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "targets.md").write_text("\n\n".join([conditions, table, *measured]) + "\n", encoding="utf-8")
    numbers = [
        {"run": run, "sizes": asdict(sizes), "rows": [asdict(row) for row in found[run]]}
        for run, (sizes, _) in targets.RUNS.items()
    ]
    (options.out / "targets.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    print(f"\n{conditions}\n\n{table}\n\nTable and numbers: {options.out}/targets.md, targets.json")
    if missed:
        print(f"Below their floor: {'; '.join(missed)}.")
    return int(bool(missed))
