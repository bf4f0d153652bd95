"""The experiment files: the published settings, the swap of the kernel, and a dry run of each on small data."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path

import pytest

from combinations import diagonal
from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.resuming import differences
from hope_ssm.workbench.training import build, train

ROOT = Path(__file__).parents[2]


def names(group):
    return sorted(path.stem for path in (ROOT / "configs" / group).glob("*.yaml"))


EXPERIMENTS = names("experiment/hope")

# arXiv 2405.13975 and its public code: layers, features, n, norm, prenorm, learning rates of all, h and Δt (None: as
# all), range of Δt, batch size, weight decay, steps of warm-up and of the schedule, epochs
PUBLISHED = {
    "listops": (8, 128, 64, "batch", False, 0.002, 0.001, 0, 1e-4, 1, 20, 0.03, 5000, 800_000, 560),
    "text": (6, 256, 64, "batch", True, 0.01, 0.001, None, 1e-3, 0.1, 16, 0.05, 5000, 50_000, 160),
    "retrieval": (6, 128, 64, "batch", True, 0.008, 0.004, None, 1e-3, 0.1, 32, 0.03, 5000, 100_000, 160),
    "image": (6, 128, 128, "layer", False, 0.004, 0.001, 0.001, 1e-3, 10, 32, 0.01, 10 * 1406, 200 * 1406, 200),
    "pathfinder": (6, 128, 128, "batch", True, 0.001, 0.0005, None, 1e-4, 0.1, 8, 0.01, 400_000, 5_000_000, 250),
    "pathx": (6, 128, 128, "batch", True, 0.001, 0.0005, 0, 1e-3, 1, 16, 0.03, 200_000, 500_000, 50),
}
# What the dry run makes smaller, beside the model.
SMALL = {
    "lra-listops": ["dataset.l_max=50"],
    "lra-text": ["dataset.l_max=20", "dataset.min_freq=1"],
    "lra-retrieval": ["dataset.l_max=20"],
    "lra-pathfinder": ["dataset.resolution=16"],
    "lra-pathx": ["dataset.pool=16"],
    "lra-listops-small": ["dataset.size=60"],
    "lra-pathfinder-small": ["dataset.size=24"],
    "noisy-cifar": ["dataset.l_noise=16"],
}


@pytest.fixture
def data(lra_files, cifar_files, monkeypatch):
    """Overrides for the data of an experiment in small."""
    monkeypatch.setenv("DATA_PATH", str(lra_files))

    def overrides(experiment):
        place = [f"+dataset.data_dir={cifar_files[0]}"] if experiment.endswith(("cifar", "lra-image")) else []
        return [*SMALL.get(experiment, []), *place]

    return overrides


@pytest.mark.parametrize("task", PUBLISHED)
def test_the_published_settings(task):
    config = compose([f"experiment=hope/lra-{task}"])
    model, layer, schedule = config["model"], config["model"]["layer"], config["scheduler"]
    found = [model["n_layers"], model["d_model"], layer["d_state"], model["norm"], model["prenorm"]]
    found += [config["optimizer"]["lr"], layer["lr"]["C"], layer["lr"]["dt"], layer["dt_min"], layer["dt_max"]]
    found += [config["loader"]["batch_size"], config["optimizer"]["weight_decay"]]
    found += [schedule["num_warmup_steps"], schedule["num_training_steps"], config["trainer"]["max_epochs"]]
    assert tuple(found) == PUBLISHED[task]
    assert config["optimizer"]["_name_"] == "adamw"
    assert schedule["_name_"] == "cosine_warmup"
    assert layer["bidirectional"]


@pytest.mark.parametrize(
    ("experiment", "kernel"),
    diagonal([name for name in EXPERIMENTS if name != "experiment-1"], ["s4", "s4d", "conv"]),  # that one has variants
)
def test_another_kernel_changes_the_kernel_alone(experiment, kernel):
    ours, other = (
        compose([f"experiment=hope/{experiment}"]),
        compose([f"experiment=hope/{experiment}", f"kernel={kernel}"]),
    )
    assert ours["model"]["layer"]["mode"] == "hope"
    assert other["model"]["layer"]["mode"] == kernel
    own = {"mode", "init", "init_scale", "horizon", "l_max", "dt_min", "dt_max", "lr.A", "lr.B", "lr.dt"}
    if experiment.startswith("lra-") and not experiment.endswith("-small"):
        own -= {"dt_min", "dt_max"}
    changed = {key for key in differences(ours, other) if not key.startswith("dataset.__lengths.")}  # for the horizon
    assert {key.removeprefix("model.layer.") for key in changed} <= own


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("kernel", ["hope", "s4d"])
def test_a_dry_run(experiment, kernel, data, tmp_path):
    tiny = ["model.n_layers=1", "model.d_model=8", "model.layer.d_state=8", "loader.batch_size=4"]
    tiny += ["trainer.accelerator=cpu", "+trainer.fast_dev_run=true", "+trainer.enable_progress_bar=false"]
    config = compose([f"experiment=hope/{experiment}", f"kernel={kernel}", *data(experiment), *tiny])
    assert config["model"]["layer"]["mode"] == kernel
    metrics = train(config, tmp_path / "run", callbacks=[]).metrics
    assert math.isfinite(metrics["train/loss"])


@pytest.mark.parametrize("experiment", ["lra-listops", "lra-pathfinder"])
def test_the_rates_reach_the_parameters(experiment, data):
    tiny = ["model.n_layers=1", "model.d_model=8", "model.layer.d_state=6"]
    task, _ = build(compose([f"experiment=hope/{experiment}", *data(experiment), *tiny]))
    options = {name.rsplit(".", 1)[-1]: getattr(p, "_optim", None) for name, p in task.named_parameters()}
    if experiment == "lra-listops":
        assert options["markov_parameters"] == {"lr": 0.001}
        assert "raw_sampling_period" not in options
    else:
        assert options["markov_parameters"] == {"lr": 0.0005, "weight_decay": 0.0}
        assert options["raw_sampling_period"] == {"weight_decay": 0.0}


MISSPELT = {
    "optimzer: {lr: 1}": "has no group 'optimzer'.* Did you mean 'optimizer'",
    "model: {n_layer: 3}": "has no option 'n_layer'.* Did you mean 'n_layers'",
    "model: {layer: {dt_mim: 0.1}}": "has no option 'dt_mim'.* Did you mean 'dt_min'",
    "model: {layer: {init_scales: 2}}": "has no option 'init_scales'.* Did you mean 'init_scale'",
    "model: {layer: {lr: {smpling_period: 2}}}": "lr has no key 'smpling_period'.* Did you mean 'sampling_period'",
    "train: {sed: 3}": "train has no option 'sed'.* Did you mean 'seed'",
    "train: {state: {n_contxt: 3}}": "has no option 'n_contxt'.* Did you mean 'n_context'",
    "trainer: {max_epoch: 3}": "trainer has no option 'max_epoch'.* Did you mean 'max_epochs'",
    "task: {metric: [accuracy]}": "task has no option 'metric'.* Did you mean 'metrics'",
    "loader: {batchsize: 3}": "has no option 'batchsize'.* Did you mean 'batch_size'",
    "dataset: {l_noize: 3}": "has no option 'l_noize'.* Did you mean 'l_noise'",
    "decoder: {l_tial: 3}": "has no option 'l_tial'.* Did you mean 'l_tail'",
    "optimizer: {weightdecay: 1}": "has no option 'weightdecay'.* Did you mean 'weight_decay'",
    "scheduler: {T_mx: 1}": "has no option 'T_mx'.* Did you mean 'T_max'",
}


@pytest.mark.parametrize("line", MISSPELT, ids=[line.split(":")[0] + str(i) for i, line in enumerate(MISSPELT)])
def test_a_misspelt_key_in_a_file_is_named(line, tmp_path, monkeypatch):
    """In an experiment file of the user's own, beside ours."""
    (tmp_path / "experiment").mkdir()
    text = f"# @package _global_\ndefaults:\n  - hope/noisy-digits\n\n{line}\n"
    (tmp_path / "experiment" / "ours.yaml").write_text(text)
    config = compose(["experiment=ours", f"hydra.searchpath=[file://{tmp_path}]"])
    with pytest.raises((TypeError, ValueError), match=MISSPELT[line]):
        build(config)[0].configure_optimizers()


