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
    """The new run; per layer what became of its systems; metrics, sizes and times of the model before and after."""

    path: Path
    layers: dict[str, Reduction]
    metrics: tuple[dict[str, float], dict[str, float]]
    sizes: dict[str, tuple[float, ...]]


def parameters(*models: Any) -> dict[str, tuple[float, ...]]:
    """Return the number of parameters of each model."""
    return {"parameters": tuple(sum(p.numel() for p in model.parameters()) for model in models)}


def sizes(features: int, *models: Any) -> dict[str, tuple[float, ...]]:
    """Return the bytes of the state of one sequence, and the microseconds of a step, of each model or kernel.

    Args:
        features: d_model, the inputs of a step.
        *models: with a recurrent mode.
    """
    states = tuple(_bytes(model.default_state(1)) for model in models)
    return {"state_bytes": states, "step_microseconds": step_microseconds(features, *models)}


def _bytes(state: Any) -> int:
    parts = state if isinstance(state, (list, tuple)) else [state]
    return sum(
        part.numel() * part.element_size() if isinstance(part, torch.Tensor) else _bytes(part)
        for part in parts
        if part is not None
    )


def step_microseconds(features: int, *models: Any, repeats: int = 200) -> tuple[float, ...]:
    """Return the median time of a step of each model or kernel, batch 1, in turns, on one and the same machine."""
    states = [model.default_state(1) for model in models]
    times = step_seconds([model.step for model in models], torch.randn(1, features), states, repeats, repeats // 10)
    return tuple(1e6 * statistics.median(taken) for taken in times)


def reduce_run(
    run: str | os.PathLike,
    out: str | os.PathLike,
    tolerance: float | None = None,
    d_state: int | None = None,
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
        d_state: see ``hope_ssm.kernels.reduced.reduce_kernel``; the same for all layers.
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
    made = {name: reduce_kernel(kernel, tolerance, d_state) for name, kernel in found.items()}
    n = max(kernel.n for kernel, _ in made.values())
    kernel = type(next(iter(found.values())))
    config = {
        **config,
        "model": {**config["model"], "layer": reduced_options(config["model"]["layer"], kernel, n)},
    }

    weights = {key: value for key, value in saved["state_dict"].items() if ".kernel." not in key}
    for name, (reduced, _) in made.items():
        weights |= {f"{name}.kernel.{key}": value for key, value in reduced.padded(n).items()}
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
        small = load(new.path)
        measured = parameters(task, small)
        if recurrent:
            measured |= sizes(task.model.d_model, task.model, small.model)
        layers = {name: reduction for name, (_, reduction) in made.items()}
        done = ReducedRun(new.path, layers, metrics, measured)
        write_json(new.path / RESULTS, metrics[1])
        write_json(new.path / REPORT, report(done.layers, metrics, measured))
        new.end("finished")
        return done


def _check_new(run: RunDirectory) -> None:
    if (run.path / RUN).is_file():
        raise FileExistsError(f"out must be a new run directory; {str(run.path)!r} holds a run. Name another.")


def report(
    layers: Mapping[str, Reduction],
    metrics: tuple[Mapping[str, float], Mapping[str, float]] | None,
    measured: Mapping[str, tuple[float, ...]],
) -> dict[str, Any]:
    """Return what became of every system, and metrics, sizes and times before and after, for a JSON file."""
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
    return found | {key: dict(zip(names, values, strict=True)) for key, values in measured.items()}
