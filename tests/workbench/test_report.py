"""Reading runs back: load, evaluate, runs, report."""

from __future__ import annotations

import csv
import json
import statistics

import pytest
import torch

import hope_ssm
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.evaluation import evaluate
from hope_ssm.workbench.reports import report
from hope_ssm.workbench.run_directory import RunDirectory
from hope_ssm.workbench.training import build, train
from tiny import TINY

QUIET = ["+trainer.enable_progress_bar=false", "train.tensorboard=false"]


def run(directory, *overrides):
    command = ["hope", "train", *TINY, *overrides]
    return train(compose([*TINY, *QUIET, *overrides]), directory, command=command)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two kernels, two seeds."""
    top = tmp_path_factory.mktemp("sweep")
    jobs = [(kernel, seed) for kernel in ("hope", "s4d") for seed in (0, 1)]
    for number, (kernel, seed) in enumerate(jobs):
        run(top / str(number), f"kernel={kernel}", f"train.seed={seed}", "trainer.max_epochs=2")
    return top


@pytest.mark.slow
def test_load_gives_the_best_model_ready_to_predict(sweep):
    model = hope_ssm.load(sweep / "0")
    assert not model.training
    config = RunDirectory(sweep / "0").config
    _, data = build(config)
    x, y = next(iter(data.test_dataloader()))
    with torch.no_grad():
        prediction = model(x)
    assert prediction.shape == (50, 10)
    loss = torch.nn.functional.cross_entropy(prediction, y)
    assert float(loss) == pytest.approx(RunDirectory(sweep / "0").results["test/loss"], rel=1e-5)
    same = hope_ssm.load(sweep / "0" / "checkpoints" / "best.ckpt")
    assert torch.equal(same(x), model(x))
    last = hope_ssm.load(sweep / "0", "last").state_dict()
    saved = torch.load(sweep / "0" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(last[name], saved[name]) for name in saved)


@pytest.mark.slow
def test_evaluate_repeats_the_test_and_takes_other_data(sweep):
    metrics = evaluate(sweep / "0")
    results = RunDirectory(sweep / "0").results
    assert metrics["test/loss"] == pytest.approx(results["test/loss"], rel=1e-6)
    assert metrics["test/accuracy"] == results["test/accuracy"]
    longer = evaluate(sweep / "0", split="val", overrides=["dataset.l_noise=40", "decoder.l_tail=40"])
    assert set(longer) == {"val/loss", "val/accuracy"}
    assert longer["val/loss"] != pytest.approx(results["val/loss"])
    other_backend = evaluate(sweep / "0", overrides=["+model.layer.backend=dense"])
    assert other_backend["test/loss"] == pytest.approx(results["test/loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"overrides": ["dataset.lnoise=3"]}, r"has no key 'dataset.lnoise'.* Did you mean 'l_noise'"),
        ({"overrides": ["modle.x=3"]}, r"has no key 'modle.x'"),
        ({"split": "tset"}, r"split must be one of 'val', 'test'; got 'tset'. Did you mean 'test'"),
        ({"checkpoint": "bset"}, r"checkpoint must be one of 'best', 'last'; got 'bset'. Did you mean 'best'"),
    ],
)
def test_bad_evaluations(sweep, arguments, message):
    with pytest.raises(ValueError, match=message):
        evaluate(sweep / "0", **arguments)


def test_what_is_no_run_is_refused(tmp_path, sweep):
    with pytest.raises(ValueError, match=r"RUN must be the directory of a run"):
        hope_ssm.load(tmp_path)
    (tmp_path / "x.ckpt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"RUN must be a checkpoint of hope train; .* cannot be read"):
        hope_ssm.load(tmp_path / "x.ckpt")


def test_a_report_has_the_mean_and_deviation_over_seeds(sweep, tmp_path):
    text = report.write(sweep, tmp_path / "out")
    names = {"report.md", "report.tex", "report.csv", "runs.csv", "report.png", "report.pdf", "report.svg"}
    assert {p.name for p in (tmp_path / "out").iterdir()} == names
    markdown = (tmp_path / "out" / "report.md").read_text()
    with (tmp_path / "out" / "report.csv").open() as file:
        lines = {line["configuration"]: line for line in csv.DictReader(file)}
    assert {name: line["kernel"] for name, line in lines.items()} == {"HOPE": "hope", "S4D": "s4d"}
    losses = [RunDirectory(sweep / name).results["test/loss"] for name in ("2", "3")]
    line = lines["S4D"]
    assert int(line["seeds"]) == 2
    assert float(line["test/loss mean"]) == pytest.approx(statistics.fmean(losses))
    assert float(line["test/loss sd"]) == pytest.approx(statistics.stdev(losses))
    assert int(line["kernel_parameters"]) == RunDirectory(sweep / "2").info["kernel_parameters"]
    assert f"{statistics.fmean(losses):.4f} ± {statistics.stdev(losses):.4f}" in markdown
    assert f"{statistics.fmean(losses):.4f} ± {statistics.stdev(losses):.4f}" in text
    assert all(len(row) <= 80 for row in text.splitlines()[:4])
    with (tmp_path / "out" / "runs.csv").open() as file:
        assert [line["seed"] for line in csv.DictReader(file)] == ["0", "1", "0", "1"]
    begins = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    for ending, start in begins.items():
        assert (tmp_path / "out" / f"report.{ending}").read_bytes().startswith(start)


def test_a_report_never_mixes_configurations(sweep, tmp_path):
    """Runs whose typed overrides are the same but whose configurations differ are rows of their own."""
    run(tmp_path / "a", "kernel=hope")
    run(tmp_path / "b", "kernel=hope", "train.seed=1")
    changed = RunDirectory(tmp_path / "b").config
    changed["optimizer"]["lr"] = 0.5
    import yaml

    (tmp_path / "b" / "config.yaml").write_text(yaml.safe_dump(changed))
    table = report.rows([RunDirectory(tmp_path / name) for name in ("a", "b")])
    assert [row.label for row in table] == ["lr 0.001", "lr 0.5"]


@pytest.mark.slow
def test_a_report_says_what_it_left_out_and_what_is_odd(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / name, "kernel=hope", f"train.seed={seed}")
    RunDirectory(tmp_path / "c").end("failed")
    info = RunDirectory(tmp_path / "b").info
    info["versions"]["torch"] = "1.0"
    (tmp_path / "b" / "run.json").write_text(json.dumps(info))
    text = report.write(tmp_path, tmp_path / "report")
    assert f"Left out, not finished: {tmp_path / 'c'} (failed)." in text
    assert "seeds repeat: [0, 0]" in text
    assert "runs of different versions of the software" in text
    with pytest.raises(ValueError, match=r"metric must be one of .*got 'val/acc'. Did you mean 'val/accuracy'"):
        report.write(tmp_path, tmp_path / "report", "val/acc")
    for name in ("a", "b"):
        RunDirectory(tmp_path / name).end("failed")
    with pytest.raises(ValueError, match=r"must hold finished runs; .* is failed"):
        report.write(tmp_path, tmp_path / "report")


@pytest.mark.slow
def test_the_commands(hope, sweep, tmp_path):
    listed = hope("runs", str(sweep))
    assert listed.returncode == 0, listed.stderr
    assert len(listed.stdout.splitlines()) == 5
    assert listed.stdout.count("s4d") == 2
    evaluated = hope("evaluate", str(sweep / "1"), "--out", "e.json")
    assert evaluated.returncode == 0, evaluated.stderr
    assert f"{RunDirectory(sweep / '1').results['test/loss']:.4f}" in evaluated.stdout
    reported = hope("report", str(sweep), "--out", "report")
    assert reported.returncode == 0, reported.stderr
    assert "\nHOPE           2      " in reported.stdout
    chosen = hope("report", str(sweep), "--out", "chosen", "--columns", "val/loss,parameters")
    assert chosen.returncode == 0, chosen.stderr
    assert chosen.stdout.startswith("configuration  validation loss  ")
    wrong = hope("report", str(sweep), "--out", "wrong", "--columns", "acuracy")
    assert wrong.returncode == 1
    assert "--columns must be names of " in wrong.stderr
    assert wrong.stderr.endswith("got 'acuracy'. Did you mean 'accuracy'?\n")
    assert not (tmp_path / "wrong").exists()


@pytest.mark.slow
def test_a_report_says_where_kernels_share_differently(sweep, tmp_path):
    for number, n_ssm in enumerate(("1", "null")):
        kernel = ("s4d", "hope")[number]
        run(tmp_path / str(number), f"kernel={kernel}", f"model.layer.n_ssm={n_ssm}", "trainer.max_epochs=1")
    said = report.write(tmp_path, tmp_path / "report")
    assert "Not like for like, the features share their A, B and Δt differently: n_ssm=1 in S4D, n_ssm 1" in said
    assert "Not like for like" not in report.write(sweep, tmp_path / "other")
