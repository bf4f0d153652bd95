"""``hope runs DIR``: what was trained below a directory."""

from __future__ import annotations

import argparse

from hope_ssm.workbench.run_directory import RunDirectory
from hope_ssm.workbench.survey import left_out, survey

HEADINGS = ("started", "state", "epochs", "kernel", "data set", "seed", "metric", "directory")


def row(run: RunDirectory) -> tuple[str, ...]:
    """Return a run's line of the table."""
    config, info = run.config, run.info
    layer = config.get("model", {}).get("layer", {})
    results = run.results
    monitor = config["train"]["monitor"]
    name = "test/" + monitor.split("/")[-1]
    name = name if name in results else monitor
    metric = f"{name} {results[name]:.4f}" if name in results else "–"
    return (
        info.get("started", "–")[:19],
        run.state,
        str(len(run.epochs)),
        str(layer.get("mode") or layer.get("kernel") or "–"),
        str(config["dataset"].get("_name_", "–")),
        str(config["train"]["seed"]),
        metric,
        str(run.path),
    )


def run(arguments: list[str]) -> int:
    """Print a line for every run."""
    parser = argparse.ArgumentParser(prog="hope runs", description="List the runs of hope train below a directory.")
    parser.add_argument("directory", nargs="?", default=".", help="where to look (default: here)")
    sound, damaged = survey(parser.parse_args(arguments).directory)
    found = [HEADINGS, *map(row, sound)]
    widths = [max(map(len, column)) for column in zip(*found, strict=True)]
    for cells in found:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())
    print(left_out(damaged), end="")
    return 0
