"""``hope report DIR``: a sweep as one table, over seeds, with curves, and against a baseline."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from hope_ssm.workbench.reports import report


def run(arguments: list[str]) -> int:
    """Print the table; write it as Markdown, LaTeX and CSV, and the curves as PNG, PDF and SVG."""
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
    parser.add_argument(
        "--columns",
        metavar="NAMES",
        help="columns of the table, separated by commas, e.g. accuracy,val/accuracy,parameters; 'all' prints those too "
        "that have no room",
    )
    options = parser.parse_args(arguments)
    out = options.out or options.directory / "report"
    width = shutil.get_terminal_size().columns
    text = report.write(options.directory, out, options.metric, options.baseline, options.columns, width)
    print(text)
    return 0
