"""A data set of the user's own: by the dotted path of a function in the working directory, or by a registered name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from hope_ssm.workbench.configuration import compose
from hope_ssm.workbench.data import DATASETS, Splits, make_splits, pad, register
from hope_ssm.workbench.training import build
from tiny import TINY

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
OPTIONS = [o for o in TINY if not o.startswith(("pipeline", "dataset"))] + ["loader.batch_size=4"]


@pytest.mark.slow
def test_the_page_s_file_trains_by_its_path(hope, tmp_path):
    code = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    (tmp_path / "my_data.py").write_text(code)
    done = hope(
        "train", "pipeline=own", "dataset._target_=my_data.beeps", "+dataset.length=50", "kernel=hope", *OPTIONS
    )
    assert done.returncode == 0, done.stderr
    assert "test/accuracy" in done.stdout


def test_the_commands_of_the_page_compose():
    for task in ("regression", "multilabel_classification"):
        config = compose(
            ["pipeline=own", f"task={task}", "train.monitor=val/loss", "train.mode=min", "decoder.mode=last"]
        )
        assert config["train"]["monitor"] == "val/loss"


def splits(**sizes):
    part = [(torch.zeros(3, 1), 0)]
    return Splits(part, part, part, **{"d_input": 1, "d_output": 2} | sizes)


def test_a_registered_name_takes_options(monkeypatch):
    monkeypatch.setitem(DATASETS, "ours", splits)

    def ours(d_output=2):
        return splits(d_output=d_output)

    register("ours", ours)
    assert make_splits({"_name_": "ours", "d_output": 5, "_target_": None}).d_output == 5
    with pytest.raises(TypeError, match=r"dataset 'ours' has no option 'd_outptu'.* Did you mean 'd_output'"):
        make_splits({"_name_": "ours", "d_outptu": 5})
    with pytest.raises(ValueError, match=r"another name than the workbench's; got 'delay'\."):
        register("delay", ours)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("nothing", ValueError, r"must be package.module.function; got 'nothing'\."),
        ("no_such_module.make", ValueError, r"got 'no_such_module.make', but there is no module 'no_such_module'\."),
        ("json.make", ValueError, r"got 'json.make', but json has no function 'make'\."),
        ("os.getcwd", TypeError, r"'os.getcwd' must return hope_ssm.workbench.data.Splits; got str\."),
    ],
)
def test_paths_that_lead_nowhere(target, error, message):
    with pytest.raises(error, match=message):
        make_splits({"_target_": target})


def test_an_import_inside_the_user_s_module_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "half.py").write_text("import a_package_that_is_absent\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there is no module 'a_package_that_is_absent'"):
        make_splits({"_target_": "half.make"})


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ({"d_output": 0}, ValueError, r"Splits\.d_output must be a whole number of at least 1; got 0"),
        ({"d_input": 1.0}, TypeError, r"Splits\.d_input must be a whole number"),
    ],
)
def test_sizes_that_are_none(sizes, error, message):
    with pytest.raises(error, match=message):
        splits(**sizes)


@pytest.mark.parametrize("part", [None, [], iter(())])
def test_a_split_must_have_samples(part):
    full = [(torch.zeros(3, 1), 0)]
    with pytest.raises(ValueError, match=r"Splits\.val must be a data set with a length of at least 1 .*; got "):
        Splits(full, part, full, d_input=1, d_output=2)


def of_steps(*lengths):
    """Splits whose sequences have these lengths."""
    part = [(torch.zeros(length, 1), 0) for length in lengths]
    return Splits(part, part, part, d_input=1, d_output=2, collate=pad)


def test_the_windows_follow_the_longest_sequence_of_the_data(monkeypatch):
    """Also below a pool, whatever the first batch is; a length that the configuration gives goes before."""
    monkeypatch.setitem(DATASETS, "ours", lambda: of_steps(40, 9000, 70))
    line = [*OPTIONS, "pipeline=own", "dataset._name_=ours", "kernel=hope", "model.pool.stride=2"]
    task, _ = build(compose(line))
    kernels = [block.layer.layer.kernel for block in task.model.layers]
    lengths = [2 * kernel.n / kernel.dt_max for kernel in kernels]
    assert lengths == pytest.approx([9000, 4500][: len(kernels)])
    task, _ = build(compose([*line, "model.layer.horizon=50"]))
    kernel = task.model.layers[0].layer.layer.kernel
    assert 2 * kernel.n / kernel.dt_max == pytest.approx(50)


@pytest.mark.parametrize("group", ["s4", "s4d", "s4-hippo", "dss", "stable", "lru", "hope", "rtf"])
def test_every_kernel_shares_as_much_as_the_others(group):
    """kernel=hope,s4d,s4 is like for like: no kernel ties what another leaves to every feature."""
    assert compose(["pipeline=own", f"kernel={group}"])["model"]["layer"]["n_ssm"] is None
