"""``hope inspect RUN …``: what every layer of a trained model remembers, of several models in one picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hope_ssm.analysis.inspection import LayerView


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hope inspect",
        description="Hankel singular values, ε-ranks, impulse responses, transfer functions, memory and sampling "
        "periods of every layer, of any kernel. The table has medians over the systems of a layer. With several runs "
        "the layers at the same place are drawn into one picture.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run directory, or a checkpoint of hope train or of "
                        "state-spaces/s4")  # fmt: skip
    parser.add_argument("--checkpoint", default="best", help="best (default) or last")
    parser.add_argument("--length", type=int, default=1024, help="samples of the impulse response (default: 1024)")
    parser.add_argument(
        "--out", type=Path, help="where the pages go (default: RUN-inspection; of several runs: inspection)"
    )
    return parser


def _layers(run: str, checkpoint: str, length: int) -> dict[str, LayerView]:
    from hope_ssm.analysis.inspection import inspect_kernels, kernels
    from hope_ssm.hosts import checkpoints
    from hope_ssm.workbench.evaluation import load

    theirs = checkpoints.read(run)
    found = kernels(load(run, checkpoint)) if theirs is None else checkpoints.kernels(theirs)
    return inspect_kernels(found, length)


def run(arguments: list[str]) -> int:
    """Print a table and write pictures, an HTML page and a JSON file."""
    options = _parser().parse_args(arguments)

    from hope_ssm.analysis.overlay import write_overlay
    from hope_ssm.analysis.pages import table, write_pages

    names = list(dict.fromkeys(options.runs))
    models = {name: _layers(name, options.checkpoint, options.length) for name in names}
    if len(names) == 1:
        out = options.out or Path(f"{names[0].rstrip('/').removesuffix('.ckpt')}-inspection")
        write_pages(models[names[0]], out, f"Inspection of {names[0]}")
        rows = table(models[names[0]])
    else:
        out = options.out or Path("inspection")
        rows = write_overlay(models, out)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    print(f"\n{out / 'index.html'}")
    return 0
