"""The analysis in the real host: its checkpoints inspected and reduced, the callback, the kernel ``reduced``.

Runs when STATE_SPACES_HOME names a checkout; see conftest.py.
"""

from __future__ import annotations

import csv
import textwrap
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hope_ssm.cli.main import main

DIGITS = ["experiment=hope/noisy-digits", "dataset.l_noise=16"]
LAYER = "model.layers.0.layer.layer"
OLD_CHECKPOINTS = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}  # the host's checkpoints hold its configuration


@pytest.fixture(scope="module", params=["hope", "s4", "s4d"])
def trained(request, host, tmp_path_factory):
    """Output directory of a run with the callback."""
    kernel = request.param
    own = [] if kernel == "hope" else ["+model.layer.backend=naive"]
    output = tmp_path_factory.mktemp(kernel)
    host.train(
        output, *DIGITS, f"kernel={kernel}", *own, "+callbacks.hankel.every_n_steps=1", "trainer.log_every_n_steps=1"
    )
    return kernel, output


def logged(output: Path, name: str) -> list[float]:
    """What Lightning's default logger wrote of one metric: TensorBoard's where the host has it, else a table."""
    (version,) = output.glob("lightning_logs/*")
    if (table := version / "metrics.csv").is_file():
        return [float(row[name]) for row in csv.DictReader(table.open(encoding="utf-8")) if row[name]]
    return [event.value for event in EventAccumulator(str(version)).Reload().Scalars(name)]


def test_the_callback_logs(trained):
    _, output = trained
    ranks = logged(output, f"hankel/{LAYER}/rank")
    assert len(ranks) == 2
    assert all(1 <= rank <= 8 for rank in ranks)


def test_kernels_of_a_checkpoint_are_the_host_s(trained, host):
    """At lengths below and above that which S4's C is trained for."""
    kernel, output = trained
    code = f"""
        import torch, train
        from hope_ssm.hosts import checkpoints
        path = {str(output / "checkpoints" / "last.ckpt")!r}
        saved = torch.load(path, weights_only=False)
        module = train.SequenceLightningModule(saved["hyper_parameters"])
        module.load_state_dict(saved["state_dict"])
        theirs = module.get_submodule({LAYER!r}).kernel
        ((name, ours),) = checkpoints.kernels(checkpoints.read(path)).items()
        assert name == {LAYER!r} and type(ours).__module__ == "hope_ssm.kernels.{kernel}"
        for length in (33, 300):
            k = theirs(L=length)[0]
            assert (ours(L=length)[0] - k).abs().max() <= 1e-5 * k.abs().max()
        """
    done = host.python("-c", "import hope_ssm.hydra_searchpath\n" + textwrap.dedent(code))
    assert done.returncode == 0, done.stderr


def test_inspect_without_the_host(trained, tmp_path):
    _, output = trained
    path = output / "checkpoints" / "last.ckpt"
    assert main(["inspect", str(path), "--length", "128", "--out", str(tmp_path / "pages")]) == 0
    assert (tmp_path / "pages" / f"{LAYER}.png").stat().st_size > 10_000


def test_a_reduced_checkpoint_is_evaluated_and_trained_by_the_host(trained, host, tmp_path):
    kernel, output = trained
    small = tmp_path / "small.ckpt"
    reduce = ["-m", "hope_ssm.cli.main", "reduce", str(output / "checkpoints" / "last.ckpt"), "--d-state", "4"]
    done = host.python(*reduce, "--out", str(small), STATE_SPACES_HOME=str(host.home))
    assert done.returncode == 0, done.stderr
    assert "val/loss" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("In the host"))
    added = [word for word in line.split() if "model.layer." in word]
    said = host.train(
        tmp_path / "more", *DIGITS, f"kernel={kernel}", *added, f"train.pretrained_model_path={small}",
        "train.validate_at_start=true", **OLD_CHECKPOINTS,
    )  # fmt: skip
    assert "Loaded pretrained model from" in said
    assert "`Trainer.fit` stopped: `max_epochs=" in said


@pytest.mark.parametrize("trained", ["hope"], indirect=True)
def test_code_in_a_checkpoint_s_configuration_needs_trust(trained, host, tmp_path):
    """Arithmetic is no code. The process has the host's own resolver, Python's eval, as one that trains has."""
    _, output = trained
    code = f"""
        import pathlib, torch
        from omegaconf import OmegaConf, open_dict
        from hope_ssm.hosts import checkpoints, reduction
        OmegaConf.register_new_resolver("eval", eval)
        import builtins
        saved = checkpoints.read({str(output / "checkpoints" / "last.ckpt")!r})
        data, builtins.ran = saved["hyper_parameters"]["dataset"], pathlib.Path({str(tmp_path / "ran")!r})
        plain = reduction.evaluate(saved)
        with open_dict(data):
            data["l_noise"] = "${{eval:'4 * 4'}}"
        assert reduction.evaluate(saved) == plain
        with open_dict(data):
            data["__code"] = "${{eval:'open(ran, chr(119))'}}"  # which only that resolver understands
        try:
            reduction.evaluate(saved)
        except ValueError as error:
            assert "must be arithmetic of numbers" in str(error) and "say --trust" in str(error), error
        else:
            raise AssertionError("accepted")
        assert not ran.exists()
        reduction.evaluate(saved, trust=True)
        assert ran.exists()
        """
    done = host.python("-c", "import hope_ssm.hydra_searchpath\n" + textwrap.dedent(code))
    assert done.returncode == 0, done.stderr


def test_kernels_that_only_the_host_has(host):
    """Its dense kernel, rebuilt by the host's own class and seen through its steps."""
    code = """
        import torch
        from omegaconf import OmegaConf
        from hope_ssm.hosts import checkpoints
        from hope_ssm.analysis.inspection import view
        from src.models.sequence.kernels import registry
        options = dict(d_state=6, dt_transform="exp", n_ssm=None)
        kernel = registry["dense"](d_model=3, channels=2, lr=None, verbose=False, **options)
        state = {f"model.layers.0.layer.layer.kernel.{k}": v for k, v in kernel.state_dict().items()}
        config = OmegaConf.create({"model": {"layer": {"mode": "dense", **options}}})
        ((_, same),) = checkpoints.kernels({"state_dict": state, "hyper_parameters": config}).items()
        assert type(same) is type(kernel)
        assert torch.equal(same(L=30)[0], kernel(L=30)[0])
        seen = view(same, 400)
        assert seen.method == "Gramians of the steps" and seen.singular_values.shape[:2] == (2, 3)
        """
    done = host.python("-c", textwrap.dedent(code), STATE_SPACES_HOME=str(host.home))
    assert done.returncode == 0, done.stderr
