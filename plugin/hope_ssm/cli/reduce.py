"""``hope reduce RUN``: a trained model with fewer states, and what that costs."""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

from hope_ssm.checks import check_positive_integer, check_positive_number
from hope_ssm.workbench.evaluation import SPLITS

HEADINGS = ("layer", "states", "orders", "their sum", "certificate / σ₁", "H∞ error / σ₁")


def run(arguments: list[str]) -> int:
    """Write the reduced run and print orders, certificates, errors, metrics and step times."""
    parser = argparse.ArgumentParser(
        prog="hope reduce",
        description="Cut the kernels of a trained model down by balanced truncation. The certificate, twice the sum of "
        "the Hankel singular values left out, bounds the H∞ error of every system; the measured error is beside it.",
    )
    parser.add_argument("run", help="a run directory, or a checkpoint")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--tolerance", type=float, help="certificate allowed, over the largest singular value of a system")
    how.add_argument("--states", type=int, help="states of every system")
    parser.add_argument("--out", type=Path, help="the new run directory (default: RUN-reduced)")
    parser.add_argument("--checkpoint", default="best", help="best (default) or last")
    parser.add_argument("--split", default="test", help=f"one of {', '.join(SPLITS)} (default: test)")
    options = parser.parse_args(arguments)
    if options.tolerance is not None:
        check_positive_number("--tolerance", options.tolerance)
    else:
        check_positive_integer("--states", options.states)
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")

    from hope_ssm.workbench.reduction import reduce_run

    out = options.out or Path(f"{options.run.rstrip('/').removesuffix('.ckpt')}-reduced")
    done = reduce_run(options.run, out, options.tolerance, options.states, options.checkpoint, options.split)
    rows = [HEADINGS]
    for name, layer in done.layers.items():
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
    print("(orders: least … median … most of the layer's features; the last two columns: the worst of them)\n")
    before, after = done.metrics
    for name in sorted(before):
        print(f"{name:<24} {before[name]:.4f} → {after[name]:.4f}")
    if done.microseconds is not None:
        print("{:<24} {:.0f} → {:.0f}".format("step, µs", *done.microseconds))
    print(f"{'run':<24} {done.path}")
    return 0
