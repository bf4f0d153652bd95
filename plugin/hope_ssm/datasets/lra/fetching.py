"""CIFAR-10, IMDB and AAN: fetched, or unpacked from an archive that is there, and used only with the right checksum."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hope_ssm.checks import check_choice
from hope_ssm.datasets import cifar
from hope_ssm.datasets.lra.making import PARTIAL, alone, check_space, explained, whole_file
from hope_ssm.datasets.lra.texts import SPLIT_FILES
from hope_ssm.extras import absent

TIMEOUT = 30  # seconds without an answer


@dataclass(frozen=True)
class Source:
    """A published archive.

    Attributes:
        url: of the archive.
        md5: its checksum, or None where none is published: then that of the first use is kept beside it.
        folder: where its files go, below the folder of all data.
        wanted: what of it is unpacked; the last group is the name below ``folder``.
        files: there after unpacking, below ``folder``.
        bytes: of archive and files together, about.
    """

    url: str
    md5: str | None
    folder: str
    wanted: str
    files: tuple[str, ...]
    bytes: int


SOURCES = {
    "cifar": Source(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "c32a1d4ab5d03f1284b67883e8d87530",
        "cifar",
        rf"(?:\./)?({cifar.FOLDER}/\w+\.bin)",
        tuple(f"{cifar.FOLDER}/{name}" for name in cifar.TRAIN_FILES + cifar.TEST_FILES),
        360_000_000,
    ),
    "text": Source(
        "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
        "7c2ac02c03563afcf9b574c7e56c153a",
        "imdb",
        r"(?:\./)?(aclImdb/(?:train|test)/(?:neg|pos)/\w+\.txt)",
        tuple(f"aclImdb/{split}/{name}" for split in ("train", "test") for name in ("neg", "pos")),
        400_000_000,
    ),
    "retrieval": Source(
        "https://storage.googleapis.com/long-range-arena/lra_release.gz",
        None,
        "aan",
        r"(?:.*/)?(new_aan_pairs\.(?:train|eval|test)\.tsv)",
        tuple(SPLIT_FILES["aan"].values()),
        12_000_000_000,
    ),
}


def _digest(path: Path, algorithm: str) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


class _Bar:
    """What pooch tells its progress to."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self.total, self.update = 0, advance

    def reset(self) -> None:
        """Begin anew."""

    def close(self) -> None:
        """End."""


