"""hope inspect, hope reduce and the callback, on a tiny run."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import torch

from hope_ssm import load, registry
from hope_ssm.analysis import overlay
from hope_ssm.analysis.callback import HankelCallback
from hope_ssm.analysis.inspection import SAMPLES, inspect_kernels, kernels, view
from hope_ssm.cli.main import main
from hope_ssm.hankel import hankel_singular_values
from hope_ssm.reporting.plots import KERNEL_COLORS
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.evaluation import evaluate
from hope_ssm.workbench.training import train
from tiny import TINY

LAYER = "model.layers.0.layer.layer"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of hope with the callback, trained once."""
    path = tmp_path_factory.mktemp("analysis") / "run"
    quiet = ["+trainer.enable_progress_bar=false", "train.tensorboard=false", "trainer.log_every_n_steps=1"]
    train(compose([*TINY, *quiet, "kernel=hope", "+callbacks.hankel.every_n_steps=2"]), path)
    return path


@pytest.mark.slow
def test_reduce_writes_a_run_like_any_other(run, hope, tmp_path):
    done = hope("reduce", str(run), "--d-state", "4", "--out", "small")
    assert done.returncode == 0, done.stderr
    assert "32 of 64" in done.stdout
    report = json.loads((tmp_path / "small" / "reduction.json").read_text())
    layer = report["layers"][LAYER]
    assert layer["orders"] == [4] * 8
    assert all(e <= c for e, c in zip(layer["h_infinity_error"], layer["certificate"], strict=True))
    assert report["metrics"]["before"] == evaluate(run)
    assert report["metrics"]["after"] == evaluate(tmp_path / "small")
    assert set(report["step_microseconds"]) == {"before", "after"}
    assert report["state_bytes"] == {"before": 8 * 8 * 4, "after": 8 * 4 * 4}
    whole, small = load(run), load(tmp_path / "small")
    counts = [sum(p.numel() for p in task.parameters()) for task in (whole, small)]
    assert report["parameters"] == dict(zip(("before", "after"), counts, strict=True))
    for said in ("parameters ", "state, bytes ", "step, µs "):
        assert said in done.stdout

    whole, small = whole.double(), small.double()
    before, after = (next(iter(kernels(task).values())) for task in (whole, small))
    assert after.name == "reduced"
    error = torch.fft.rfft(before(L=4096)[0] - after(L=4096)[0]).abs()[0].amax(-1)
    torch.testing.assert_close(error, torch.tensor(layer["h_infinity_error"]).double(), rtol=2e-2, atol=1e-5)
    assert hope("reduce", "small", "--d-state", "2").returncode == 0
    again = hope("reduce", str(run), "--d-state", "4", "--out", "small")
    assert "out must be a new run directory" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tolerance", "0"], "--tolerance must be a finite number above 0; got 0"),
        (["--d-state", "9"], "d_state must be at most 8, what the kernel has; got 9"),
        (["--d-state", "0"], "--d-state must be a whole number of at least 1; got 0"),
    ],
)
def test_bad_requests_are_one_sentence(run, hope, tmp_path, arguments, message):
    done = hope("reduce", str(run), *arguments, "--out", "small")
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "small").exists()


@pytest.mark.slow
def test_inspect_writes_pictures_a_page_and_numbers(run, hope, tmp_path):
    done = hope("inspect", str(run), "--out", "pages", "--length", "128")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pages" / f"{LAYER}.png").stat().st_size > 10_000
    assert "data:image/png;base64," in (tmp_path / "pages" / "index.html").read_text()
    numbers = json.loads((tmp_path / "pages" / "inspection.json").read_text())[LAYER]
    h = load(run).state_dict()[f"{LAYER}.kernel.markov_parameters"]
    exact = hankel_singular_values(h.double())
    torch.testing.assert_close(torch.tensor(numbers["singular_values"]).double(), exact, rtol=1e-6, atol=1e-6)
    assert numbers["window"] == pytest.approx([8 / dt for dt in numbers["sampling_period"]])
    assert all(0 <= length < 128 for length in numbers["memory_length"][0])
    assert "must be the directory of a run" in hope("inspect", "absent").stderr


