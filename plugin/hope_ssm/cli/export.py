"""``hope export RUN``: a trained model as files that run without this package."""

from __future__ import annotations

import argparse
from pathlib import Path

from hope_ssm.reporting.machine import quieten_lightning


def run(arguments: list[str]) -> int:
    """Write step.onnx and whole.pt2, and print where they are and how far they are from the model."""
    parser = argparse.ArgumentParser(
        prog="hope export",
        description="Write a trained model as step.onnx (one sample, with the state in and out, in real float32) and "
        "whole.pt2 (whole sequences, for torch.export.load). Each is compared with the model before it is written.",
    )
    parser.add_argument("run", help="a run directory, or a checkpoint of hope train")
    parser.add_argument("--checkpoint", default="best", help="best (default) or last")
    parser.add_argument("--length", type=int, default=1024, help="longest sequence of whole.pt2 (default: 1024 steps)")
    parser.add_argument("--out", type=Path, help="where the files go (default: RUN-export)")
    options = parser.parse_args(arguments)
    quieten_lightning()

    from hope_ssm.workbench.exporting import export

    done = export(options.run, options.out, options.checkpoint, options.length)
    for name, path in done.files.items():
        print(f"{path}  differs from the model by {done.differences[name]:.1e} of its largest output")
    for name, reason in done.missing.items():
        print(f"There is no {name}: {reason}")
    return 0
