"""The benchmark refuses what is wrong, counts memory rightly, and its command writes what it says."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

import hope_ssm.benchmark.run
from hope_ssm.benchmark import contenders, measure, report, targets
from hope_ssm.benchmark.contenders import Sizes
from hope_ssm.cli import main
from installed import backend

SMALL = Sizes(features=5, states=6, length=33, batch=2)
OPTIONS = ["--features", "4", "--d-state", "4", "--length", "16", "--batch", "2", "--repetitions", "3"]
ALWAYS = [
    name if name != "hope-triton" else pytest.param(name, marks=backend("triton").marks)
    for name in contenders.CONTENDERS
    if name != "hope-keops" and not name.startswith(("host-", "training-"))
]


@pytest.fixture(autouse=True)
def no_host(monkeypatch, tmp_path):
    monkeypatch.delenv("STATE_SPACES_HOME", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ALWAYS)
def test_contenders_are_right(name, dtype):
    contender = contenders.make(name, dataclasses.replace(SMALL, dtype=dtype))
    found = measure.error(contender)
    if name.startswith("step"):
        assert found is None, "a training step has no reference"
    else:
        assert found <= (1e-4 if dtype == "float32" else 1e-9)
    for call in measure.calls(contender).values():
        call()


def test_a_wrong_contender_is_not_timed(monkeypatch):
    def wrong(sizes):
        right = contenders.make("hope-blocked", sizes)
        return dataclasses.replace(right, forward=lambda: 1.02 * right.forward())

    def nothing(sizes):
        right = contenders.make("hope-blocked", sizes)
        return dataclasses.replace(right, forward=lambda: right.forward() * torch.nan)

    monkeypatch.setitem(contenders.CONTENDERS, "wrong", wrong)
    monkeypatch.setitem(contenders.CONTENDERS, "nothing", nothing)
    rows = hope_ssm.benchmark.run.compare(["hope-blocked", "wrong", "nothing"], SMALL, 3, 1.0, lambda _: None)
    assert [bool(row.seconds) for row in rows] == [True, False, False]
    assert rows[1].absent == "not timed: its error 2.0e-02 is above 1e-02"
    assert "wrong not timed: its error" in report.table(rows, "hope-blocked")


def test_absent_contenders_say_why():
    row = hope_ssm.benchmark.run.compare(["host-s4-naive"], SMALL, 3, 1.0, lambda _: None)[0]
    assert row.absent == "not available: STATE_SPACES_HOME is not set to a checkout of state-spaces/s4"


def test_memory_is_that_of_the_tensors_alive_at_once():
    def call():
        first = torch.zeros(1000, 1000)  # 4 MB, gone before the third
        second = first + 1
        del first
        return second + 1

    assert 8e6 <= measure.peak_memory(call, torch.device("cpu")) <= 8.1e6


def test_everyone_takes_turns():
    order = []
    everything = {(name, "forward"): lambda name=name: order.append(name) for name in "ab"}
    times = measure.in_turn(everything, torch.device("cpu"), 4, 1.0)
    assert order == list("ab") * 5
    assert {len(seconds) for seconds in times.values()} == {4}
    assert len(measure.in_turn(everything, torch.device("cpu"), 9, 0.0)["a", "forward"]) == measure.FEWEST


def test_exponents():
    assert report._exponent({2: 3 * 2**1.5, 4: 3 * 4**1.5, 16: 3 * 16**1.5}) == pytest.approx(1.5)


@pytest.mark.slow
def test_command(tmp_path, capsys):
    names = "hope-krylov,algorithm-1,host-s4-naive,step-hope"
    assert main.main(["bench", *OPTIONS, "--contenders", names, "--lengths", "8,16", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "| hope-krylov | " in said
    assert "host-s4-naive not available" in said
    assert "| hope-krylov | L^" in said
    numbers = json.loads((tmp_path / "results.json").read_text())
    assert [row["name"] for row in numbers["rows"]] == names.split(",")
    assert set(numbers["sweeps"]["L"]) == {"8", "16"}
    assert (tmp_path / "table.md").read_text().strip() in said
    assert (tmp_path / "speed.png").stat().st_size > 1000


def measured(name, seconds, memory=1, error=1.0):
    return measure.Measurement(name, error=error, memory=memory, seconds={"step": [seconds] * 3})


def test_targets_are_held_reached_or_missed():
    """Three to six times as fast, a quarter of the memory, half the error; a step that is too slow, one row absent."""
    usual = [
        *(measured(f"convolution{plain}", seconds) for plain, seconds in (("", 1.0), ("-plain", 6.5))),
        *(measured(f"layer-hope{p}", s, m, e) for p, s, m, e in (("", 1.0, 1, 1.0), ("-plain", 3.5, 4, 2.0))),
        *(measured(f"step-hope{plain}", seconds) for plain, seconds in (("", 1.0), ("-plain", 1.5))),
    ]
    demo = [measured("step-hope", 1.0), measure.Measurement("step-hope-plain", absent="not available: it is gone")]
    training = [measured("training-hope", 3.0), measured("training-hope-plain", 4.0)]
    long = [measured("layer-hope", 1.0, int(3e9))]
    found = {"usual": usual, "demo": demo, "long": long, "training": training}
    text, missed = targets.table(found)
    states = [line.split("|")[-2].strip() for line in text.splitlines()[2:]]
    absent = "not measured: step-hope-plain is absent"
    no_host = "not measured: host-layer-diag is absent"
    assert states == ["reached", "held", no_host, "held", "missed", "reached", absent, "held", "missed"]
    assert [what.split(",")[0] for what in missed] == [
        "training step", "training step at the demo's sizes", "peak memory of the layer"
    ]  # fmt: skip


@pytest.mark.parametrize("floor", [0, 1e9])
def test_targets_from_the_command_line(floor, tmp_path, monkeypatch, capsys):
    """Measured here and now at small sizes; the status says whether every floor is held."""
    monkeypatch.setattr(contenders, "TRAINING", (*contenders.TRAINING, "trainer.limit_train_batches=2"))
    monkeypatch.setattr(targets, "RUNS", {run: (SMALL, names) for run, (_, names) in targets.RUNS.items()})
    small = [dataclasses.replace(target, floor=1e9 - floor if target.most else floor) for target in targets.TARGETS]
    monkeypatch.setattr(targets, "TARGETS", small)
    status = main.main(["bench", "--targets", "--repetitions", "3", "--out", str(tmp_path)])
    assert status == (0 if floor == 0 else 1)
    said = capsys.readouterr().out
    assert ("Below their floor: convolution" in said) == (status == 1)
    assert "| step-hope-plain | " in (tmp_path / "targets.md").read_text()
    assert json.loads((tmp_path / "targets.json").read_text())[0]["sizes"]["length"] == SMALL.length


def test_a_full_gpu_is_no_end(monkeypatch):
    def full(sizes):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    monkeypatch.setitem(contenders.CONTENDERS, "full", full)
    rows = hope_ssm.benchmark.run.compare(["full", "copy"], SMALL, 3, 1.0, lambda _: None)
    assert rows[0].absent.startswith("not available: CUDA out of memory")
    assert rows[1].seconds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--contenders", "hope-krilov"], "a contender must be one of"),
        (["--length", "0"], "--length must be a whole number of at least 1; got 0."),
        (["--dtype", "float16"], "--dtype must be one of 'float32', 'float64'; got 'float16'."),
        (["--seconds", "-1"], "--seconds must be a finite number above 0; got -1.0."),
    ],
)
def test_bad_options(arguments, message, capsys):
    assert main.main(["bench", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_what_does_not_fit_into_memory_is_not_begun():
    huge = dataclasses.replace(SMALL, features=1 << 20, length=1 << 20)
    (row,) = hope_ssm.benchmark.run.compare(["algorithm-1"], huge, 3, 1.0, lambda _: None)
    assert "needs about" in row.absent
    assert "GB are free" in row.absent
    assert not row.seconds
