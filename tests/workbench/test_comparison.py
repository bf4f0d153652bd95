"""hope report --baseline: pairs, a t interval by hand, verdicts, what is left out; of runs written, not trained."""

from __future__ import annotations

import csv
import json
import math

import pytest
import yaml

from hope_ssm.workbench.reports import comparison, report
from hope_ssm.workbench.reports.comparison import Difference, difference, wanted
from hope_ssm.workbench.reports.rows import rows
from hope_ssm.workbench.run_directory import RunDirectory

HOPE = {"mode": "hope", "init": "gaussian", "dt_max": 0.3, "d_state": 64}
S4D = {"mode": "s4d", "init": "diag-lin", "dt_max": 0.1, "d_state": 64}
BY_HAND = [(0.52, 0.50), (0.64, 0.60), (0.53, 0.50), (0.75, 0.70), (0.51, 0.50)]  # differences .02 .04 .03 .05 .01


def written(path, layer, seed, typed, *, state="finished", lr=0.01, versions="1", **results):
    """A run directory as hope train leaves it."""
    path.mkdir(parents=True)
    train = {"seed": seed, "monitor": "val/accuracy", "mode": "max"}
    config = {"train": train, "model": {"layer": layer}, "optimizer": {"lr": lr}, "dataset": {}, "trainer": {}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    overrides = [*typed, f"train.seed={seed}"]
    info = {"state": state, "started": path.name, "overrides": overrides, "kernel_parameters": len(layer["mode"])}
    (path / "run.json").write_text(
        json.dumps({**info, "versions": {"torch": versions}, "parameters": 9, "machine": {}})
    )
    if state == "finished":
        (path / "results.json").write_text(json.dumps({f"test/{name}": value for name, value in results.items()}))
    return RunDirectory(path)


@pytest.fixture
def sweep(tmp_path):
    """Accuracies of BY_HAND, hope against s4d, and losses that say the opposite."""
    for seed, (ours, theirs) in enumerate(BY_HAND):
        written(tmp_path / f"a{seed}", HOPE, seed, ["kernel=hope"], accuracy=ours, loss=1.0 + seed)
        written(tmp_path / f"b{seed}", S4D, seed, ["kernel=s4d"], accuracy=theirs, loss=0.5 + 0.9 * seed)
    return tmp_path


def test_the_interval_by_hand():
    found = difference(BY_HAND)
    half = 2.776445105 * math.sqrt(0.001 / 4 / 5)  # t of 4 degrees of freedom, at 97.5 %
    assert found.n == 5
    assert found.mean == pytest.approx(0.03)
    assert found.interval == pytest.approx((0.03 - half, 0.03 + half), rel=1e-8)
    t2 = 0.03**2 / (0.001 / 4 / 5)  # the distribution of 4 degrees of freedom in closed form
    x = math.sqrt(t2 / (1 + t2 / 4))
    assert found.p == pytest.approx(2 * (0.5 - 3 / 8 * x * (1 - x**2 / 12)), rel=1e-6)


@pytest.mark.parametrize(
    ("pairs", "mode", "verdict"),
    [
        (BY_HAND, "max", "better"),
        (BY_HAND, "min", "worse"),
        (BY_HAND, None, "higher"),
        ([(y, x) for x, y in BY_HAND], "max", "worse"),
        ([(y, x) for x, y in BY_HAND], "min", "better"),
        ([(1, 0), (0, 1), (1, 0.5)], "max", "no difference shown"),
        ([(1.0, 0.5)], "max", "one pair"),
        ([(0.52, 0.50), (0.53, 0.51), (0.58, 0.56)], "max", "no interval: all differences are equal"),
        ([(0.5, 0.5), (0.75, 0.75)], "max", "no difference shown"),
    ],
)
def test_verdicts(pairs, mode, verdict):
    assert difference(pairs).verdict(mode) == verdict


def test_the_direction_of_a_metric():
    config = {"train": {"monitor": "val/perplexity", "mode": "min"}}
    names = ("test/perplexity", "test/accuracy", "test/accuracy@5", "test/loss", "test/mse", "test/ours")
    assert [wanted(name, config) for name in names] == ["min", "max", "max", "min", "min", None]


@pytest.mark.parametrize("baseline", ["s4d", "S4D", "kernel=s4d"])
def test_a_sweep_against_a_kernel(sweep, baseline):
    printed = report.write(sweep, sweep / "report", baseline=baseline)
    text = (sweep / "report" / "report.md").read_text()
    assert "| HOPE | S4D | accuracy % | 5 | +3.00 | +1.04 to +4.96 | 0.013 | better |" in text
    assert "HOPE accuracy % +3.00 +1.04 to +4.96 0.013 better" in " ".join(printed.split())
    assert "(no room here for: pairs, against; the files have all)" in printed
    assert r"HOPE & S4D & accuracy \% & $5$ & $+3.00$ & $+$1.04 to $+$4.96 & $0.013$ & better \\" in (
        sweep / "report" / "comparison.tex"
    ).read_text(encoding="utf-8")
    loss = next(line for line in text.splitlines() if "| loss | 5 |" in line)
    assert loss.endswith("| worse |")
    assert "d_state 64 against 64; kernel parameters 4 against 3" in text
    assert "model.layer.mode (hope against s4d)" in text
    assert "model.layer.dt_max (0.3 against 0.1)" in text
    with (sweep / "report" / "comparison.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["verdict"] for line in lines if line["metric"] == "test/accuracy"] == ["better"]


def test_without_a_baseline_nothing_is_compared(sweep):
    assert "Against" not in report.write(sweep, sweep / "report")
    assert not (sweep / "report" / "comparison.csv").exists()


def test_pairs_are_of_one_seed_and_of_one_value_of_every_other_swept_key(tmp_path):
    """Learning rates move both kernels by far more than the kernels differ: mixed, nothing would be shown."""
    for k, lr in enumerate((0.01, 0.02)):
        for seed in range(3):
            base = 0.3 + 0.3 * k + 0.1 * seed
            typed = [f"optimizer.lr={lr}"]
            own = {"kernel=hope": (HOPE, base + 0.02 + 0.001 * seed), "kernel=s4d": (S4D, base)}
            for name, (layer, accuracy) in own.items():
                place = tmp_path / f"{lr}{name}{seed}"
                written(place, layer, seed, [name, *typed], lr=lr, accuracy=accuracy)
    pairs, alone = comparison.compare(rows([RunDirectory(p) for p in sorted(tmp_path.iterdir())]), "s4d")
    assert not alone
    labels = [(pair.row.label, pair.partner.label) for pair in pairs]
    assert labels == [(f"HOPE, lr {lr}", f"S4D, lr {lr}") for lr in (0.01, 0.02)]
    for pair in pairs:
        found = pair.differences(["test/accuracy"])["test/accuracy"]
        assert found.mean == pytest.approx(0.021)
        assert found.verdict("max") == "better"
        assert "optimizer.lr" not in "".join(pair.notes())


def test_what_is_left_out_is_said(sweep):
    written(sweep / "c", HOPE, 7, ["kernel=hope"], accuracy=0.9)
    written(sweep / "d", S4D, 7, ["kernel=s4d"], state="running")
    written(sweep / "e", HOPE, 0, ["kernel=hope", "optimizer.lr=0.5"], lr=0.5, accuracy=0.1, versions="2")
    text = report.write(sweep, sweep / "report", baseline="s4d", width=120)
    assert "without a partner: seeds [7] of HOPE" in text
    assert f"Left out, not finished: {sweep / 'd'} (" in text
    assert "no run of the baseline is the same in the other swept keys: HOPE, lr 0.5." in text
    assert "accuracy % 5 +3.00" in " ".join(text.split())


def test_other_differences_and_other_software_are_named(tmp_path):
    """Single runs under one command line, of which one was made with another learning rate in a file."""
    written(tmp_path / "a", HOPE, 0, ["kernel=hope"], accuracy=0.5)
    written(tmp_path / "b", S4D, 0, ["kernel=s4d"], lr=0.3, versions="2", accuracy=0.5)
    text = report.write(tmp_path, tmp_path / "report", baseline="s4d")
    assert "optimizer.lr (0.01 against 0.3)" in text
    assert "runs of different versions of the software" in text
    assert "accuracy % +0.00 – – one pair" in " ".join(text.split())


def test_runs_without_a_command_line_are_told_apart_by_their_kernels(tmp_path):
    written(tmp_path / "a", HOPE, 0, [], accuracy=0.5)
    written(tmp_path / "b", S4D, 0, [], accuracy=0.4)
    written(tmp_path / "c", {**HOPE, "d_state": 32}, 0, [], accuracy=0.4)
    table = rows([RunDirectory(tmp_path / name) for name in "abc"])
    assert {row.label for row in table} == {
        f"{kernel}, d_state {n}" for kernel, n in (("HOPE", 64), ("S4D", 64), ("HOPE", 32))
    }
    pairs, alone = comparison.compare(table, "s4d")
    assert [(pair.row.d_state, pair.partner.d_state) for pair in pairs] == [("64", "64")]
    assert [row.d_state for row in alone] == ["32"]


def test_a_variant_against_the_runs_without_it(tmp_path):
    written(tmp_path / "a", HOPE, 0, [], accuracy=0.5)
    written(tmp_path / "b", {**HOPE, "truncation": "none"}, 0, ["+ablation=wrapped"], accuracy=0.4)
    report.write(tmp_path, tmp_path / "report", baseline="default")
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| ablation wrapped | default | accuracy % | 1 | -10.00 |" in text
    assert "model.layer.truncation (none against None)" in text


@pytest.mark.parametrize(
    ("baseline", "message"),
    [
        ("s4", r"must be part of a label: kernel=hope, kernel=s4d; got 's4'. Did you mean 's4d'"),
        ("kernal=s4d", r"got 'kernal=s4d'. Did you mean 'kernel=s4d'"),
        ("kernel=s4d optimizer.lr=1", r"must be part of a label"),
    ],
)
def test_an_unknown_baseline_is_refused_with_the_nearest(sweep, baseline, message):
    with pytest.raises(ValueError, match=message):
        report.write(sweep, sweep / "report", baseline=baseline)
    assert not (sweep / "report").exists()


def test_a_baseline_that_names_two_keys_or_everything(tmp_path):
    written(tmp_path / "a", HOPE, 0, ["optimizer.lr=0.1", "model.dropout=0.1"], lr=0.1, accuracy=0.5)
    written(tmp_path / "b", S4D, 0, ["optimizer.lr=0.2", "model.dropout=0.2"], lr=0.2, accuracy=0.5)
    with pytest.raises(ValueError, match=r"must name one key; 0.1 is optimizer.lr=0.1, model.dropout=0.1"):
        report.write(tmp_path, tmp_path / "report", baseline="0.1")
    one = rows([RunDirectory(tmp_path / "a")])
    with pytest.raises(ValueError, match=r"must leave something to compare; all rows have all runs"):
        comparison.compare(one, "all runs")


def test_a_seed_that_repeats_counts_once(sweep):
    written(sweep / "f", HOPE, 0, ["kernel=hope"], accuracy=0.52, loss=1.0)
    (row,) = (row for row in rows([RunDirectory(p) for p in sorted(sweep.iterdir())]) if row.label == "HOPE")
    assert len(row.runs) == 6
    assert list(row.by_seed("test/accuracy")) == [0, 1, 2, 3, 4]
    assert row.by_seed("test/accuracy")[0] == pytest.approx(0.52)


def test_a_difference_is_what_it_says():
    assert difference([(1.0, 0.5)]) == Difference(0.5, 1, None, None)
