"""The tasks of the protocol of docs/results.md: experiments, rows, and the settings from which each row chooses."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace

TABLE = (0, 1, 2, 3, 4)  # seeds

RATES = {"published": "", "global": " ".join(f"++model.layer.lr.{key}=null" for key in ("dt", "A", "B", "C"))}
# One range of Δt for everybody, that of S4 and S4D in their papers. HOPE's own follows from the sequences' length.
PERIODS = {"own": "", "common": "model.layer.dt_min=0.001 model.layer.dt_max=0.1"}
RATES_OF_RTF = {"published": "++model.layer.lr.A=0.001 ++model.layer.lr.C=0.001", "global": ""}
STARTS = {"zeros": "", "xavier": "model.layer.start=xavier"}


def grid(*axes: dict[str, str]) -> dict[str, str]:
    """Return {settings: overrides} of all combinations."""
    return {
        ", ".join(choice): " ".join(filter(None, (axis[name] for axis, name in zip(axes, choice, strict=True))))
        for choice in itertools.product(*axes)
    }


@dataclass(frozen=True)
class Task:
    """One table.

    Attributes:
        experiment: overrides of all rows.
        rows: {row: (overrides, {settings: overrides} to choose from)}; the first is what the others are compared with.
        metric: of validation and test.
        tests: samples of the test set where the metric is an accuracy, for its sampling error.
        choosing: the seeds of the trials from which settings are chosen.
        trials_of: the task whose trials these are, of fewer epochs; None: this one's own.
    """

    experiment: str
    rows: dict[str, tuple[str, dict[str, str]]]
    metric: str = "accuracy"
    tests: int | None = None
    choosing: tuple[int, ...] = (100, 101)
    trials_of: str | None = None


BOTH = grid(RATES, PERIODS)


def kernels(length: int) -> dict[str, tuple[str, dict[str, str]]]:
    """Return {kernel: (overrides, settings)} for sequences of ``length`` steps.

    The common range of Δt is what S4's and S4D's own already is, so the second half of their trials has HOPE's own,
    n/(16 L) to 2 n/L with n = 64.
    """
    hopes = f"model.layer.dt_min={4 / length!r} model.layer.dt_max={128 / length!r}"
    other = grid(RATES, {"own": "", "hope's": hopes})
    return {
        "hope": ("kernel=hope", BOTH),
        "s4d": ("kernel=s4d", other),
        "s4": ("kernel=s4", other),
        "s4-hippo": ("kernel=s4-hippo", other),
        "lru": ("kernel=lru", grid(RATES)),
        "s4d-real": ("kernel=s4d-real", other),
        "dss": ("kernel=dss", other),
        "stable": ("kernel=stable", other),
        "rtf": ("kernel=rtf", grid(RATES_OF_RTF, STARTS)),
    }


DIGITS = kernels(256)
FREE = {
    "conv, whole length": ("kernel=conv", grid({"global": ""})),
    "conv, 64 taps": ("kernel=conv model.layer.l_max=64", grid({"global": ""})),
}
# HOPE at S4D's number of parameters: 3n + 1 of a feature, and 4n + 1 where HOPE has 2n + 1, in both directions.
LARGE, TWO_WAYS = ({f"hope, d_state {n}": (f"kernel=hope model.layer.d_state={n}", BOTH)} for n in (192, 128))
# Bands: frequencies have a learning rate of their own; they begin side by side from 0, or half of them anywhere.
RATES_OF_BANDS = {name: f"{text} ++model.layer.lr.frequency=null" if text else "" for name, text in RATES.items()}
BANDS = {
    "hope-bands": (
        "kernel=hope-bands",
        grid(RATES_OF_BANDS, {"from 0": "", "half scattered": "model.layer.scattered_share=0.5"}),
    )
}
# Twice the bands of half as many stages each: why the error on the delay is what it is (docs/bands.md).
MORE_BANDS = {"hope-bands, 16 bands": (f"{BANDS['hope-bands'][0]} model.layer.bands=16", BANDS["hope-bands"][1])}
# What a linear readout finds in the outputs of layers that stay as they began.
PROBES = {
    f"probe, {name}": (f"{({**DIGITS, **FREE})[name][0]} train.frozen=[encoder,model]", grid({"untrained": ""}))
    for name in ("hope", "s4d", "conv, 64 taps")
}
# Other layers of the family; with the filter the initial frequencies may be α times as high.
FILTER, MEMORY = "+model.layer.frequency_filter.exponent=0", "+model.layer.input_memory.size=4"
SCALES = {f"α = {scale}": f"+model.layer.imag_scale={scale}" for scale in (1, 3, 5)}
HEADS = {f"{heads} heads": f"model.layer.heads={heads} model.layer.d_state={128 // heads}" for heads in (4, 16)}
LAYERS = {
    "s4d with filter": (f"kernel=s4d {FILTER}", SCALES),
    "hope with filter": (f"kernel=hope {FILTER}", BOTH),
    "s4d with memory": (f"kernel=s4d {MEMORY}", DIGITS["s4d"][1]),
    "hope with memory": (f"kernel=hope {MEMORY}", BOTH),
    "essm": ("model/layer=essm", HEADS),
}
TASKS = {
    "short-tail": Task(
        "experiment=hope/noisy-digits decoder.l_tail=32 trainer.max_epochs=60",
        {**DIGITS, **FREE, **LARGE, **PROBES, **BANDS, **LAYERS},
        tests=359,
    ),
    "mnist": Task(
        "experiment=hope/noisy-mnist-small decoder.l_tail=32 dataset.l_noise=188 model.d_model=16 "
        "trainer.max_epochs=40",
        {**kernels(384), **FREE, **LARGE, **BANDS},
        tests=1000,
        choosing=(100,),
    ),
    "listops": Task(
        "experiment=hope/lra-listops-small dataset.size=12500 dataset.val_split=0.08 dataset.test_split=0.16 "
        "trainer.max_epochs=10",
        {**kernels(128), "conv, whole length": FREE["conv, whole length"], **LARGE, **BANDS},
        tests=2000,
        choosing=(100,),
    ),
    "pathfinder": Task(
        "experiment=hope/lra-pathfinder-small model.layer.bidirectional=true dataset.size=24000 model.d_model=16 "
        "trainer.max_epochs=16",
        {**kernels(256), "conv, whole length": FREE["conv, whole length"], **TWO_WAYS, **BANDS},
        tests=2400,
        choosing=(100,),
    ),
    "delay": Task(
        "experiment=hope/delay-small trainer.max_epochs=40",
        {**kernels(512), "conv, whole length": FREE["conv, whole length"], **LARGE, **BANDS, **MORE_BANDS},
        metric="loss",
    ),
    "tones": Task(
        "experiment=hope/tones trainer.max_epochs=40",
        {**{name: kernels(512)[name] for name in ("hope", "s4d", "s4", "lru")}, **LARGE, **BANDS},
        tests=1000,
    ),
}


def twice(name: str) -> Task:
    """Return a task with twice its epochs, at the settings chosen there: where the rows that still moved go."""
    task = TASKS[name]
    experiment = re.sub(r"(?<=trainer\.max_epochs=)\d+", lambda epochs: str(2 * int(epochs[0])), task.experiment)
    return replace(task, experiment=experiment, trials_of=name)


TASKS |= {f"{name}-long": twice(name) for name in ("listops", "pathfinder")}
