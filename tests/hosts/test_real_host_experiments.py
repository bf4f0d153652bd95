"""Every experiment file of ours in an unmodified checkout of the host: composed, and trained for a step on small data.

Runs when STATE_SPACES_HOME names a checkout; see conftest.py.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from hope_ssm.datasets.lra import listops, pathfinder_files

FOLDER = Path(__file__).parents[2] / "configs" / "experiment" / "hope"
EXPERIMENTS = sorted({path.stem for path in FOLDER.glob("*.yaml")} - {"noisy-digits-chunks"})  # that one: workbench
FAMILY = sorted(path.stem for path in (FOLDER.parent / "essm").glob("*.yaml"))
SMALL = {
    "lra-listops": ["dataset.l_max=50", "dataset.n_workers=1"],
    "lra-text": ["dataset.l_max=40", "dataset.min_freq=1", "dataset.val_split=0.5", "+dataset.n_workers=1"],
    "lra-retrieval": ["dataset.l_max=40", "+dataset.n_workers=1"],
    "lra-pathfinder": ["dataset.resolution=16"],
    "lra-pathx": ["dataset.pool=16"],
    "lra-listops-small": ["dataset.size=60"],
    "lra-pathfinder-small": ["dataset.size=24"],
    "noisy-cifar": ["dataset.l_noise=16"],
    "delay-small": ["dataset.n_train=16", "dataset.n_eval=8", "+train.remove_test_loader_in_eval=true"],
}
# What the host downloads or has no package for, made on the spot in its own process.
STAND_INS = """
import datasets
import torch
import torchvision.datasets.cifar as cifar
from hope_ssm.datasets import mnist

cifar.check_integrity = lambda *arguments, **options: True
mnist._images = lambda: (torch.rand(50, 784, 1), torch.arange(50) % 10)
load = datasets.load_dataset
reviews = {"text": ["good " * k + "film" for k in range(1, 9)], "label": [0, 1] * 4}

def load_dataset(name, *arguments, **options):
    if name != "imdb":
        return load(name, *arguments, **options)
    return datasets.DatasetDict({part: datasets.Dataset.from_dict(reviews) for part in ("train", "test")})

datasets.load_dataset = load_dataset
# The host adds two columns of AAN, which were lists before datasets 4.
column = getattr(datasets.arrow_dataset, "Column", None)
if column is not None and not hasattr(column, "__add__"):
    column.__add__ = lambda first, second: list(first) + list(second)
"""


@pytest.fixture(scope="module")
def place(cifar, tmp_path_factory):
    """(data directory, directory for sys.path)."""
    root = cifar[0]
    listops.make(root / "listops", seed=1, size=200)
    for resolution in (16, 128):
        pathfinder_files.make(root / "pathfinder" / f"pathfinder{resolution}", resolution, seed=1, size=40)
    (root / "aan").mkdir()
    for split in ("train", "eval", "test"):
        with (root / "aan" / f"new_aan_pairs.{split}.tsv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, delimiter="\t")
            rows.writerows([float(i % 2), f"P{i}", f"Q{i}", "a paper " * (i + 1), "another one"] for i in range(8))
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(STAND_INS)
    return root, site


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_dry_run(host, tmp_path, place, experiment):
    train_briefly(host, tmp_path, place, "hope", experiment)


@pytest.mark.parametrize("experiment", [name for name in SMALL if name in FAMILY])
@pytest.mark.parametrize("family", ["s4d-ft", "essm"])
def test_a_dry_run_of_another_family(host, tmp_path, place, family, experiment):
    own = ["+model.layer.backend=naive"] if family == "s4d-ft" else ["model.layer.heads=2"]
    train_briefly(host, tmp_path, place, family, experiment, *own)


def train_briefly(host, tmp_path, place, family, experiment, *own):
    root, site = place
    options = [f"experiment={family}/{experiment}", *own, *SMALL.get(experiment, []), "+trainer.fast_dev_run=true"]
    host.train(tmp_path, *options, path=(site,), DATA_PATH=str(root))


@pytest.mark.parametrize("experiment", ["lra-listops", "lra-pathfinder", "lra-pathfinder-small"])
def test_the_host_s_own_kernel_in_its_place(host, tmp_path, place, experiment):
    root, site = place
    options = [f"experiment=hope/{experiment}", "kernel=s4d", *SMALL[experiment], "+trainer.fast_dev_run=true"]
    host.train(tmp_path, *options, "+model.layer.backend=naive", path=(site,), DATA_PATH=str(root))


def test_variants_and_ablations(host, tmp_path, place):
    root, site = place
    common = ["+trainer.fast_dev_run=true", "dataset.pool=4"]
    variant = ["experiment=hope/experiment-1", "variant=s4d-legs", "+model.layer.backend=naive"]
    ablation = ["experiment=hope/noisy-mnist-small", "+ablation=learning-rate"]
    for number, options in enumerate((variant, ablation)):
        host.train(tmp_path / str(number), *options, *common, path=(site,), DATA_PATH=str(root))
