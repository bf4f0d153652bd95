"""``hope upstream``: the contribution to the host is the kernel of this package, and a patch that applies."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from files import contents
from hope_ssm import HopeKernel
from hope_ssm.cli import main
from hope_ssm.hosts import upstream
from hope_ssm.kernels.hope_bands import HopeBandsKernel
from host_output import DONE


class Kernel(nn.Module):
    """What the contribution takes from the host's base class."""

    def __init__(self, d_model, channels=1, l_max=None, lr=None, wd=0.0, verbose=True, **kwargs):
        super().__init__()
        self.H, self.L, self.l_max, self.channels, self.lr, self.wd = d_model, l_max, l_max, channels, lr, wd
        self.unused = kwargs

    def register(self, name, tensor, lr=None, wd=0.0):
        if lr == 0:
            self.register_buffer(name, tensor)
            return
        setattr(self, name, nn.Parameter(tensor))
        options = {"lr": lr, "weight_decay": wd}
        getattr(self, name)._optim = {key: value for key, value in options.items() if value is not None}


@pytest.fixture(scope="module")
def contributed() -> dict[type, type]:
    """The kernels of the contribution by ours, on a stand-in of the host's base class."""
    base, package = types.ModuleType("contribution.kernel"), types.ModuleType("contribution")
    base.Kernel, package.__path__ = Kernel, [str((upstream.contribution() / upstream.KERNEL).parent)]
    sys.modules.update({"contribution": package, "contribution.kernel": base})
    try:
        plain, bands = (importlib.import_module(f"contribution.{name}") for name in ("hope", "hope_bands"))
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "contribution"]:
            sys.modules.pop(name)
    return {HopeKernel: plain.HOPEKernel, HopeBandsKernel: bands.HOPEBandsKernel}


@pytest.fixture(scope="module")
def theirs(contributed) -> type:
    """HOPE of the contribution."""
    return contributed[HopeKernel]


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


SIZES = {  # options, length, rate
    "odd": ({"d_model": 4, "channels": 2, "d_state": 7, "n_ssm": 2, "dt_transform": "exp"}, 33, 1.0),
    "one sample": ({"d_model": 3, "d_state": 1}, 1, 2),
    "one parameter": ({"d_model": 2, "d_state": 1, "n_ssm": 1}, 5, 1.0),
    "long": ({"d_model": 2, "d_state": 8, "n_ssm": 1, "dt_min": 1e-3, "dt_max": 0.01}, 1000, 0.5),
    "shorter than n": ({"d_model": 2, "channels": 2, "d_state": 16}, 5, 1.0),
    "period one": ({"d_model": 2, "d_state": 6, "dt_min": 1.0, "dt_max": 1.0}, 17, 1.0),
    "long periods": ({"d_model": 3, "d_state": 5, "dt_min": 2.0, "dt_max": 20.0}, 40, 3.0),
    "window": ({"d_model": 2, "d_state": 8, "dt_min": None, "dt_max": None, "l_max": 50}, 50, 1.0),
    "horizon": ({"d_model": 2, "d_state": 8, "dt_min": None, "dt_max": None, "horizon": 90, "l_max": 50}, 50, 1.0),
    "an axis": ({"d_model": 2, "d_state": 8, "dt_min": None, "dt_max": None, "horizon": [9, 50], "l_max": 50}, 50, 1.0),
    "deterministic": ({"d_model": 4, "d_state": 8, "n_ssm": 2, "deterministic": True, "init_scale": 2.0}, 20, 1.0),
}


BANDED = {
    "odd": ({"d_model": 7, "channels": 2, "d_state": 12, "bands": 3, "dt_transform": "exp"}, 33, 1.0),
    "one sample": ({"d_model": 3, "d_state": 2}, 1, 2),
    "one state": ({"d_model": 2, "d_state": 4, "bands": 2, "n_ssm": 1}, 5, 1.0),
    "long": ({"d_model": 4, "d_state": 16, "n_ssm": 2, "banded_share": 0.5}, 1000, 0.5),
    "tied": ({"d_model": 6, "d_state": 8, "n_ssm": 2, "banded_share": 0.7}, 40, 3.0),
    "shorter than m": ({"d_model": 2, "channels": 2, "d_state": 32, "bands": 1, "band_width": 3.0}, 5, 1.0),
    "horizon": ({"d_model": 4, "d_state": 8, "dt_min": None, "dt_max": None, "horizon": 90, "l_max": 50}, 50, 1.0),
    "l_max": ({"d_model": 4, "d_state": 8, "l_max": 50, "band_scale": 3.0, "band_width": 0.4}, 50, 1.0),
    "deterministic": ({"d_model": 6, "d_state": 8, "deterministic": True, "band_scale": 2.0}, 20, 1.0),
}
CASES = [(HopeKernel, case) for case in SIZES.values()] + [(HopeBandsKernel, case) for case in BANDED.values()]
NAMES = [*SIZES, *(f"bands, {name}" for name in BANDED)]


