"""``hope inspect RUN``: what every layer of a trained model remembers."""

from __future__ import annotations

import argparse
from pathlib import Path


def run(arguments: list[str]) -> int:
    """Print a table and write pictures, an HTML page and a JSON file."""
    parser = argparse.ArgumentParser(
        prog="hope inspect",
        description="Hankel singular values, ε-ranks, impulse responses, transfer functions, memory and sampling "
        "periods of every layer, of any kernel. The table has medians over the systems of a layer.",
    )
    parser.add_argument("run", help="a run directory, or a checkpoint of hope train or of state-spaces/s4")
    parser.add_argument("--checkpoint", default="best", help="best (default) or last")
    parser.add_argument("--length", type=int, default=1024, help="samples of the impulse response (default: 1024)")
    parser.add_argument("--out", type=Path, help="where the pages go (default: RUN-inspection)")
    options = parser.parse_args(arguments)

    from hope_ssm.analysis.inspection import inspect_kernels, kernels
    from hope_ssm.analysis.pages import table, write_pages
    from hope_ssm.hosts import checkpoints
    from hope_ssm.workbench.evaluation import load

    theirs = checkpoints.read(options.run)
    found = kernels(load(options.run, options.checkpoint)) if theirs is None else checkpoints.kernels(theirs)
    layers = inspect_kernels(found, options.length)
    out = options.out or Path(f"{options.run.rstrip('/').removesuffix('.ckpt')}-inspection")
    write_pages(layers, out, f"Inspection of {options.run}")
    rows = table(layers)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    print(f"\n{out / 'index.html'}")
    return 0
