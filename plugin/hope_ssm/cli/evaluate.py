"""``hope evaluate RUN``: the metrics of a trained model, also under changed options of its data."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hope_ssm.reporting.machine import quieten_lightning
from hope_ssm.workbench.evaluation import SPLITS, evaluate


def run(arguments: list[str]) -> int:
    """Print the metrics, and write them to a file if one is named."""
    parser = argparse.ArgumentParser(
        prog="hope evaluate",
        description="Evaluate a trained model. Overrides change the run's configuration: "
        "for example dataset.l_noise=512 decoder.l_tail=512.",
    )
    parser.add_argument("run", help="a run directory, or a checkpoint")
    parser.add_argument("overrides", nargs="*", help="key=value for keys of the run's configuration")
    parser.add_argument("--checkpoint", default="best", help="best (default) or last")
    parser.add_argument("--split", default="test", help=f"one of {', '.join(SPLITS)} (default: test)")
    parser.add_argument("--out", type=Path, help="write the metrics there as JSON")
    parser.add_argument("--trust", action="store_true", help="call the function of its own that the run's data name")
    options = parser.parse_args(arguments)
    quieten_lightning()
    metrics = evaluate(options.run, options.checkpoint, options.split, options.overrides, options.trust)
    print("\n".join(f"{name:<24} {value:.4f}" for name, value in sorted(metrics.items())))
    if options.out is not None:
        options.out.write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return 0
