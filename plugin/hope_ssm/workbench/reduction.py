"""A trained run cut down to fewer states: a new run directory with the kernel ``reduced``."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hope_ssm.analysis.inspection import kernels
from hope_ssm.kernels.reduced import Reduction, reduce_kernel, reduced_options
from hope_ssm.reporting.timing import step_seconds
from hope_ssm.workbench.checkpoint_io import WholeCheckpointIO
from hope_ssm.workbench.evaluation import checkpoint_path, evaluate, load
from hope_ssm.workbench.resuming import read_checkpoint
from hope_ssm.workbench.run_directory import BEST, RESULTS, RUN, RunDirectory, write_json

REPORT = "reduction.json"


@dataclass(frozen=True)
class ReducedRun:
    """The new run; per layer what became of its systems; metrics and microseconds per step of the model, before, after.

    The times are None for a model without a recurrent mode.
    """

    path: Path
    layers: dict[str, Reduction]
    metrics: tuple[dict[str, float], dict[str, float]]
    microseconds: tuple[float, ...] | None


def step_microseconds(features: int, *models: Any, repeats: int = 200) -> tuple[float, ...]:
    """Return the median time of a step of each model or kernel, batch 1, in turns, on one and the same machine."""
    states = [model.default_state(1) for model in models]
    times = step_seconds([model.step for model in models], torch.randn(1, features), states, repeats, repeats // 10)
    return tuple(1e6 * statistics.median(taken) for taken in times)


def reduce_run(
    run: str | os.PathLike,
    out: str | os.PathLike,
    tolerance: float | None = None,
    states: int | None = None,
    checkpoint: str = "best",
    split: str = "test",
    trust: bool = False,
) -> ReducedRun:
    """Reduce every kernel of a trained model by balanced truncation and write the result as a run of its own.

    The new directory has the configuration with ``model.layer.mode=reduced``, ``checkpoints/best.ckpt``, metrics,
    and ``reduction.json`` with the order, certificate and measured H∞ error of every system.

    Args:
        run: a run directory, or a checkpoint of hope train.
        out: the new run directory.
        tolerance: see ``hope_ssm.kernels.reduced.reduce_kernel``; the same for all layers.
        states: see ``hope_ssm.kernels.reduced.reduce_kernel``; the same for all layers.
        checkpoint: ``"best"`` or ``"last"``.
        split: ``"test"`` or ``"val"``, for the metrics before and after.
        trust: call the function of its own that the run names as ``dataset._target_``.

    Raises:
        FileExistsError: ``out`` holds a run.
        NotImplementedError: a kernel without a recurrent mode.
    """
    path, new = checkpoint_path(run, checkpoint), RunDirectory(Path(out))
    _check_new(new)
    saved, task = read_checkpoint(path, "RUN"), load(path)
    before = evaluate(path, split=split, trust=trust)
    config = saved["hyper_parameters"]["config"]
    found = kernels(task)
    made = {name: reduce_kernel(kernel, tolerance, states) for name, kernel in found.items()}
    modes = max(kernel.n for kernel, _ in made.values()) // 2
    kernel = type(next(iter(found.values())))
    config = {
        **config,
        "model": {**config["model"], "layer": reduced_options(config["model"]["layer"], kernel, 2 * modes)},
    }

    weights = {key: value for key, value in saved["state_dict"].items() if ".kernel." not in key}
    for name, (reduced, _) in made.items():
        weights |= {f"{name}.kernel.{key}": value for key, value in reduced.padded(modes).items()}
    with new.alone():
        _check_new(new)
        new.begin(config, reduced_from=str(path))
        known = {**saved["hyper_parameters"], "config": config}
        kept: dict[str, Any] = {
            key: saved[key] for key in ("epoch", "global_step", "pytorch-lightning_version") if key in saved
        }
        content = {**kept, "state_dict": weights, "hyper_parameters": known, "optimizer_states": [], "loops": {}}
        WholeCheckpointIO().save_checkpoint(content, new.path / BEST)
        metrics = before, evaluate(new.path, split=split, trust=trust)
        recurrent = not any(task.get_submodule(name).bidirectional for name in found) and not any(
            block.obstacle for block in task.model.layers
        )
        times = step_microseconds(task.model.d_model, task.model, load(new.path).model) if recurrent else None
        layers = {name: reduction for name, (_, reduction) in made.items()}
        done = ReducedRun(new.path, layers, metrics, times)
        write_json(new.path / RESULTS, metrics[1])
        write_json(new.path / REPORT, report(done.layers, metrics, times))
        new.end("finished")
        return done


def _check_new(run: RunDirectory) -> None:
    if (run.path / RUN).is_file():
        raise FileExistsError(f"out must be a new run directory; {str(run.path)!r} holds a run. Name another.")


def report(
    layers: Mapping[str, Reduction],
    metrics: tuple[Mapping[str, float], Mapping[str, float]] | None,
    microseconds: tuple[float, ...] | None,
) -> dict[str, Any]:
    """Return what became of every system, and metrics and times before and after, for a JSON file."""
    names = ("before", "after")
    found: dict[str, Any] = {
        "layers": {
            name: {
                "states": layer.states, "orders": layer.orders.tolist(),
                "largest_singular_value": layer.largest.tolist(), "certificate": layer.certificate.tolist(),
                "h_infinity_error": layer.measured.tolist(),
            }
            for name, layer in layers.items()
        }
    }  # fmt: skip
    if metrics is not None:
        found["metrics"] = dict(zip(names, metrics, strict=True))
    if microseconds is not None:
        found["step_microseconds"] = dict(zip(names, microseconds, strict=True))
    return found