def outcome(cls, options, length, rate):
    """Everything a kernel computes, with gradients, by name."""
    torch.manual_seed(0)
    kernel = cls(**{"dt_min": 0.05, "dt_max": 3.0} | options)
    torch.manual_seed(1)
    state = torch.randn(2, options["d_model"], options["d_state"], requires_grad=True)
    u = torch.randn(*state.shape[:2], length, requires_grad=True)
    k, response = kernel(L=length, rate=rate, state=state)
    last = kernel.forward_state(u, state)
    weighted = sum((x * torch.randn(x.shape)).sum() for x in (k, response, last))
    variables = {**dict(kernel.named_parameters()), "state": state, "u": u}
    gradients = dict(zip(variables, torch.autograd.grad(weighted, list(variables.values())), strict=True))
    kernel._setup_step()
    stepped, y, s = [], None, state
    for sample in u.unbind(-1):
        y, s = kernel.step(sample, s)
        stepped.append(y)
    default = kernel.default_state(3)
    return kernel.state_dict(), {
        "kernel": k, "alone": kernel(L=length, rate=rate)[0], "response": response, "last": last, "state": s,
        "steps": torch.stack(stepped), "default": default, "flat": kernel.state_to_tensor(default),
        "size": torch.tensor(kernel.d_state), **{f"gradient of {name}": g for name, g in gradients.items()},
    }  # fmt: skip


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("cls", "case"), CASES, ids=NAMES)
def test_the_same_kernel_to_1e_12(contributed, cls, case):
    (ours_saved, ours), (saved, found) = outcome(cls, *case), outcome(contributed[cls], *case)
    assert sorted(saved) == sorted(ours_saved)
    for name in saved:
        torch.testing.assert_close(saved[name], ours_saved[name], rtol=1e-14, atol=1e-14, msg=name)
    assert list(found) == list(ours)
    for name, value in ours.items():
        assert found[name].shape == value.shape, name
        error = (found[name] - value).detach().abs().max() / value.detach().abs().max().clamp(min=1)
        assert error <= 1e-12, name


@pytest.mark.usefixtures("double")
def test_whole_steps_and_chunks_agree(theirs):
    kernel = theirs(d_model=3, channels=2, d_state=9, dt_min=0.05, dt_max=2.0)
    kernel._setup_step()
    u, start = torch.randn(2, 3, 41), torch.randn(2, 3, 9)
    k, response = kernel(L=41, state=start)
    product = torch.fft.rfft(u, n=82).unsqueeze(1) * torch.fft.rfft(k, n=82)
    whole = torch.fft.irfft(product, n=82)[..., :41] + response
    state, steps = start, []
    for sample in u.unbind(-1):
        y, state = kernel.step(sample, state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, -1), whole)
    carried = start
    for chunk in u.split([1, 25, 15], dim=-1):
        carried = kernel.forward_state(chunk, carried)
    torch.testing.assert_close(carried, state)


@pytest.mark.parametrize("period", [1e-3, 0.1, 30.0])
def test_the_memory_in_float32(theirs, period):
    """The part t ≥ 1 of the kernel, which is small at small Δt, keeps its digits; so do many steps."""
    options = {"d_model": 2, "d_state": 16, "dt_min": period, "dt_max": period, "dt_transform": "exp"}
    kernel = theirs(**options)
    k, _ = kernel(L=3000)
    exact = theirs(**options).double()
    exact.load_state_dict({name: value.double() for name, value in kernel.state_dict().items()})
    reference = exact(L=3000)[0][..., 1:]
    error = (k[..., 1:].double() - reference).abs().amax(-1) / reference.abs().amax(-1)
    assert float(error.detach().max()) < 2e-5
    kernel._setup_step()
    state, u = kernel.default_state(1), torch.zeros(1, 2)
    y, state = kernel.step(u + 1, state)
    for _ in range(2000):
        y, state = kernel.step(u, state)
    distance = (y[0].double() - reference[..., 1999]).abs() / reference.abs().amax(-1)
    assert float(distance.detach().max()) < 2e-5


@pytest.mark.parametrize(("lr", "wd"), [
    (None, 0.0), (0.001, 0.0), (0.0, 0.0), (0.002, 0.1), ({"dt": 0.001}, 0.0), ({"dt": 0.0, "C": 0.01}, {"C": 0.0}),
    ({"C": 0.0}, None), (None, None), ({"dt": 0.001, "A": None, "B": None}, {"dt": 0.0}), ({"A": 0.002}, {"A": 0.1}),
])  # fmt: skip
@pytest.mark.parametrize("cls", [HopeKernel, HopeBandsKernel])
def test_the_same_optimizer_options(contributed, cls, lr, wd):
    pair = (cls, contributed[cls])
    made = [cls(d_model=2, d_state=4, l_max=9, lr=lr, wd=wd, verbose=False) for cls in pair]
    ours, found = (
        {name: getattr(p, "_optim", "the global group") for name, p in kernel.named_parameters()} for kernel in made
    )
    assert found == ours


# The patch


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
