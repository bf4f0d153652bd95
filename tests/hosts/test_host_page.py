"""Every command line for the host in the README and in docs/host.md, as it is written there, and the table of rates.

What the line says is run, with small sizes after it: a line must not hang, and must train what it says. Runs when
STATE_SPACES_HOME names a checkout; see conftest.py.
"""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from pathlib import Path

import pytest

from host_output import DONE

ROOT = Path(__file__).parents[2]
TEXT = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/host.md")}
COMMAND = re.compile(r"^ {4,}(python -m train .*)$", re.MULTILINE)
LINES = list(
    dict.fromkeys(line.partition("  #")[0].strip() for text in TEXT.values() for line in COMMAND.findall(text))
)
NO_DATA = [line for line in LINES if "wt103" in line]  # its text is not downloaded: built in test_refusals.py
NOISY = {"dataset.l_noise=16": "noisy-"}


def test_every_line_says_wandb_null():
    """Without it the host waits for a login for ever."""
    assert len(LINES) >= 9
    everything = re.findall(r"python -m train[^`\n]*", "".join(TEXT.values()))
    assert not [line for line in everything if "wandb=null" not in line and "…" not in line]


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in LINES if line not in NO_DATA])
def test_a_line_as_it_is_written(host, tmp_path, cifar, line):
    data, accept = cifar
    words = shlex.split(line)[3:]
    small = [option for option, kind in NOISY.items() if kind in line]
    naive = ["+model.layer.backend=naive"] if "kernel=s4d" in line else []  # where pykeops is, without a GPU
    said = host.train(tmp_path, *words, *small, *naive, path=(accept,), DATA_PATH=str(data))
    assert DONE in said
    if "--multirun" in words:
        assert {path.parts[-3] for path in tmp_path.glob("*/checkpoints/last.ckpt")} == {"0", "1"}


def rows() -> list[tuple[str, str, str]]:
    """(options, what the Markov parameters get, what the sampling periods get) of the table of rates."""
    section = TEXT["docs/host.md"].partition("## Learning rates")[2].partition("\n## ")[0]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    return [tuple(cells) for cells in found[2:]]


def given(cell: str, value: float) -> list[str]:
    """The options of a row, each to be tried alone; those that the row calls the default are nothing."""
    if "default" in cell:
        return [""]
    return [option.replace("…", str(value)) for option in re.findall(r"`([^`]*)`", cell)]


CASES = [(option, *row) for row in rows() for option in given(row[0], 0.02)]
IN_HOST = """
    import json, sys
    import hope_ssm.hydra_searchpath
    import train
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    small = ["pipeline=delay", "model=s4", "model.layer.mode=hope", "model.n_layers=1", "model.d_model=4",
             "dataset.n_train=8", "dataset.n_eval=8", "optimizer.lr=0.04", "optimizer.weight_decay=0.03"]
    with initialize_config_dir(train.os.path.abspath("configs"), version_base="1.1"):
        for option in json.loads(sys.argv[1]):
            OmegaConf.clear_resolver("eval")
            config = train.utils.train.process_config(compose("config", small + [option] * bool(option)))
            module = train.SequenceLightningModule(config)
            (optimizer,), _ = module.configure_optimizers()
            names = {id(p): name.rpartition(".")[2] for name, p in module.named_parameters()}
            groups = {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
            print("FOUND", json.dumps([groups.get(key) for key in ("markov_parameters", "raw_sampling_period")]))
    """


@pytest.fixture(scope="module")
def optimized(host) -> dict[str, list]:
    """What the host's optimizer does with h and Δt under each option: [learning rate, weight decay], None if frozen."""
    options = [option for option, *_ in CASES]
    frozen = [option.replace("=0.02", "=0") for option in options if "…" not in option and "lr." in option]
    asked = list(dict.fromkeys(options + frozen))
    done = host.python("-c", textwrap.dedent(IN_HOST), json.dumps(asked))
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    return dict(zip(asked, found, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("option", "cell", "markov", "periods"), CASES)
def test_the_table_of_learning_rates_is_true(optimized, option, cell, markov, periods):
    """The words of the table: a number is a rate (or a decay in a row of wd), and an empty cell what the default is."""
    defaults = next(row for row in rows() if "default" in row[0])
    decay = "wd" in option
    for words, default, found, freezable in zip(
        (markov, periods), defaults[1:], optimized[option], (".C=" in option, ".dt=" in option), strict=True
    ):
        words = words or default
        if "that rate" in words:
            assert found[0] == 0.02, (cell, words, found)
            assert freezable or "markov_parameters" in option
        elif words == "frozen":
            assert found is None, (cell, words, found)
        else:
            number = re.search(r"0\.\d+", words)
            wanted = {"rate": 0.04 if "global rate" in words else None, "decay": None}
            wanted["decay"] = 0.03 if "global decay" in words else 0.0 if "no decay" in words else None
            if number is not None:
                wanted["decay" if decay else "rate"] = float(number[0])
            for key, value in zip(("rate", "decay"), found, strict=True):
                assert wanted[key] is None or wanted[key] == value, (cell, words, found)
    if "0 freezes" in markov + periods:
        place = 0 if "0 freezes" in markov else 1
        assert optimized[option.replace("=0.02", "=0")][place] is None
