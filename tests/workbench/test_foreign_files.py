"""Runs, checkpoints and archives from elsewhere: nothing of theirs is run, written beside its place, or blown up."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
from dataclasses import replace

import pytest
import torch

from hope_ssm.analysis.pages import slug
from hope_ssm.datasets.lra import fetching, listops, pathfinder_files
from hope_ssm.workbench.data.registry import check_trusted
from hope_ssm.workbench.data.splits import stack
from hope_ssm.workbench.evaluation import evaluate, load
from hope_ssm.workbench.reduction import reduce_run
from hope_ssm.workbench.resuming import read_checkpoint
from runs import checkpoint, run

CALLED = []


def tempting(**_):
    CALLED.append(True)
    raise RuntimeError("called")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A run whose data are made by a function of its own, and that trained with one of the workbench's."""
    path = tmp_path_factory.mktemp("foreign") / "run"
    run(path, "train.tensorboard=false")
    for name in ("best", "last"):
        file = path / "checkpoints" / f"{name}.ckpt"
        saved = checkpoint(file)
        saved["hyper_parameters"]["config"]["dataset"]["_target_"] = f"{__name__}.tempting"
        torch.save(saved, file)
    return path


def test_a_stored_function_is_not_called(foreign, tmp_path):
    CALLED.clear()
    message = r"must be the workbench's own or given again; the run names '[\w.]*\.tempting', which was not"
    for call in (
        lambda: evaluate(foreign),
        lambda: evaluate(foreign, overrides=["dataset.l_noise=8"]),
        lambda: reduce_run(foreign, tmp_path / "reduced", d_state=2),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    assert not CALLED
    assert not (tmp_path / "reduced").exists()
    load(foreign)  # the model needs no data


def test_a_function_that_is_given_again_or_trusted_is_called(foreign, tmp_path):
    for call in (
        lambda: evaluate(foreign, overrides=[f"dataset._target_={__name__}.tempting"]),
        lambda: evaluate(foreign, trust=True),
        lambda: reduce_run(foreign, tmp_path / "reduced", d_state=2, trust=True),
    ):
        CALLED.clear()
        with pytest.raises(RuntimeError, match="called"):
            call()
        assert CALLED


@pytest.mark.parametrize(
    "target", ["os.system", "shutil.rmtree", "hope_ssm.cli.main.main", "hope_ssm.workbench.training.train", "os", ""]
)
def test_which_functions_are_the_workbench_s(target):
    """Of this package too only those that make data: its command line would train with any function."""
    with pytest.raises(ValueError, match=r"was not called\. If you trust it, say --trust"):
        check_trusted({"_target_": target})
    check_trusted({"_target_": target}, given=[target])
    check_trusted({"_target_": "hope_ssm.workbench.data.builtin.noisy_digits"})
    check_trusted({"_name_": "noisy-digits"})


class Bomb:
    def __reduce__(self):
        return tempting, ()


@pytest.mark.parametrize("force", [None, "1"])
def test_no_code_in_a_checkpoint_is_run(force, tmp_path, monkeypatch):
    """Also where the environment asks torch for its old, unsafe default."""
    if force:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", force)
    CALLED.clear()
    for name, write in (
        ("zip.ckpt", lambda f: torch.save({"state_dict": Bomb(), "optimizer_states": [], "loops": {}}, f)),
        ("pickle.ckpt", lambda f: pickle.dump(Bomb(), f)),
    ):
        with (tmp_path / name).open("wb") as file:
            write(file)
        for call in (
            lambda path: read_checkpoint(path, "RUN"),
            load,
            evaluate,
            lambda path: reduce_run(path, tmp_path / "out", d_state=2),
        ):
            with pytest.raises(ValueError, match="cannot be read"):
                call(tmp_path / name)
    assert not CALLED


def test_layers_become_names_of_files_inside_the_folder():
    names = ["layers.0", "../../escape", "/etc/passwd", "a/b", "a\\b", "..", "", "con\n", "é" * 400, "A/B", "x" * 400]
    found = []
    for name in names:
        found.append(slug(name, found))
    assert found[0] == "layers.0"
    assert len({name.lower() for name in found}) == len(names)
    for name in found:
        assert os.path.basename(name) == name
        assert not name.startswith(".")
        assert len(name) < 120


def archive(path, member, content=b""):
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as file:
        file.addfile(member, io.BytesIO(content))
    return path


def sparse(name, size):
    """A member of the old GNU kind that says it has ``size`` bytes, none of them in the archive."""
    member = tarfile.TarInfo(name)
    member.type = tarfile.GNUTYPE_SPARSE
    buffer = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    buffer[386:482] = b"".join(b"%011o\0" % value for value in (size, 0)) + bytes(72)
    buffer[483:495] = b"%011o\0" % size
    buffer[148:156] = b" " * 8
    buffer[148:156] = b"%06o\0 " % sum(buffer)
    return bytes(buffer)


@pytest.mark.parametrize("kind", ["sparse", "large"])
def test_an_archive_cannot_be_larger_than_what_is_expected(kind, tmp_path):
    """A sparse member of a few bytes wrote gigabytes."""
    source = replace(fetching.SOURCES["text"], files=("aclImdb/train/neg",), bytes=100_000)
    name = "aclImdb/train/neg/0_1.txt"
    path = tmp_path / "a.tar.gz"
    if kind == "sparse":
        with tarfile.open(path, "w:gz") as file:
            file.fileobj.write(sparse(name, 1000))
            file.offset += 512
    else:
        member = tarfile.TarInfo(name)
        member.size = 200_000
        archive(path, member, bytes(member.size))
    with pytest.raises(
        ValueError, match=r"must hold at most 0\.0001 GB, none of it sparse; aclImdb/train/neg/0_1\.txt"
    ):
        fetching.unpack(path, source, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*"))


def test_what_stack_cannot_blame_on_the_samples(monkeypatch):
    samples = [(torch.zeros(3, 1), 0)] * 2
    for error, message in (
        ("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)", "--shm-size"),
        ("something else", "^something else$"),
    ):

        def fails(_, error=error):
            raise RuntimeError(error)

        monkeypatch.setattr("hope_ssm.workbench.data.splits.default_collate", fails)
        with pytest.raises(RuntimeError, match=message):
            stack(samples)
        with pytest.raises(ValueError, match="must have one shape"):
            stack([(torch.zeros(3, 1), 0), (torch.zeros(4, 1), 0)])


def test_a_refused_seed_leaves_no_claim(tmp_path):
    with pytest.raises(ValueError, match=r"seed must be a whole number from 0"):
        listops.make(tmp_path / "listops", seed=-1, size=50)
    with pytest.raises(ValueError, match=r"seed must be a whole number from 0"):
        pathfinder_files.make(tmp_path / "pathfinder", 16, seed=-1, size=4)
    assert not list(tmp_path.rglob("hope-data.json"))
    assert listops.make(tmp_path / "listops", seed=1, size=50)


def test_a_folder_in_which_nothing_was_made_takes_another_recipe(tmp_path, monkeypatch):
    """What fails before the first part, a full disk say, does not refuse the corrected command."""

    def full(*_):
        raise OSError("full")

    with monkeypatch.context() as patch:
        patch.setattr(listops, "check_space", full)
        with pytest.raises(OSError, match="full"):
            listops.make(tmp_path, seed=1, size=100)
    assert listops.make(tmp_path, seed=1, size=50)
    with pytest.raises(FileExistsError, match="must be empty or hold"):
        listops.make(tmp_path, seed=1, size=100)
