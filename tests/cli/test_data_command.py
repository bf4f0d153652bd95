"""``hope data``: making, fetching from a server of our own, and checking."""

from __future__ import annotations

import hashlib
import io
import socket
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hope_ssm.cli import data
from hope_ssm.datasets import cifar
from hope_ssm.datasets.lra import fetching
from hope_ssm.workbench.data import builtin, lra


@pytest.fixture
def serve(tmp_path):
    """A folder whose files a server on this machine gives out; its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def pack(archive: Path, folder: Path, *extra: tuple[str, bytes]) -> str:
    """An archive of all files of a folder, and others; returns its checksum."""
    with tarfile.open(archive, "w:gz") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.add(path, str(path.relative_to(folder)))
        for name, content in extra:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return hashlib.md5(archive.read_bytes()).hexdigest()


@pytest.fixture
def archive(serve, cifar_files, monkeypatch):
    """CIFAR-10 in small at the server, and at a path."""
    folder, address = serve
    held = folder / "cifar-10-binary.tar.gz"
    md5 = pack(held, cifar_files[0] / ".." / cifar_files[0].name, ("../outside.bin", b"no"), ("note.txt", b"no"))
    source = replace(fetching.SOURCES["cifar"], url=f"{address}/{held.name}", md5=md5)
    monkeypatch.setitem(fetching.SOURCES, "cifar", source)
    return held


def test_fetched_verified_unpacked(archive, tmp_path, capsys):
    root = tmp_path / "DATA"
    assert data.run(["cifar", "--out", str(root)]) == 0
    assert "cifar: made." in capsys.readouterr().out
    names = {path.name for path in (root / "cifar" / cifar.FOLDER).iterdir()}
    assert names == {*cifar.TRAIN_FILES, *cifar.TEST_FILES}
    assert [path.name for path in (root / "cifar").iterdir()] == [cifar.FOLDER]
    assert len(builtin.sequential_cifar(str(root / "cifar")).train) == 45
    assert data.run(["cifar", "--out", str(root)]) == 0
    assert "is there already" in capsys.readouterr().out
    assert not list(tmp_path.rglob("outside.bin"))


def test_a_local_copy_needs_no_network(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "download", None)
    data.run(["cifar", "--out", str(tmp_path / "DATA"), "--archive", str(archive)])
    assert (tmp_path / "DATA" / "cifar" / cifar.FOLDER / "test_batch.bin").is_file()
    with pytest.raises(FileNotFoundError, match=r"--archive must name a copy of http.*; nothing.gz is no file"):
        data.run(["cifar", "--out", str(tmp_path / "other"), "--archive", "nothing.gz"])


def test_a_wrong_checksum_is_put_aside_and_never_used(archive, tmp_path):
    root = tmp_path / "DATA"
    archive.write_bytes(archive.read_bytes()[:-1] + b"x")
    with pytest.raises(
        ValueError, match=r"must have the md5 \w+; it has \w+. It was not used and is now .*wrong-checks"
    ):
        data.run(["cifar", "--out", str(root)])
    assert [path.name for path in (root / "downloads").iterdir()] == ["cifar-10-binary.tar.gz.wrong-checksum"]
    assert not list((root / "cifar").iterdir())
    with pytest.raises(ValueError, match=r"It was not used; get the file anew"):
        data.run(["cifar", "--out", str(root), "--archive", str(archive)])
    assert archive.is_file()


def test_no_network_is_said_at_once(tmp_path, monkeypatch, serve):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/gone.tar.gz"
    for address, why in ((url, "there is no connection"), (f"{serve[1]}/gone.tar.gz", "the server answers 404")):
        monkeypatch.setitem(fetching.SOURCES, "text", replace(fetching.SOURCES["text"], url=address))
        with pytest.raises(ConnectionError, match=f"must be in reach; {why}. Get the file elsewhere and name it with"):
            data.run(["text", "--out", str(tmp_path / "DATA")])
        assert not list((tmp_path / "DATA" / "downloads").iterdir())


def test_archives_of_texts(lra_files, tmp_path, capsys):
    root = tmp_path / "DATA"
    pairs = tmp_path / "lra_release.gz"
    pack(pairs, lra_files / "aan")
    data.run(["retrieval", "--out", str(root), "--archive", str(pairs)])
    assert "no checksum" in capsys.readouterr().out
    assert len(lra.aan(str(root / "aan")).train) == 8
    (root / "aan" / "new_aan_pairs.test.tsv").unlink()
    pairs.write_bytes(pairs.read_bytes() + b"x")
    with pytest.raises(ValueError, match="must have the sha256"):
        data.run(["retrieval", "--out", str(root), "--archive", str(pairs)])


def test_an_archive_that_lacks_files_or_is_none(tmp_path, monkeypatch):
    archive = tmp_path / "a.tar.gz"
    empty = tmp_path / "empty"
    empty.mkdir()
    for content, message in ((None, "must hold aclImdb/train/neg; it does not"), (b"text", "must be a whole tar arch")):
        if content is None:
            pack(archive, empty)
        else:
            archive.write_bytes(content)
        md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        monkeypatch.setitem(fetching.SOURCES, "text", replace(fetching.SOURCES["text"], md5=md5))
        with pytest.raises(ValueError, match=message):
            data.run(["text", "--out", str(tmp_path / "DATA"), "--archive", str(archive)])
        assert not list((tmp_path / "DATA" / "imdb").iterdir())


def test_published_checksums():
    found = {kind: source.md5 for kind, source in fetching.SOURCES.items()}
    assert found["cifar"] == "c32a1d4ab5d03f1284b67883e8d87530"
    assert found["text"] == "7c2ac02c03563afcf9b574c7e56c153a"
    assert found["retrieval"] is None


def test_making_and_checking(tmp_path, capsys):
    root = tmp_path / "DATA"
    for kind in (["listops", "--size", "60"], ["pathfinder", "-r", "16", "--size", "12"], ["pathx", "--size", "4"]):
        assert data.run([*kind, "--out", str(root), "--processes", "1"]) == 0
    said = capsys.readouterr().out
    assert "60 samples" in said
    assert "per second" in said
    assert data.run(["check", str(root)]) == 0
    said = capsys.readouterr().out
    for text in (
        "train: 58 samples",
        "operators: MAX",
        "12 images of 16 x 16",
        "labels: 0 50.0%, 1 50.0%",
        "128 x 128",
    ):
        assert text in said


def test_checking_every_kind(lra_files, cifar_files, tmp_path, capsys):
    root = tmp_path / "all"
    root.mkdir()
    for name in ("listops", "imdb", "aan", "pathfinder"):
        (root / name).symlink_to(lra_files / name)
    (root / "cifar").symlink_to(cifar_files[0])
    assert data.run(["check", str(root)]) == 0
    said = capsys.readouterr().out
    for text in (
        "train: 12 reviews",
        "train: 8 pairs",
        "classes: 0 50.0%",
        "train: 50 images",
        "24 images of 128 x 128",
    ):
        assert text in said
    with pytest.raises(FileNotFoundError, match="must hold listops, aan, imdb, cifar, pathfinder or small"):
        data.run(["check", str(tmp_path / "nothing")])


def test_the_small_twins_are_made_ahead_of_time(tmp_path, capsys, monkeypatch):
    root = tmp_path / "DATA"
    sizes = {"listops": 60, "pathfinder": 24}
    for kind, size in sizes.items():
        data.run([kind, "--small", "--size", str(size), "--seed", "5", "--out", str(root), "--processes", "1"])
    assert {path.name for path in (root / "small").iterdir() if path.is_dir()} == {"listops-60-5", "pathfinder16-24-5"}
    assert data.run(["check", str(root)]) == 0
    said = capsys.readouterr().out
    assert "train: 58 samples, lengths 1" in said
    assert "24 images of 16 x 16" in said
    monkeypatch.setenv("DATA_PATH", str(root))
    for draw in ("listops.make_parts", "pathfinder_files.make_parts"):
        monkeypatch.setattr(f"hope_ssm.datasets.lra.{draw}", None)  # nothing is drawn again
    assert len(lra.listops_small(60, 5).train) == 58
    assert len(lra.pathfinder_small(24, 5).train) == 20
    assert data.run(["listops", "--small", "--size", "60", "--seed", "5", "--out", str(root)]) == 0
    assert "is there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["pathfinder", "--small", "-r", "32"], "not allowed with"), (["pathx", "--small"], "unrecognized arguments")],
)
def test_what_has_no_small_twin(arguments, message, capsys):
    with pytest.raises(SystemExit):
        data.run(arguments)
    assert message in capsys.readouterr().err


def test_checking_finds_what_is_wrong(tmp_path, capsys):
    root = tmp_path / "DATA"
    data.run(["listops", "--size", "60", "--out", str(root), "--processes", "1"])
    data.run(["pathfinder", "-r", "16", "--size", "12", "--out", str(root), "--processes", "1"])
    file = root / "listops" / "basic_test.tsv"
    line = file.read_text().splitlines()[1]
    file.write_text(f"Source\tTarget\n{line[:-1]}{(int(line[-1]) + 1) % 10}\n")
    image = next(root.rglob("sample_7.png"))
    image.write_bytes(image.read_bytes()[:50])
    assert data.run(["check", str(root)]) == 1
    said = capsys.readouterr().out
    assert f"damaged: a sample of {file} with target" in said
    assert "sample_7.png must be an image; it is damaged" in said
    assert said.count("UNUSABLE: 1 samples are damaged, more than 0.1%") == 2
    (root / "listops" / "hope-data.json").write_text('{"recipe": {}, "whole": false}')
    assert data.run(["check", str(root)]) == 1
    assert "incomplete" in capsys.readouterr().out


def test_help(hope):
    done = hope("data", "--help")
    assert done.returncode == 0
    for kind in ("listops", "pathfinder", "pathx", "text", "retrieval", "cifar", "check"):
        assert f"\n  {kind} " in done.stdout or f"\n    {kind} " in done.stdout
    assert "0.7 GB" in done.stdout


@pytest.mark.parametrize("kind", ["", "listops", "pathfinder", "pathx", "text", "retrieval", "cifar", "check"])
def test_every_kind_has_help(kind, capsys):
    with pytest.raises(SystemExit) as end:
        data.run([*kind.split(), "--help"])
    assert end.value.code == 0
    assert "usage: hope data" in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "side"), [("pathfinder", 32), ("pathx", 128)])
def test_the_default_resolution_is_what_help_says(kind, side, tmp_path):
    assert data.run([kind, "--out", str(tmp_path), "--size", "2", "--processes", "1"]) == 0
    (image,) = list((tmp_path / "pathfinder" / f"pathfinder{side}").rglob("*.png"))[:1]
    from PIL import Image

    with Image.open(image) as opened:
        assert opened.size == (side, side)
