"""A trained run cut down to fewer states: a new run directory with the kernel ``reduced``."""

from __future__ import annotations

import inspect
import os
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hope_ssm.kernels.reduced import ReducedKernel, Reduction, reduce_kernel
from hope_ssm.workbench.convolution import FFTConvolution
from hope_ssm.workbench.evaluation import checkpoint_path, evaluate, load
from hope_ssm.workbench.inspection import convolutions
from hope_ssm.workbench.layers import S4Block
from hope_ssm.workbench.resuming import read_checkpoint
from hope_ssm.workbench.run_directory import BEST, RESULTS, RUN, RunDirectory, write_json
from hope_ssm.workbench.task import SequenceTask

REPORT = "reduction.json"


@dataclass(frozen=True)
class ReducedRun:
    """The new run; per layer what became of its systems; metrics and microseconds a step of the model, before, after.

    The times are None for a model without a recurrent mode.
    """

    path: Path
    layers: dict[str, Reduction]
    metrics: tuple[dict[str, float], dict[str, float]]
    microseconds: tuple[float, float] | None


def _options(owner: Any) -> set[str]:
    return {key for key, p in inspect.signature(owner).parameters.items() if p.kind is not p.VAR_KEYWORD}


def reduced_layer(layer: Mapping[str, Any], kernel: type, d_state: int) -> dict[str, Any]:
    """Return a layer's configuration with the kernel ``reduced`` for ``kernel``, without the latter's own options."""
    theirs = _options(kernel) - _options(S4Block) - _options(FFTConvolution) - _options(ReducedKernel)
    kept = {key: value for key, value in layer.items() if key not in theirs | {"kernel", "init", "measure"}}
    keys = {key for ruling in ReducedKernel.rulings.values() for key in ruling.keys}
    for option in ("lr", "wd"):
        if isinstance(kept.get(option), Mapping):
            kept[option] = {key: value for key, value in kept[option].items() if key in keys}
    return {**kept, "mode": "reduced", "d_state": d_state, "n_ssm": None}


def _padded(kernel: ReducedKernel, modes: int) -> dict[str, Tensor]:
    """The parameters with as many modes as another kernel has: the new ones are silent."""
    state = dict(kernel.state_dict())
    for name in ("A_real", "A_imag"):
        state[name] = nn.functional.pad(state[name], (0, modes - state[name].shape[-1]))
    for name in ("B", "C"):
        state[name] = nn.functional.pad(state[name], (0, 0, 0, modes - state[name].shape[-2]))
    return state


@torch.no_grad()
def step_microseconds(*tasks: SequenceTask, repeats: int = 200) -> tuple[float, ...]:
    """Return the median time of a step of each backbone, batch 1, in turns, so that all meet the same machine."""
    times: list[list[float]] = [[] for _ in tasks]
    states = [task.default_state(1) for task in tasks]
    u = torch.randn(1, tasks[0].model.d_model)
    for _ in range(repeats):
        for place, task in enumerate(tasks):
            start = time.perf_counter()
            _, states[place] = task.model.step(u, states[place])
            times[place].append(1e6 * (time.perf_counter() - start))
    return tuple(statistics.median(of_one[repeats // 10 :]) for of_one in times)


def reduce_run(
    run: str | os.PathLike,
    out: str | os.PathLike,
    tolerance: float | None = None,
    states: int | None = None,
    checkpoint: str = "best",
    split: str = "test",
) -> ReducedRun:
    """Reduce every kernel of a trained model by balanced truncation and write the result as a run of its own.

    The new directory has the configuration with ``model.layer.mode=reduced``, ``checkpoints/best.ckpt``, metrics,
    and ``reduction.json`` with the order, certificate and measured H∞ error of every system.

    Args:
        run: a run directory, or a checkpoint of hope train.
        out: the new run directory.
        tolerance, states: see :func:`hope_ssm.kernels.reduced.reduce_kernel`; the same for all layers.
        checkpoint: ``"best"`` or ``"last"``.
        split: ``"test"`` or ``"val"``, for the metrics before and after.

    Raises: FileExistsError: ``out`` holds a run.  NotImplementedError: a kernel without a recurrent mode.
    """
    path, new = checkpoint_path(run, checkpoint), RunDirectory(Path(out))
    if (new.path / RUN).is_file():
        raise FileExistsError(f"out must be a new run directory; {str(new.path)!r} holds a run. Name another.")
    saved, task = read_checkpoint(path, "RUN"), load(path)
    config = saved["hyper_parameters"]["config"]
    found = convolutions(task)
    made = {name: reduce_kernel(module.kernel, tolerance, states) for name, module in found.items()}
    modes = max(kernel.n for kernel, _ in made.values()) // 2
    kernel = type(next(iter(found.values())).kernel)
    config = {
        **config,
        "model": {**config["model"], "layer": reduced_layer(config["model"]["layer"], kernel, 2 * modes)},
    }

    weights = {key: value for key, value in saved["state_dict"].items() if ".kernel." not in key}
    for name, (reduced, _) in made.items():
        weights |= {f"{name}.kernel.{key}": value for key, value in _padded(reduced, modes).items()}
    new.begin(config, reduced_from=str(path))
    (new.path / BEST).parent.mkdir(exist_ok=True)
    known = {**saved["hyper_parameters"], "config": config}
    kept = {key: saved[key] for key in ("epoch", "global_step", "pytorch-lightning_version") if key in saved}
    torch.save(
        {**kept, "state_dict": weights, "hyper_parameters": known, "optimizer_states": [], "loops": {}}, new.path / BEST
    )
    metrics = evaluate(path, split=split), evaluate(new.path, split=split)
    recurrent = not any(module.bidirectional for module in found.values()) and not any(
        block.obstacle for block in task.model.layers
    )
    times = step_microseconds(task, load(new.path)) if recurrent else None
    layers = {name: reduction for name, (_, reduction) in made.items()}
    done = ReducedRun(new.path, layers, metrics, times)
    write_json(new.path / RESULTS, metrics[1])
    write_json(new.path / REPORT, _report(done))
    new.end("finished")
    return done


def _report(done: ReducedRun) -> dict[str, Any]:
    layers = {
        name: {
            "states": layer.states, "orders": layer.orders.tolist(), "largest_singular_value": layer.largest.tolist(),
            "certificate": layer.certificate.tolist(), "h_infinity_error": layer.measured.tolist(),
        }
        for name, layer in done.layers.items()
    }  # fmt: skip
    names = ("before", "after")
    report: dict[str, Any] = {"layers": layers, "metrics": dict(zip(names, done.metrics, strict=True))}
    if done.microseconds is not None:
        report["step_microseconds"] = dict(zip(names, done.microseconds, strict=True))
    return report
