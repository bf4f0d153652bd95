"""``hope doctor`` on a stand-in checkout: what it finds missing, broken and in the way."""

from __future__ import annotations

import json

import pytest

from hope_ssm import registry, requirements
from hope_ssm.cli import doctor
from hope_ssm.hosts import environment, state_spaces
from hope_ssm.ops import native_build

FILES = {
    "train.py": "import json\nimport hope_absent\nfrom src.a import b\ntry:\n    import optional\nfinally: pass\n",
    "src/a/__init__.py": "from . import b\n",
    "src/a/b.py": "from ..c import d\nimport hope_broken.part\ndef f():\n    import later\n",
    "src/c.py": "import numpy.fft\n",
    "src/models/sequence/kernels/fftconv.py": "",
    "src/dataloaders/base.py": "",
}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    root = tmp_path / "checkout"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    site = tmp_path / "site"
    site.mkdir()
    (site / "hope_broken.py").write_text("raise RuntimeError('operator\\n does not exist')\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("STATE_SPACES_HOME", str(root))
    return root


def test_the_host_is_where_the_variable_says_or_here(checkout, monkeypatch, tmp_path):
    assert state_spaces.find_host() == checkout.resolve()
    monkeypatch.chdir(checkout)
    monkeypatch.setenv("STATE_SPACES_HOME", str(tmp_path))
    assert state_spaces.find_host() is None, "a variable that names no host is not overruled"
    monkeypatch.delenv("STATE_SPACES_HOME")
    assert state_spaces.find_host() == checkout.resolve()


def test_what_training_imports_is_followed_through_the_checkout(checkout):
    assert environment.needed(checkout) == ["hope_absent", "hope_broken", "numpy"]
    absent, broken = environment.missing(checkout)
    assert absent == ["hope_absent"]
    assert broken == {"hope_broken": "RuntimeError: operator does not exist"}
    assert environment.installation(["sklearn", "torchvision", "einops"]) == [
        "pip install scikit-learn einops",
        "torchvision: install the build that matches torch; where there is none, --no-deps torchvision==0.16.2 imports",
    ]


def test_json(checkout, capsys):
    assert doctor.run(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["host"]["missing"] == ["hope_absent"]
    assert found["host"]["install"] == ["pip install hope_absent"]
    assert found["host"]["broken"]["hope_broken"]["mend"] == "reinstall hope_broken"
    assert found["kernels"]["failing"] == {}
    assert found["backends"]["names"][0] == "auto"
    assert found["versions"]["torch"]["here"]


def test_text_without_a_host(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("STATE_SPACES_HOME", str(tmp_path))
    assert doctor.run([]) == 0
    said = capsys.readouterr().out
    assert "which STATE_SPACES_HOME names, holds none" in said
    assert "auto takes" in said
    assert f"convolution: auto takes on a CPU {native_build.choice()}; on a GPU plain" in said


def test_a_kernel_that_fails_is_named_and_sets_the_status(monkeypatch, tmp_path, capsys):
    gone = registry.Entry(name="gone", target="hope_absent:Kernel", distribution="third-party")
    monkeypatch.setattr(registry, "kernels", lambda: {**registry.own_entries(), "gone": gone})
    monkeypatch.setenv("STATE_SPACES_HOME", str(tmp_path))
    assert doctor.run([]) == 1
    assert "failing     gone: ImportError: kernel 'gone' of third-party must be importable" in capsys.readouterr().out


@pytest.mark.parametrize(("installed", "cuda", "trap"), [
    ({"hydra-core": "1.4.0rc3"}, False, "rejects the host's hydra.main"),
    ({"pytorch-lightning": "2.4.0", "rich": "14.1.0"}, False, "fails with rich 14.1.0"),
    ({"pytorch-lightning": "2.6.6"}, True, "refuses the host's own checkpoints"),
    ({"pykeops": "2.3"}, False, "pykeops without a GPU"),
    ({"wandb": "0.29.1"}, False, "dropped an option"),
    ({"wandb": "0.28.2"}, False, "retries a failing wandb login"),
    ({}, False, "need transformers"),
    ({}, False, "trains on a GPU by default"),
    ({}, False, "convolve all features at once"),
])  # fmt: skip
def test_traps_apply_by_version(monkeypatch, installed, cuda, trap):
    monkeypatch.delenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", raising=False)
    monkeypatch.setattr(requirements, "version", installed.get)
    assert [row for row in environment.traps(cuda) if trap in row.trap]
    good = {"hydra-core": "1.3.2", "pytorch-lightning": "2.5.6", "rich": "15.0.0", "transformers": "5.0"}
    monkeypatch.setattr(requirements, "version", good.get)
    assert not [row for row in environment.traps(cuda=True) if trap in row.trap]
