"""``hope report DIR``: a sweep as one table, over seeds, with curves."""

from __future__ import annotations

import argparse
from pathlib import Path

from hope_ssm.workbench import report


def run(arguments: list[str]) -> int:
    """Print the table; write report.md, report.csv, runs.csv and report.png."""
    parser = argparse.ArgumentParser(
        prog="hope report",
        description="Mean and standard deviation over seeds of every configuration below a directory.",
    )
    parser.add_argument("directory", type=Path, help="a sweep, or any directory with runs below it")
    parser.add_argument("--out", type=Path, help="where the report goes (default: DIR/report)")
    parser.add_argument("--metric", help="the metric of the picture (default: the one that the runs monitored)")
    options = parser.parse_args(arguments)
    text = report.write(options.directory, options.out or options.directory / "report", options.metric)
    print(text)
    return 0
