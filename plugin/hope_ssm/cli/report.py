"""``hope report DIR``: a sweep as one table, over seeds, with curves, and against a baseline."""

from __future__ import annotations

import argparse
from pathlib import Path

from hope_ssm.workbench.reports import report


def run(arguments: list[str]) -> int:
    """Print the table; write report.md, report.csv, runs.csv and report.png."""
    parser = argparse.ArgumentParser(
        prog="hope report",
        description="Mean and standard deviation over seeds of every configuration below a directory.",
    )
    parser.add_argument("directory", type=Path, help="a sweep, or any directory with runs below it")
    parser.add_argument("--out", type=Path, help="where the report goes (default: DIR/report)")
    parser.add_argument("--metric", help="the metric of the picture (default: the one that the runs monitored)")
    parser.add_argument(
        "--baseline",
        metavar="LABEL",
        help="compare with this, paired by seed: a kernel's name, or key=value of what was swept",
    )
    options = parser.parse_args(arguments)
    out = options.out or options.directory / "report"
    text = report.write(options.directory, out, options.metric, options.baseline)
    print(text)
    return 0
