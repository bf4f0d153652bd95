"""The command lines a user types in an unmodified checkout of the host, each in its own process at the smallest size.

Runs when STATE_SPACES_HOME names a checkout; see conftest.py.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from distributions import add_distribution
from host_output import DONE, groups

DELAY = ["pipeline=delay", "dataset.l_seq=64", "dataset.l_lag=16", "dataset.n_train=16", "dataset.n_eval=8"]
DELAY += ["model=s4", "+train.remove_test_loader_in_eval=true"]
DIGITS = ["experiment=hope/noisy-digits", "dataset.l_noise=16"]
OLD_CHECKPOINTS = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}  # the host's checkpoints hold its configuration


@pytest.fixture(scope="module", autouse=True)
def _unchanged_host(host):
    if not (host.home / ".git").exists():
        yield
        return
    before = host.status()
    yield
    assert host.status() == before, "the host's checkout must stay as it was"


@pytest.fixture(scope="module")
def trained(host, tmp_path_factory) -> dict[str, tuple[Path, str]]:
    """Train ``kernel=`` hope, s4 and s4d over one experiment of ours; return checkpoint and output of each."""
    runs = {}
    for kernel in ("hope", "s4", "s4d"):
        output = tmp_path_factory.mktemp(kernel)
        own = [] if kernel == "hope" else ["+model.layer.backend=naive"]  # the host's kernels without KeOps and CUDA
        said = host.train(output, *DIGITS, f"kernel={kernel}", *own)
        runs[kernel] = output / "checkpoints" / "last.ckpt", said
    return runs


def test_layer_mode(host, tmp_path):
    assert DONE in host.train(tmp_path, *DELAY, "model.layer.mode=hope")


def test_layer_group(host, tmp_path):
    said = host.train(tmp_path, *DELAY, "model/layer=hope")
    assert DONE in said
    assert (8, 0.001) in groups(said), "Δt of 8 features in a group of its own"


def test_kernel_over_an_experiment_of_the_host_with_a_bare_learning_rate(host, tmp_path, cifar):
    data, accept = cifar
    said = host.train(tmp_path, "experiment=lra/s4-cifar", "+kernel=hope", path=(accept,), DATA_PATH=str(data))
    assert DONE in said
    assert [lr for _, lr in groups(said)].count(0.001) == 1, "only Δt has a rate of its own"


def test_kernel_over_our_experiment(trained):
    assert all(DONE in said for _, said in trained.values())


def test_two_ranks(host, tmp_path):
    said = host.train(tmp_path, *DIGITS, "trainer.devices=2", "trainer.strategy=ddp")
    assert DONE in said
    assert "GLOBAL_RANK: 1, MEMBER: 2/2" in said


def test_joblib_multirun(host, absent, tmp_path):
    if host.python("-c", "import hydra_plugins.hydra_joblib_launcher").returncode:
        absent("the host's environment must have hydra-joblib-launcher for this test.")
    launcher = ["--multirun", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    host.train(tmp_path, *launcher, *DIGITS, "kernel=hope,s4d")
    assert {path.parts[-3] for path in tmp_path.glob("*/checkpoints/last.ckpt")} == {"0", "1"}


def test_plain_multirun_with_our_callback(host, tmp_path):
    callback = "+hydra.callbacks.clear_eval._target_=hope_ssm.hosts.multirun.ClearEvalResolver"
    host.train(tmp_path, "--multirun", callback, *DIGITS, "kernel=hope,s4d")
    assert {path.parts[-3] for path in tmp_path.glob("*/checkpoints/last.ckpt")} == {"0", "1"}


def test_resume(host, tmp_path, trained):
    checkpoint, _ = trained["hope"]
    said = host.train(tmp_path, *DIGITS, f"train.ckpt={checkpoint}", "trainer.max_epochs=2", **OLD_CHECKPOINTS)
    assert "Restored all states" in said
    assert DONE + "2` reached" in said


@pytest.mark.parametrize(("saved", "asked", "sentence"), [
    ("s4d", "hope", "the checkpoint must hold a hope kernel at 'model.layers.0"),
    ("hope", "s4d", "Unexpected key(s) in state_dict"),  # the host's own kernel speaks, not ours
])  # fmt: skip
def test_a_checkpoint_of_another_kernel_is_refused(host, tmp_path, trained, saved, asked, sentence):
    checkpoint, _ = trained[saved]
    overrides = [*DIGITS, f"kernel={asked}", f"train.ckpt={checkpoint}", "trainer.max_epochs=2"]
    done = host.try_train(tmp_path, *overrides, **OLD_CHECKPOINTS)
    assert done.returncode != 0
    assert sentence in done.stdout + done.stderr  # Hydra's log goes to the one, Python's errors to the other


def test_fallback_in_configuration_alone(host, tmp_path):
    """Where the plug-in is not loaded: the profiler's ``_target_`` registers, ``hydra.searchpath`` has the groups."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\nsys.modules['hope_ssm.hydra_searchpath'] = None\n")
    profiler = "+trainer.profiler._target_=hope_ssm.hosts.state_spaces.register"
    groups = "hydra.searchpath=[pkg://hope_ssm.configs]"
    said = host.train(tmp_path / "run", *DIGITS, profiler, groups, path=(site,))
    assert DONE in said


