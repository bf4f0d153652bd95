"""``hope upstream``: a patch that applies to the host, passes its lint, and trains there alone and beside us."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from files import contents
from hope_ssm.cli import main
from hope_ssm.hosts import upstream
from host_output import DONE


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A directory that has the landmarks of the host, and the lines that the edits look for."""
    root = tmp_path / "checkout"
    for mark in ("train.py", "src/models/sequence/kernels/fftconv.py", "src/dataloaders/base.py"):
        (root / mark).parent.mkdir(parents=True, exist_ok=True)
        (root / mark).write_text("")
    added = ""
    for edit in upstream.edits():
        anchor, file = edit.get("before", edit.get("after")), root / edit["file"]
        added += edit["text"]
        if anchor in added.splitlines() or (file.exists() and anchor in file.read_text().splitlines()):
            continue  # an earlier edit puts it there, or looks for it too
        file.parent.mkdir(parents=True, exist_ok=True)
        known = file.read_text() if file.exists() else "words\n"
        lines = [anchor, "more words", edit.get("until", ""), "no newline at the end"]
        file.write_text("\n".join([known, *lines]))
    return root


@pytest.mark.parametrize("kernels", ["hope", "hope,hope-bands"])
def test_a_patch_that_applies_and_a_checkout_that_stays(checkout, tmp_path, capsys, kernels):
    before, out = contents(checkout), tmp_path / "made" / "hope.patch"
    out.parent.mkdir()
    assert main.main(["upstream", "--host", str(checkout), "--out", str(out), "--kernel", kernels]) == 0
    said = capsys.readouterr().out
    assert f"git -C {checkout} apply {out}" in said
    bands = "hope-bands" in kernels
    assert ("HOPE with bands" in out.with_suffix(".md").read_text()) == bands
    assert contents(checkout) == before
    assert "pull" not in out.with_suffix(".md").read_text().splitlines()[0].lower()
    subprocess.run(["git", "apply", str(out)], cwd=checkout, check=True)
    after = contents(checkout)
    added = upstream.added_files(kernels.split(","))
    assert ("src/models/sequence/kernels/hope_bands.py" in added) == bands
    assert set(after) - set(before) == set(added)
    assert all(after[path] == text.encode() for path, text in added.items())
    changed = {path for path in before if before[path] != after[path]}
    assert all((b"HOPEBands" in text) == bands for path, text in after.items() if "kernels/__init__" in path)
    assert changed == {edit["file"] for edit in upstream.edits()}
    assert upstream.kernel_class().encode() in after["models/s4/s4.py"]
    assert main.main(["upstream", "--host", str(checkout), "--out", str(out)]) == 1
    assert "the checkout must not have HOPE already" in capsys.readouterr().err


