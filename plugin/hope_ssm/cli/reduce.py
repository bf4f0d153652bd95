"""``hope reduce RUN``: a trained model with fewer states, and what that costs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hope_ssm.checks import check_positive_integer, check_positive_number
from hope_ssm.reporting.machine import quieten_lightning
from hope_ssm.workbench.evaluation import SPLITS

if TYPE_CHECKING:
    from hope_ssm.kernels.reduced import Reduction

HEADINGS = ("layer", "d_state", "reduced to", "their sum", "certificate / σ₁", "H∞ error / σ₁")


def run(arguments: list[str]) -> int:
    """Write the reduced run and print orders, certificates, errors, metrics and step times."""
    parser = argparse.ArgumentParser(
        prog="hope reduce",
        description="Reduce the kernels of a trained model by balanced truncation. The certificate, twice the sum of "
        "the Hankel singular values left out and what rounding adds, bounds the H∞ error of every system; the measured "
        "error is beside it. What it saves is state, and time of a step: r states need 2r + 1 numbers per feature, "
        "more than HOPE has unless r is below half of its d_state.",
    )
    parser.add_argument("run", help="a run directory, or a checkpoint of hope train or of state-spaces/s4")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--tolerance",
        type=float,
        help="largest allowed certificate, over the largest singular value",
    )
    how.add_argument("--d-state", "--d_state", type=int, help="real states of every system")
    parser.add_argument(
        "--out", type=Path, help="the new run directory, or checkpoint for the host (default: RUN-reduced)"
    )
    parser.add_argument("--checkpoint", default="best", help="best (default) or last")
    parser.add_argument("--split", default="test", help=f"one of {', '.join(SPLITS)} (default: test)")
    parser.add_argument("--trust", action="store_true", help="run the code of its own that the run names")
    options = parser.parse_args(arguments)
    if options.tolerance is not None:
        check_positive_number("--tolerance", options.tolerance)
    else:
        check_positive_integer("--d-state", options.d_state)
    quieten_lightning()

    from hope_ssm.hosts import checkpoints
    from hope_ssm.workbench.reduction import reduce_run

    name = f"{options.run.rstrip('/').removesuffix('.ckpt')}-reduced"
    theirs = checkpoints.read(options.run)
    if theirs is not None:
        out = options.out or Path(f"{name}.ckpt")
        _reduce_checkpoint(theirs, out, options.tolerance, options.d_state, options.trust)
        return 0
    out = options.out or Path(name)
    done = reduce_run(
        options.run, out, options.tolerance, options.d_state, options.checkpoint, options.split, options.trust
    )
    _print(done.layers, done.metrics, done.sizes)
    print(f"{'run':<24} {done.path}")
    return 0


def _reduce_checkpoint(
    checkpoint: dict[str, Any], out: Path, tolerance: float | None, d_state: int | None, trust: bool
) -> None:
    """Reduce one of state-spaces/s4: metrics by the host, where it is; the time of the steps of the kernels alone."""
    from hope_ssm.hosts import checkpoints, reduction
    from hope_ssm.workbench.reduction import REPORT, parameters, report, sizes
    from hope_ssm.workbench.run_directory import write_json

    before = checkpoints.kernels(checkpoint)
    at_first = reduction.evaluate(checkpoint, trust)
    small, after, layers = reduction.reduce_checkpoint(checkpoint, before, out, tolerance, d_state)
    pairs = [(kernel.float().eval(), after[name].float().eval()) for name, kernel in before.items()]
    each = [{**parameters(*pair), **sizes(pair[0].d_model, *pair)} for pair in pairs]
    of_all = {key: tuple(float(sum(pair)) for pair in zip(*(one[key] for one in each), strict=True)) for key in each[0]}
    at_last = reduction.evaluate(small, trust)
    known = None if at_first is None or at_last is None else (at_first, at_last)
    write_json(out.with_name(f"{out.stem}-{REPORT}"), report(layers, known, of_all))
    _print(layers, known, of_all)
    print(f"{'checkpoint':<24} {out}")
    print(f"In the host: the same command line with {' '.join(reduction.overrides(checkpoint, small))}")
    print(f"train.pretrained_model_path={out.resolve()}")
    if known is None:
        print(
            "No metrics: start hope in the environment of state-spaces/s4 with STATE_SPACES_HOME set to its checkout."
        )


def _print(
    layers: dict[str, Reduction],
    metrics: tuple[dict[str, float], dict[str, float]] | None,
    measured: Mapping[str, tuple[float, ...]],
) -> None:
    rows = [HEADINGS]
    for name, layer in layers.items():
        low, middle, high = (int(layer.orders.double().quantile(q)) for q in (0, 0.5, 1))
        rows.append(
            (
                name,
                str(layer.states),
                f"{low} … {middle} … {high}",
                f"{int(layer.orders.sum())} of {layer.states * len(layer.orders)}",
                f"{float((layer.certificate / layer.largest).max()):.2e}",
                f"{float((layer.measured / layer.largest).max()):.2e}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    print("(reduced to: least … median … most of the layer's features; the last two columns: the worst of them)\n")
    at_first, at_last = metrics or ({}, {})
    for name in sorted(at_first):
        print(f"{name:<24} {at_first[name]:.4f} → {at_last[name]:.4f}")
    for key, heading in (
        ("parameters", "parameters"), ("state_bytes", "state, bytes"), ("step_microseconds", "step, µs")
    ):  # fmt: skip
        if key in measured:
            print("{:<24} {:.0f} → {:.0f}".format(heading, *measured[key]))
    if "parameters" in measured and measured["parameters"][1] >= measured["parameters"][0]:
        print("It has no fewer parameters: r states need 2r + 1 numbers per feature. It saves state and steps.")