def test_a_kernel_without_the_option_says_which_it_has():
    with pytest.raises(TypeError, match=r"no option 'truncation'.* valid are .*"):
        build(compose(["experiment=hope/noisy-digits", "kernel=s4d", "+model.layer.truncation=none"]))


ABLATIONS = {
    "exact": {"truncation": "exact"},
    "wrapped": {"truncation": "none"},
    "circular": {"truncation": "none", "circular": True},
    "complex": {"truncation": "none", "coefficients": "complex_noncausal"},
    "learning-rate": {"lr.C": 0.001},
    "frozen-period": {"lr.dt": 0},
    "uniform": {"init": "uniform"},
    "flat-spectrum": {"init": "flat_spectrum"},
}


def test_every_ablation_is_known():
    assert set(names("ablation")) == set(ABLATIONS)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_an_ablation_changes_what_it_says_and_trains(ablation, tmp_path):
    base = ["experiment=hope/ablation", "model.n_layers=1", "model.d_model=4", "dataset.l_noise=20"]
    base += ["trainer.accelerator=cpu", "+trainer.fast_dev_run=true"]
    config = compose([*base, f"+ablation={ablation}"])
    found = differences(compose(base), config)
    wanted = {f"model.layer.{key}": value for key, value in ABLATIONS[ablation].items()}
    assert {key: now for key, (_, now) in found.items()} == wanted
    assert math.isfinite(train(config, tmp_path / "run", callbacks=[]).metrics["train/loss"])