def download(source: Source, path: Path, advance: Callable[[int], None]) -> None:
    """Fetch an archive; nothing stays of one that did not arrive whole.

    Raises:
        ImportError: pooch is not installed.
        ConnectionError: there is no network, or the archive is no longer there.
    """
    try:
        import pooch
    except ImportError as error:
        raise ImportError(absent("fetching needs", "pooch")) from error
    pooch.get_logger().setLevel(logging.WARNING)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        fetcher = pooch.HTTPDownloader(progressbar=_Bar(advance), timeout=TIMEOUT)
        pooch.retrieve(source.url, known_hash=None, fname=partial.name, path=path.parent, downloader=fetcher)
        partial.replace(path)
    except OSError as error:
        if error.errno is not None:  # of the disk; those of the connection have none
            raise explained(error, path.parent) from error
        status = getattr(getattr(error, "response", None), "status_code", None)
        why = f"the server answers {status}" if status else "there is no connection"
        raise ConnectionError(
            f"{source.url} must be in reach; {why}. Get the file elsewhere and name it with --archive {path.name}."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def verify(path: Path, source: Source, fetched: bool) -> str:
    """Return the checksum of an archive if it is the published one, or the one of its first use.

    Args:
        path: of the archive.
        source: what it should be.
        fetched: it was fetched by this program, which puts it aside if it is something else.

    Raises:
        ValueError: it is something else.
    """
    noted = path.with_name(f"{path.name}.sha256")
    algorithm = "md5" if source.md5 else "sha256"
    found = _digest(path, algorithm)
    expected = source.md5 or (noted.read_text(encoding="utf-8").strip() if noted.is_file() else found)
    if found == expected:
        return f"{algorithm} {found}"
    aside = path.with_name(f"{path.name}.wrong-checksum")
    if fetched:
        path.replace(aside)
    raise ValueError(
        f"{path} must have the {algorithm} {expected}; it has {found}. It was not used"
        + (f" and is now {aside.name}; run this again." if fetched else "; get the file anew.")
    )


def unpack(archive: Path, source: Source, folder: Path) -> None:
    """Put the wanted files of an archive below ``folder``, all or none.

    Raises:
        ValueError: it is no archive, or lacks a file.
    """
    partial, left = folder / f".unpacked.{os.getpid()}{PARTIAL}", source.bytes
    partial.mkdir(parents=True)
    try:
        with tarfile.open(archive) as members:
            for member in members:
                match = re.fullmatch(source.wanted, member.name)
                if match and member.isfile():
                    # A sparse or packed member may claim any size, of which a few bytes are in the archive.
                    left -= member.size
                    if member.issparse() or left < 0:
                        raise ValueError(
                            f"{archive} must hold at most {source.bytes / 1e9:g} GB, none of it sparse; {member.name} "
                            f"has {member.size / 1e9:.1f} GB. Get the archive anew."
                        )
                    target = partial / match[match.lastindex or 0]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    content: Any = members.extractfile(member)
                    with target.open("wb") as file:
                        shutil.copyfileobj(content, file, 2**20)
        for name in source.files:
            if not (partial / name).exists():
                raise ValueError(f"{archive} must hold {name}; it does not. Get the archive anew.")
        for part in partial.iterdir():
            if (folder / part.name).is_dir():
                shutil.rmtree(folder / part.name)
            part.replace(folder / part.name)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{archive} must be a whole tar archive; it is damaged. Get it anew.") from error
    except OSError as error:
        raise explained(error, folder) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def fetch(
    kind: str,
    root: Path,
    archive: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    advance: Callable[[int], None] = lambda more: None,
) -> bool:
    """Put a data set in its place below ``root``; return whether there was anything to do.

    Args:
        kind: ``cifar``, ``text`` or ``retrieval``.
        root: the folder of all data.
        archive: a copy of the published archive; None fetches it to ``root/downloads``, if it is not there yet.
        say: hears what is done.
        advance: hears the bytes that came.

    Raises:
        FileNotFoundError: there is no such archive.
        ConnectionError: see ``download``.
        ValueError: see ``verify`` and ``unpack``.
    """
    source = SOURCES[check_choice("kind", kind, SOURCES)]
    folder = root / source.folder

    def there() -> bool:
        return all((folder / name).exists() for name in source.files)

    if there():
        return False
    with alone(folder):
        if there():
            return False
        _put(source, root, archive, say, advance)
    return True


def _put(
    source: Source, root: Path, archive: Path | None, say: Callable[[str], None], advance: Callable[[int], None]
) -> None:
    folder = root / source.folder
    folder.mkdir(parents=True, exist_ok=True)
    fetched = archive is None
    if archive is None:
        archive = root / "downloads" / source.url.rpartition("/")[2]
        archive.parent.mkdir(parents=True, exist_ok=True)
        if not archive.is_file():
            check_space(root, source.bytes)
            say(f"fetching {source.url}")
            download(source, archive, advance)
    elif not archive.is_file():
        raise FileNotFoundError(f"--archive must name a copy of {source.url}; {archive} is no file.")
    checksum = verify(archive, source, fetched)
    if not source.md5:
        say(f"no checksum of {source.url} is published: that of this copy, {checksum}, is noted and asked for again.")
        with whole_file(archive.with_name(f"{archive.name}.sha256")) as file:
            file.write((checksum.split()[1] + "\n").encode())
    say(f"unpacking {archive}, {checksum}")
    unpack(archive, source, folder)
