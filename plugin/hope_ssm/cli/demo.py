"""``hope demo``: the memory experiment, trained here and now."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hope_ssm.checks import check_positive_integer

if TYPE_CHECKING:
    from hope_ssm.figures import memory_experiment


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hope demo",
        description="Train HOPE, S4D and S4 on handwritten digits followed by noise, and classify them from the last "
        "steps of the noise alone.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo"),
        help="where results go, in place of an earlier demo's (default: runs/demo)",
    )
    parser.add_argument("--seeds", type=int, default=1, help="seeds per row (default: 1)")
    parser.add_argument("overrides", nargs="*", help="overrides for every run, e.g. trainer.max_epochs=2")
    return parser


def _train(table: list[memory_experiment.Setting], seeds: list[int], out: Path, overrides: list[str]) -> None:
    """Train all rows and seeds under one progress bar."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from hope_ssm.figures import memory_experiment

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        everything = progress.add_task("all runs", total=len(table) * len(seeds))
        steps = progress.add_task("", total=None)

        def tick(row: memory_experiment.Setting, seed: int) -> Callable[[int, int], None]:
            progress.update(everything, completed=seeds.index(seed) * len(table) + table.index(row))
            progress.reset(steps, description=f"{row.kernel}, seed {seed}: steps", total=None)
            return lambda done, total: progress.update(steps, completed=done, total=total)

        memory_experiment.run(table, seeds, out, overrides, tick)
        progress.update(everything, completed=len(table) * len(seeds))
        progress.remove_task(steps)


def _seeds(number: int) -> str:
    return "one seed" if number == 1 else f"{number} seeds; mean ± sd"


def _conditions(config: dict[str, Any], seeds: int, seconds: float) -> str:
    """Return in one paragraph what was trained, on what."""
    from hope_ssm.reporting.machine import machine

    model = config["model"]
    return (
        f"Handwritten digits (64 steps), {config['dataset']['l_noise']} steps of noise, the class read from the last "
        f"{config['decoder']['l_tail']}; {model['n_layers']} layers, d_model {model['d_model']}, "
        f"{model['layer']['d_state']} real states, all parameters at learning rate {config['optimizer']['lr']:g}, "
        f"{config['trainer']['max_epochs']} epochs, {_seeds(seeds)}; test accuracy of the best validation "
        f"epoch. {seconds:.0f} s on {machine()}."
    )


def run(arguments: list[str]) -> int:
    """Train all rows and seeds, print the table, save table, numbers and picture."""
    options = _parser().parse_args(arguments)
    check_positive_integer("--seeds", options.seeds)
    import matplotlib  # noqa: F401 what is absent is said before anything is trained
    import sklearn  # noqa: F401

    from hope_ssm.figures import memory_experiment, memory_picture
    from hope_ssm.reporting.machine import quieten_lightning
    from hope_ssm.workbench.configuration import compose

    quieten_lightning()
    config = compose([*memory_experiment.COMMON, *options.overrides])
    table = memory_experiment.settings()
    options.out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    _train(table, list(range(options.seeds)), options.out, options.overrides)
    head = _conditions(config, options.seeds, time.perf_counter() - start)

    text = f"{head}\n\n{memory_experiment.markdown(table)}"
    (options.out / "table.md").write_text(text, encoding="utf-8")
    (options.out / "results.json").write_text(
        json.dumps({"conditions": head, "rows": [asdict(row) for row in table]}, indent=1), encoding="utf-8"
    )
    print(f"\n{text}\nTable and numbers: {options.out}/table.md, results.json")
    picture = options.out / "memory.png"
    memory_picture.draw(table, config["dataset"]["l_noise"] - config["decoder"]["l_tail"], picture)
    print(f"Picture: {picture}, and as .pdf and .svg")
    return 0