def test_an_ablation_of_another_kernel_is_refused():
    with pytest.raises(TypeError, match=r"the (layer|s4d kernel) has no option 'truncation'"):
        build(compose(["experiment=hope/ablation", "+ablation=wrapped", "kernel=s4d"]))


@pytest.mark.parametrize("variant", names("variant"))
def test_a_variant_of_experiment_1(variant, tmp_path):
    base = ["experiment=hope/experiment-1", "model.n_layers=1", "model.d_model=4", "dataset.pool=4"]
    base += ["trainer.accelerator=cpu", "+trainer.fast_dev_run=true"]
    config = compose([*base, f"variant={variant}"])
    kernel, *rest = variant.split("-")
    layer = config["model"]["layer"]
    assert layer["mode"] == kernel
    assert layer["lr"]["dt"] == 0.001
    if kernel == "s4d":
        assert layer["init"] == f"diag-{rest[0]}"
        assert [layer["lr"][key] for key in "AB"] == [None if rest[1:] == ["equal"] else pytest.approx(0.001)] * 2
    assert math.isfinite(train(config, tmp_path / "run", callbacks=[]).metrics["train/loss"])
    assert compose([*base, f"+variant={variant}"]) == config


def sweeps():
    """(name, choices of every option) of the sweeps of tools/results."""
    text = (ROOT / "tools" / "results").read_text(encoding="utf-8").replace("\\\n", " ")
    arrays = re.findall(r"^(\w+)=\((.+)\)$", text, re.MULTILINE)
    for name, words in arrays:
        text = text.replace(f'"${{{name}[@]}}"', words)
    for command, *words in map(shlex.split, re.findall(r"^(?:results|windows) .*", text, re.MULTILINE)):
        name, *options = [f"windows-{words[0]}", *words[1:]] if command == "windows" else [words[0], *words[2:]]
        yield name, [[f"{key}={v}" for v in values.split(",")] for key, values in (o.split("=", 1) for o in options)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), list(sweeps()))
def test_the_sweeps_of_the_results_compose(name, options):
    for place, choices in enumerate(options):
        for choice in choices:
            overrides = [choice if i == place else others[0] for i, others in enumerate(options)]
            assert compose(overrides)["train"]["seed"] == 0, name


def test_the_page_of_results_names_every_sweep():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    names = {name for name, _ in sweeps()}
    assert {"ablation", "bands-tones-rates", "windows-digits"} <= names, "all kinds of lines are read"
    assert names <= set(re.findall(r"[\w-]+", page))