def test_a_checkout_of_another_time_is_refused_with_the_line_that_is_missing(checkout, tmp_path, capsys):
    file = checkout / "src/models/sequence/kernels/__init__.py"
    file.write_text(file.read_text().replace("ConvKernel, EMAKernel", "ConvKernel, EMAKernels"))
    out = tmp_path / "hope.patch"
    assert main.main(["upstream", "--host", str(checkout), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "kernels/__init__.py of the checkout must have the line 'from .kernel import ConvKernel, EMAKernel'" in said
    assert "Did you mean 'from .kernel import ConvKernel, EMAKernels'?" in said
    assert not out.exists()


def test_a_kernel_that_is_not_in_the_contribution(checkout, capsys):
    assert main.main(["upstream", "--host", str(checkout), "--kernel", "hope,hope-band"]) == 1
    assert "kernel must be one of 'hope', 'hope-bands'; got 'hope-band'. Did you" in capsys.readouterr().err


def test_without_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("STATE_SPACES_HOME", raising=False)
    assert main.main(["upstream"]) == 1
    assert main.main(["upstream", "--host", str(tmp_path)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert all("the host must be a checkout of state-spaces/s4; got" in line for line in said)


def test_the_contribution_speaks_of_the_host_alone():
    """Nothing in the added files needs this package, and no name of it is in the host's code."""
    for path, text in upstream.added_files().items():
        assert not re.search(r"hope_ssm|hope-ssm", text), path


# In the real host


def linted(files: list[str], directory: Path, absent) -> None:
    """Run the host's isort, black and flake8; STATE_SPACES_LINT names the directory of their commands."""
    place = os.environ.get("STATE_SPACES_LINT", str(Path(sys.executable).parent))
    tools = {name: shutil.which(name, path=place) for name in ("isort", "black", "flake8")}
    version = subprocess.run([tools["black"], "--version"], capture_output=True, text=True) if tools["black"] else None
    if not all(tools.values()) or "23.7" not in version.stdout:
        absent(f"isort, black 23.7 and flake8 must be in {place}, or in the directory STATE_SPACES_LINT names.")
    for command in ([tools["isort"], "-c"], [tools["black"], "--check"], [tools["flake8"]]):
        done = subprocess.run([*command, *files], cwd=directory, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_patch_applies_to_the_real_host_and_its_new_files_pass_its_lint(host, absent, patched):
    new = [path for path in upstream.added_files() if path.endswith(".py")]
    linted(new, patched.home, absent)
    status = subprocess.run(
        ["git", "apply", "--check", str(patched.home / "hope.patch")], cwd=host.home, capture_output=True, text=True
    )
    assert status.returncode == 0, status.stderr


BLOCKED = "import sys\nsys.modules['hope_ssm'] = sys.modules['hope_ssm.hydra_searchpath'] = None\n"
DELAY = ["pipeline=delay", "dataset.l_seq=64", "dataset.l_lag=16", "dataset.n_train=16", "dataset.n_eval=8"]
DELAY += ["+train.remove_test_loader_in_eval=true"]
OLD_CHECKPOINTS = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}  # the host's checkpoints hold its configuration


@pytest.fixture(scope="module")
def blocked(tmp_path_factory) -> Path:
    """A directory for sys.path, with which no process can import hope_ssm."""
    site = tmp_path_factory.mktemp("blocked")
    (site / "sitecustomize.py").write_text(BLOCKED)
    return site


@pytest.mark.parametrize("options", [
    ["model=s4", "model.layer.mode=hope"],
    ["model=s4", "model/layer=hope"],
    ["model=s4", "model/layer=hope", "model.layer.bidirectional=true"],
    ["model=s4", "model/layer=hope-bands"],
    ["model=s4", "model/layer=hope-bands", "model.layer.bidirectional=true"],
    ["model=s4", "model/layer=standalone", "model.layer.mode=hope", "~model.layer.init"],
    ["model=sashimi", "model.layer.mode=hope"],
], ids=["mode", "layer", "bidirectional", "bands", "bands-bidirectional", "standalone", "sashimi"])  # fmt: skip
def test_the_patched_host_trains_alone(patched, tmp_path, blocked, options):
    said = patched.train(tmp_path, *DELAY, *options, path=(blocked,))
    assert DONE in said


def test_the_patched_host_resumes_alone(patched, tmp_path, blocked):
    line = [*DELAY, "model=s4", "model/layer=hope"]
    patched.train(tmp_path / "first", *line, path=(blocked,))
    checkpoint = f"train.ckpt={tmp_path}/first/checkpoints/last.ckpt"
    said = patched.train(
        tmp_path / "second", *line, checkpoint, "trainer.max_epochs=2", path=(blocked,), **OLD_CHECKPOINTS
    )
    assert "Restored all states" in said
    assert DONE + "2` reached" in said


def test_the_experiment_composes_and_the_recurrence_of_generate_alone(patched, blocked):
    """Backbones stepped as generate.py does on a GPU: every module's setup_step, then the backbone's step."""
    code = """
        import sys
        import torch
        import train
        from hydra import compose, initialize_config_dir
        from src.models.sequence.kernels import registry
        from src.models.sequence.backbones.model import SequenceModel
        from src.models.sequence.backbones.sashimi import Sashimi
        from models.s4.s4 import S4Block, kernel_registry
        assert registry["hope"].__module__ == "src.models.sequence.kernels.hope", registry["hope"]
        assert kernel_registry["hope"].__module__ == "models.s4.s4"
        assert sys.modules["hope_ssm"] is None
        with initialize_config_dir(train.os.path.abspath("configs"), version_base="1.1"):
            config = train.utils.train.process_config(compose("config", ["experiment=lra/hope-cifar"]))
        layer = config.model.layer
        assert (layer.mode, layer.lr.C, layer.lr.dt, layer.dt_max) == ("hope", 0.001, 0.001, 10.0), layer

        torch.manual_seed(0)
        options = dict(mode="hope", d_state=9, dt_min=0.05, dt_max=2.0, verbose=False)
        layer = dict(_name_="s4", **options)
        bands = layer | dict(mode="hope-bands", d_state=12)
        models = [
            SequenceModel(6, n_layers=2, layer=[dict(layer)], residual="R", norm="layer"),
            SequenceModel(6, n_layers=2, layer=[bands], residual="R", norm="layer"),
            Sashimi(6, 1, pool=[4, 4], expand=2, ff=2, prenorm=True, norm="layer", layer=dict(layer)),
            S4Block(6, transposed=False, **options),
        ]
        x = torch.randn(2, 64, 6).double()
        for model in models:
            model = model.double().eval()
            for module in model.modules():
                if hasattr(module, "setup_step"):
                    module.setup_step(mode="dense")
            with torch.no_grad():
                state, outputs = model.default_state(2), []
                for sample in x.unbind(1):
                    y, state = model.step(sample, state)
                    outputs.append(y)
                torch.testing.assert_close(torch.stack(outputs, 1), model(x)[0], rtol=1e-9, atol=1e-9)
        """
    done = patched.python("-c", textwrap.dedent(code), path=(blocked,))
    assert done.returncode == 0, done.stderr


def test_beside_the_plug_in_the_hosts_own_hope_wins_and_old_checkpoints_load(host, patched, tmp_path):
    """``+kernel=hope``, our experiments and a checkpoint of the plug-in's kernel, in the patched host."""
    line = ["experiment=hope/noisy-digits", "dataset.l_noise=16"]
    host.train(tmp_path / "before", *line)
    checkpoint = f"train.ckpt={tmp_path}/before/checkpoints/last.ckpt"
    said = patched.train(tmp_path / "after", *line, checkpoint, "trainer.max_epochs=2", **OLD_CHECKPOINTS)
    assert "Restored all states" in said
    assert DONE + "2` reached" in said
    code = """
        import hope_ssm.hydra_searchpath
        import train
        from hydra import compose, initialize_config_dir
        from src.models.sequence.kernels import registry
        assert registry["hope"].__module__ == "src.models.sequence.kernels.hope", registry["hope"]
        assert registry["hankel"].__module__ == "hope_ssm.registry", "under its other name the plug-in's kernel stays"
        with initialize_config_dir(train.os.path.abspath("configs"), version_base="1.1"):
            line = ["pipeline=delay", "model=s4", "+kernel=hope", "hydra.searchpath=[pkg://hope_ssm.configs]"]
            config = train.utils.train.process_config(compose("config", line))
        module = train.SequenceLightningModule(config)
        kernels = [m for m in module.modules() if type(m).__module__ == "src.models.sequence.kernels.hope"]
        assert len(kernels) == config.model.n_layers
        assert kernels[0].raw_sampling_period.shape == (config.model.d_model,)
        """
    done = patched.python("-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
