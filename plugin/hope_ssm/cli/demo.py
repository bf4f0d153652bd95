"""``hope demo``: the memory experiment, trained here and now."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from hope_ssm.checks import check_positive_integer


def run(arguments: list[str]) -> int:
    """Train all rows and seeds under one progress bar, print the table, save table, numbers and picture."""
    parser = argparse.ArgumentParser(
        prog="hope demo",
        description="Train HOPE and S4D on handwritten digits followed by noise, classified from the noise alone.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo"),
        help="where results go, in place of an earlier demo's (default: runs/demo)",
    )
    parser.add_argument("--seeds", type=int, default=3, help="seeds per row (default: 3)")
    parser.add_argument("overrides", nargs="*", help="overrides for every run, e.g. trainer.max_epochs=2")
    options = parser.parse_args(arguments)
    check_positive_integer("--seeds", options.seeds)
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError as error:
        raise ImportError(
            f"the demo needs rich, scikit-learn and matplotlib; {error.name} is absent: "
            "pip install 'hope-ssm[workbench]'."
        ) from None
    from hope_ssm.figures import memory_experiment, memory_picture
    from hope_ssm.reporting.machine import machine, quieten_lightning
    from hope_ssm.workbench.configuration import compose

    quieten_lightning()
    config = compose([*memory_experiment.COMMON, *options.overrides])
    table = memory_experiment.rows()
    seeds = list(range(options.seeds))
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        everything = progress.add_task("all runs", total=len(table) * len(seeds))
        steps = progress.add_task("", total=1)

        def tick(row: memory_experiment.Row, seed: int) -> Callable[[], None]:
            progress.update(everything, completed=seeds.index(seed) * len(table) + table.index(row))
            progress.reset(steps, description=f"{row.kernel}, Δt {row.setting}, seed {seed}: steps", total=None)
            return lambda: progress.advance(steps)

        memory_experiment.run(table, seeds, options.out, options.overrides, tick)
        progress.update(everything, completed=len(table) * len(seeds))
        progress.remove_task(steps)
    seconds = time.perf_counter() - start

    l_noise, epochs = config["dataset"]["l_noise"], config["trainer"]["max_epochs"]
    head = (
        f"Handwritten digits (64 steps) followed by {l_noise} steps of noise, mean-pooled over the noise; "
        f"{config['model']['n_layers']} layers, d_model {config['model']['d_model']}, "
        f"{config['model']['layer']['d_state']} real states, {epochs} epochs, {options.seeds} seeds; "
        f"mean ± sd; test accuracy of the best validation epoch. {seconds:.0f} s on {machine()}."
    )
    text = f"{head}\n\n{memory_experiment.markdown(table)}"
    (options.out / "table.md").write_text(text, encoding="utf-8")
    (options.out / "results.json").write_text(
        json.dumps({"conditions": head, "rows": [asdict(row) for row in table]}, indent=1), encoding="utf-8"
    )
    print(f"\n{text}\nTable and numbers: {options.out}/table.md, results.json")
    picture = options.out / "memory.png"
    memory_picture.draw(table, 64, 64 + l_noise, picture)
    print(f"Picture: {picture}")
    return 0