@pytest.mark.slow
def test_several_runs_are_drawn_over_each_other(tmp_path, capsys, monkeypatch):
    """Two kernels and a second run of one of them, of two layers and of one."""
    jobs = {"a": ["kernel=hope", "model.n_layers=2"], "b": ["kernel=s4d"], "c": ["kernel=hope", "train.seed=1"]}
    for name, overrides in jobs.items():
        quiet = ["+trainer.enable_progress_bar=false", "train.tensorboard=false"]
        train(compose([*TINY, *quiet, *overrides]), tmp_path / name)
    lines = {}

    def keep(figure, path, dpi=110, save=overlay.save):
        lines[path.stem] = [{line.get_label(): line for line in axes.get_lines()} for axes in figure.axes]
        save(figure, path, dpi)

    monkeypatch.setattr(overlay, "save", keep)
    runs = [str(tmp_path / name) for name in jobs]
    capsys.readouterr()
    assert main(["inspect", *runs, "--length", "64", "--out", str(tmp_path / "pages")]) == 0
    names = [f"HOPE, {runs[0]}", "S4D", f"HOPE, {runs[2]}"]
    assert [*lines["layer-1"][0]] == names
    assert [*lines["layer-2"][0]] == names[:1], "the others have one layer"
    colors = [lines["layer-1"][1][name].get_color() for name in names]
    assert colors[:2] == [KERNEL_COLORS["hope"], KERNEL_COLORS["s4d"]]
    assert colors[2] not in colors[:2]
    k = next(iter(kernels(load(runs[0])).values()))(L=64)[0].detach()[0, :, 1:].double().square()
    expected = (k[:, 10:].sum(-1) / k.sum(-1)).mean()
    assert lines["layer-1"][1][names[0]].get_ydata()[10] == pytest.approx(float(expected))
    assert {path.name for path in (tmp_path / "pages").iterdir()} == {
        *(f"layer-{n}.{ending}" for n in (1, 2) for ending in ("png", "pdf", "svg")), "index.html", "inspection.json",
    }  # fmt: skip
    assert "S4D" in (tmp_path / "pages" / "index.html").read_text()
    assert capsys.readouterr().out.count("\nS4D ") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [*registry.own_entries()])
def test_every_kernel_has_a_view(name):
    """Those without steps by their samples, which are all there is of conv."""
    decaying = {"d_state": 6, "dt_min": 0.3, "dt_max": 0.9}
    own = {"conv": {"l_max": 2 * SAMPLES}, "lru": {"d_state": 6, "r_min": 0.5, "r_max": 0.9}}
    own["hope-bands"] = {**decaying, "horizon": 8, "band_width": 0.5}
    own = own.get(name, decaying)
    kernel = registry.get(name)(d_model=3, channels=2, verbose=False, **own)
    if name == "reduced":  # whose responses take up to 1000 steps to decay at the start
        kernel.reflections.data *= 0.3
    seen = view(kernel, 600)
    assert seen.singular_values.shape[:2] == (2, 3)
    sampled = hankel_singular_values(kernel(L=600)[0].double()[..., 1:])[..., :6].detach()
    difference = (seen.singular_values[..., :6] - sampled).abs().amax(-1)
    assert (difference <= seen.error + 1e-5 * sampled[..., 0]).all()
    assert json.dumps(seen.summary())


def test_what_cannot_be_inspected():
    with pytest.raises(ValueError, match="the model must have a layer with a kernel; it has none"):
        inspect_kernels(kernels(torch.nn.Linear(1, 1)))
    kernel = registry.get("conv")(d_model=1, l_max=4)
    kernel.samples.data[:] = torch.inf
    with pytest.raises(ValueError, match="must have a finite impulse response; that of ConvolutionKernel"):
        view(kernel)


def test_the_callback_logs_and_leaves_the_model_alone(run):
    logged = list(csv.DictReader(next(run.rglob("csv/**/metrics.csv")).read_text().splitlines()))
    row = next(row for row in logged if row[f"hankel/{LAYER}/rank"])
    task = load(run)
    before = {key: value.clone() for key, value in task.state_dict().items()}
    found = HankelCallback(features=100).look(task)
    assert all(torch.equal(value, before[key]) for key, value in task.state_dict().items())
    sigma = hankel_singular_values(before[f"{LAYER}.kernel.markov_parameters"].double())
    assert found[f"hankel/{LAYER}/largest"] == pytest.approx(float(sigma.max()))
    assert found[f"hankel/{LAYER}/smallest"] == pytest.approx(float(sigma.min()), rel=1e-6, abs=1e-12)
    assert 1 <= float(row[f"hankel/{LAYER}/rank"]) <= 8
    with pytest.raises(ValueError, match="every_n_steps must be a whole number of at least 1; got 0"):
        HankelCallback(every_n_steps=0)


def test_the_callback_looks_once_where_gradients_are_accumulated(tmp_path):
    """Two batches per step: two steps, and one look at the second."""
    options = ["trainer.limit_train_batches=4", "trainer.accumulate_grad_batches=2", "trainer.log_every_n_steps=1"]
    quiet = ["+trainer.enable_progress_bar=false", "train.tensorboard=false", "+callbacks.hankel.every_n_steps=2"]
    train(compose([*TINY, *options, *quiet, "kernel=hope"]), tmp_path)
    logged = list(csv.DictReader(next(tmp_path.rglob("csv/**/metrics.csv")).read_text().splitlines()))
    assert [row["step"] for row in logged if row[f"hankel/{LAYER}/rank"]] == ["2"]


@pytest.mark.slow
def test_data_that_are_not_there_leave_no_run_behind(run, hope, tmp_path):
    absent = tmp_path / "copy"
    shutil.copytree(run, absent)
    best = torch.load(absent / "checkpoints" / "best.ckpt", weights_only=True)
    best["hyper_parameters"]["config"]["dataset"] = {"_name_": "cifar", "data_dir": str(tmp_path / "nothing")}
    torch.save(best, absent / "checkpoints" / "best.ckpt")
    done = hope("reduce", str(absent), "--d-state", "4", "--out", "small")
    assert done.returncode == 1
    assert str(tmp_path / "nothing") in done.stderr
    assert not (tmp_path / "small").exists()
