"""The host's own readers of the Long-Range Arena on the files that ``hope data`` makes, and its training on them.

Runs when STATE_SPACES_HOME names a checkout; see conftest.py.
"""

from __future__ import annotations

import json
import textwrap

import pytest

from hope_ssm.datasets.lra import listops, pathfinder_files
from hope_ssm.workbench.data import lra
from host_output import DONE

READ = """
    import json, sys
    import torch
    from src.dataloaders import SequenceDataset
    import src.dataloaders.lra

    def made(name, **options):
        data = SequenceDataset.registry[name](name, **options)
        data.setup()
        sets = data.dataset_train, data.dataset_val, data.dataset_test
        return data, [next(iter(data._dataloader(part, batch_size=len(part), shuffle=False))) for part in sets]

    data, batches = made("listops", n_workers=1)
    rows = [[x[:n].tolist() for x, n in zip(x, rest["lengths"].tolist())] for x, y, rest in batches]
    found = ["listops", len(data.vocab), rows, [y.tolist() for _, y, _ in batches]]
    print("FOUND", json.dumps(found))
    data, batches = made("pathfinder", resolution=16, center=False)
    found = ["pathfinder", [x.sum((1, 2)).tolist() for x, *_ in batches], [y.tolist() for _, y, *_ in batches]]
    print("FOUND", json.dumps(found))
    """


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("DATA")
    listops.make(root / "listops", seed=1, size=300)
    pathfinder_files.make(root / "pathfinder" / "pathfinder16", 16, seed=1, size=40)
    return root


@pytest.fixture(scope="module")
def found(host, root):
    done = host.python("-c", textwrap.dedent(READ), DATA_PATH=str(root))
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    return {name: values for name, *values in lines}


def test_listops(found, root):
    n, rows, labels = found["listops"]
    ours = lra.listops(str(root / "listops"))
    assert n == ours.n_tokens
    for part, xs, ys in zip((ours.train, ours.val, ours.test), rows, labels, strict=True):
        read = [part[i] for i in range(len(part))]
        assert [y for _, y in read] == ys
        assert [x.tolist() for x, _ in read] == xs


def test_pathfinder(found, root):
    sums, labels = found["pathfinder"]
    ours = lra.pathfinder(16, str(root / "pathfinder" / "pathfinder16"))
    for part, xs, ys in zip((ours.train, ours.val, ours.test), sums, labels, strict=True):
        read = [part[i] for i in range(len(part))]
        assert [y for _, y in read] == ys
        assert [float(x.sum()) for x, _ in read] == pytest.approx(xs, rel=1e-5)


@pytest.mark.parametrize(
    "pipeline",
    [["pipeline=listops", "dataset.n_workers=1", "dataset.l_max=60"], ["pipeline=pathfinder", "dataset.resolution=16"]],
    ids=["listops", "pathfinder"],
)
def test_training(host, root, tmp_path, pipeline):
    said = host.train(tmp_path, *pipeline, "model=s4", "model.layer.mode=hope", DATA_PATH=str(root))
    assert DONE in said
