"""The experiment files of S4D-FT and eSSM: their settings, and a dry run of each on small data."""

from __future__ import annotations

import math

import pytest

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.training import train

# arXiv 2410.02035 and its public code: features, layers, α, rates of all, of Δt and of A and B (None: as all), weight
# decay, least Δt, copies of A and B (None: one per feature), batch size, steps of warm-up and of the schedule
S4D_FT = {
    "listops": (128, 6, 3, 0.008, None, 0.004, 0.03, 0.001, 1, 32, 5000, 150_000),
    "text": (256, 6, 5, 0.01, None, 0.001, 0.05, 0.001, 1, 32, 2000, 20_000),
    "retrieval": (128, 6, 3, 0.004, None, 0.001, 0.03, 0.001, 1, 64, 5000, 100_000),
    "image": (512, 6, 3, 0.01, 0.001, 0.001, 0.01, 0.001, None, 50, 18_000, 180_000),
    "pathfinder": (256, 6, 3, 0.004, 0.001, 0.001, 0.03, 0.001, 1, 50, 150_000, 800_000),
    "pathx": (128, 6, 5, 0.001, 0.001, 0.001, 0.03, 0.0001, None, 20, 200_000, 1_250_000),
}
# arXiv 2402.15290: features, heads, states of all heads, layers, learning rate, weight decay
ESSM = {
    "listops": (128, 64, 256, 8, 0.01, 0),
    "text": (128, 128, 128, 6, 0.004, 0.07),
    "retrieval": (64, 64, 128, 6, 0.002, 0.05),
    "image": (256, 64, 512, 6, 0.005, 0),
    "pathfinder": (256, 32, 256, 6, 0.005, 0.05),
    "pathx": (192, 8, 256, 6, 0.001, 0),
}
SMALL = {
    "listops": ["dataset.l_max=50"],
    "text": ["dataset.l_max=20", "dataset.min_freq=1"],
    "retrieval": ["dataset.l_max=20"],
    "pathfinder": ["dataset.resolution=16"],
    "pathx": ["dataset.pool=16"],
}


@pytest.mark.parametrize("task", S4D_FT)
def test_the_published_settings_of_s4d_ft(task):
    config = compose([f"experiment=s4d-ft/lra-{task}"])
    model, layer, optimizer = config["model"], config["model"]["layer"], config["optimizer"]
    found = [model["d_model"], model["n_layers"], layer["imag_scale"], optimizer["lr"], layer["lr"]["dt"]]
    found += [layer["lr"]["A"], optimizer["weight_decay"], layer["dt_min"], layer["n_ssm"]]
    found += [config["loader"]["batch_size"], config["scheduler"]["num_warmup_steps"]]
    assert (*found, config["scheduler"]["num_training_steps"]) == S4D_FT[task]
    assert (layer["mode"], layer["init"], layer["d_state"], layer["dt_max"]) == ("s4d", "diag-lin", 128, 0.1)
    assert layer["frequency_filter"] == {"exponent": 0, "lr": 0.01}
    assert layer["lr"]["B"] == layer["lr"]["A"]
    assert layer["bidirectional"]
    assert config["trainer"]["max_steps"] == S4D_FT[task][-1]


@pytest.mark.parametrize("task", ESSM)
def test_the_published_settings_of_essm(task):
    config = compose([f"experiment=essm/lra-{task}"])
    model, layer, optimizer = config["model"], config["model"]["layer"], config["optimizer"]
    found = [model["d_model"], layer["heads"], layer["heads"] * layer["d_state"], model["n_layers"]]
    assert (*found, optimizer["lr"], optimizer["weight_decay"]) == ESSM[task]
    assert layer["_name_"] == "essm"
    rates = {"listops": [0.01] * 3, "image": [0.001, 0.001, 0.005], "pathx": [0.0005] * 3}.get(task, [0.001] * 3)
    assert [layer["lr"][key] for key in ("dt", "A", "B")] == rates
    ours = compose([f"experiment=hope/lra-{task}"])
    assert config["loader"] == ours["loader"]
    assert config["scheduler"] == ours["scheduler"]


@pytest.mark.slow
@pytest.mark.parametrize("task", S4D_FT)
@pytest.mark.parametrize("family", ["s4d-ft", "essm"])
def test_a_dry_run(family, task, lra_files, cifar_files, monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_PATH", str(lra_files))
    place = [f"+dataset.data_dir={cifar_files[0]}"] if task == "image" else []
    tiny = ["model.n_layers=1", "model.d_model=8", "model.layer.d_state=4", "loader.batch_size=4"]
    tiny += ["model.layer.heads=2"] if family == "essm" else []
    tiny += ["trainer.accelerator=cpu", "+trainer.fast_dev_run=true", "+trainer.enable_progress_bar=false"]
    config = compose([f"experiment={family}/lra-{task}", *SMALL.get(task, []), *place, *tiny])
    assert math.isfinite(train(config, tmp_path / "run", callbacks=[]).metrics["train/loss"])