def test_without_hydra_convolution_equals_steps(host):
    code = """
        import torch
        from hope_ssm.hosts.state_spaces import register
        assert register() is None and register() is None
        from src.models.sequence.kernels.fftconv import FFTConv
        torch.manual_seed(0)
        options = dict(d_state=9, channels=2, dt_min=0.05, dt_max=2.0, rank=1, measure=None, init="legs", verbose=True)
        layer = FFTConv(6, mode="hope", lr={"dt": 0.001, "A": 0.001, "B": 0.001}, **options)
        x = torch.randn(3, 6, 41)
        y, none = layer(x)
        assert none is None
        layer.setup_step()
        state, steps = layer.default_state(3), []
        for t in range(x.shape[-1]):
            y_t, state = layer.step(x[..., t], state)
            steps.append(y_t)
        steps = torch.stack(steps, -1).unflatten(1, (2, 6))
        torch.testing.assert_close(steps, y.unflatten(1, (2, 6)))
        first, carried = layer(x[..., :25], state=layer.default_state(3))
        second, last = layer(x[..., 25:], state=carried)
        torch.testing.assert_close(torch.cat([first, second], -1), y)
        torch.testing.assert_close(last, state)
        both = FFTConv(6, kernel="hope", mode=None, bidirectional=True, d_state=4, l_max=16)
        assert both(x)[0].shape == (3, 6, 41)
        both(x)[0].sum().backward()
        assert all(p.grad is not None for p in both.parameters())
        """
    done = host.python("-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr


def test_global_group_holds_the_markov_parameters(host):
    code = """
        import train
        from hydra import compose, initialize_config_dir
        overrides = ["pipeline=delay", "model=s4", "model.layer.mode=hope", "model.n_layers=3", "model.d_model=10",
                     "model.layer.d_state=7", "model.layer.channels=2", "dataset.n_train=8", "dataset.n_eval=8",
                     "optimizer.lr=0.02", "optimizer.weight_decay=0.03"]
        with initialize_config_dir(train.os.path.abspath("configs"), version_base="1.1"):
            config = train.utils.train.process_config(compose("config", overrides))
        module = train.SequenceLightningModule(config)
        (optimizer,), _ = module.configure_optimizers()
        names = {id(p): name for name, p in module.named_parameters()}
        group = optimizer.param_groups[0]
        assert (group["lr"], group["weight_decay"]) == (0.02, 0.03)
        held = [p.numel() for p in group["params"] if names[id(p)].endswith("markov_parameters")]
        assert held == [2 * 10 * 7] * 3, held
        periods = [p for name, p in module.named_parameters() if name.endswith("raw_sampling_period")]
        assert all(p._optim == {"lr": 0.001, "weight_decay": 0.0} for p in periods) and len(periods) == 3
        """
    done = host.python("-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr


def test_the_hosts_own_kernels_are_bit_identical(host):
    code = """
        import hashlib, sys
        if {plugin}:
            import hope_ssm.hydra_searchpath
        import torch
        from src.models.sequence.kernels import registry
        from src.models.sequence.kernels.fftconv import FFTConv
        assert ("hope" in registry) == {plugin} == ("hope_ssm" in sys.modules)
        digest = hashlib.sha256()
        own = dict(d_state=8, n_ssm=1, lr=0.001, verbose=False)
        for mode in ("nplr", "s4", "dplr", "diag", "s4d"):
            torch.manual_seed(1)
            layer = FFTConv(4, mode=mode, channels=2, backend="naive", **own)
            digest.update(layer.kernel(L=33)[0].detach().numpy().tobytes())
            digest.update(layer(torch.randn(2, 4, 33))[0].detach().numpy().tobytes())
        print(sorted(name for name in registry if registry[name].__module__.startswith("src.")), digest.hexdigest())
        """
    runs = [host.python("-c", textwrap.dedent(code).replace("{plugin}", plugin)) for plugin in ("True", "False")]
    assert all(run.returncode == 0 for run in runs), runs[0].stderr + runs[1].stderr
    assert runs[0].stdout == runs[1].stdout


def test_a_kernel_of_another_package(host, tmp_path):
    """The line of docs/kernel.md: +kernel= takes what an entry point declares."""
    page = (Path(__file__).parents[2] / "docs" / "kernel.md").read_text(encoding="utf-8")
    site = add_distribution(tmp_path / "site", "average-kernel", "average = average_kernel:ExponentialAverage")
    (site / "average_kernel.py").write_text(re.search(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1])
    said = host.train(tmp_path / "run", *DELAY, "+kernel=average", path=(site,))
    assert DONE in said
