"""ListOps, IMDB and AAN as sequences of tokens, from the files that state-spaces/s4 reads, or the published ones."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hope_ssm.datasets.lra.files import Damage, check_there, place
from hope_ssm.datasets.lra.listops import HEADER
from hope_ssm.datasets.lra.tokens import TokenSequences, Vocabulary, characters
from hope_ssm.datasets.randomness import check_seed

SPLIT_FILES = {
    "listops": {"train": "basic_train.tsv", "val": "basic_val.tsv", "test": "basic_test.tsv"},
    "aan": {"train": "new_aan_pairs.train.tsv", "val": "new_aan_pairs.eval.tsv", "test": "new_aan_pairs.test.tsv"},
}
CLASSES = {"neg": 0, "pos": 1}

# A symbol of ListOps as one byte, and its name in the vocabulary: the host calls the end of a list X.
_BYTES = {"[MIN": b"N", "[MAX": b"A", "[MED": b"D", "[SM": b"S"}
_NAMES = {ord(byte): name for name, byte in _BYTES.items()} | {ord("]"): "X"}
_SYMBOLS = b"0123456789]" + b"".join(_BYTES.values())


def listops_symbols(source: bytes) -> np.ndarray | None:
    """Return the symbols (L,) of an expression without its parentheses, one byte each; None if it has others."""
    for operator, byte in _BYTES.items():
        source = source.replace(operator.encode(), byte)
    symbols = source.translate(None, b"() ")
    return None if not symbols or symbols.translate(None, _SYMBOLS) else np.frombuffer(symbols, dtype=np.uint8)


def listops_rows(file: Path, damage: Damage) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (symbols, value) of each line of a file with the header ``Source\tTarget``.

    Raises:
        ValueError: another header.
    """
    with file.open("rb") as lines:
        header = next(lines, b"")
        if header.split() != HEADER.split():
            raise ValueError(f"{file} must begin with the line Source, tab, Target; got {header[:40]!r}.")
        for number, line in enumerate(lines, 2):
            source, tab, target = line.rstrip(b"\r\n").rpartition(b"\t")
            symbols = listops_symbols(source)
            if not tab or symbols is None or len(target) != 1 or not target.isdigit():
                damage.found.append(f"line {number} of {file}")
                continue
            yield symbols, int(target)


def aan_rows(file: Path, damage: Damage, l_max: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield (first text, second text, class) of each line: class, two names, two texts, between tabs; cut."""
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8", newline="", errors="surrogateescape") as lines:
        for number, row in enumerate(csv.reader(lines, delimiter="\t"), 1):
            try:
                written, _, _, first, second = row
                label = {0.0: 0, 1.0: 1}[float(written)]
            except (ValueError, KeyError):
                damage.found.append(f"row {number} of {file}")
                continue
            yield characters(first[:l_max]), characters(second[:l_max]), label


def imdb_rows(folder: Path, damage: Damage, l_max: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield (text, class) of the reviews in ``folder/{neg,pos}/*.txt``, in the order of their names, cut."""
    for name, label in CLASSES.items():
        for file in sorted((folder / name).glob("*.txt")):
            try:
                text = file.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                text = ""
            if not text:
                damage.found.append(str(file))
                continue
            yield characters(text[:l_max]), label


def _encoded(
    rows: dict[str, list[tuple]], *, what: str, damage: Damage, **options: Any
) -> tuple[dict[str, TokenSequences], Vocabulary]:
    """Numbers of the tokens of every split, by the vocabulary of the training texts."""
    damage.fine = sum(map(len, rows.values()))
    damage.check()
    for name, part in rows.items():
        if not part:
            raise ValueError(f"the {name} split of {what} must have samples; it has none.")
    vocabulary = Vocabulary((text for row in rows["train"] for text in row[:-1]), **options)
    splits = {}
    for name, part in rows.items():
        *texts, classes = zip(*part, strict=True)
        splits[name] = TokenSequences([[vocabulary.encode(text) for text in column] for column in texts], classes)
    return splits, vocabulary


def listops(
    data_dir: str | None = None, *, l_max: int = 2048, append_bos: bool = False, append_eos: bool = True
) -> tuple[dict[str, TokenSequences], Vocabulary]:
    """Return ``{"train", "val", "test"}`` of pairs (x (L,), value 0 … 9), and the vocabulary: 15 tokens and marks.

    Args:
        data_dir: folder of ``basic_{train,val,test}.tsv``; by default ``$DATA_PATH/listops``.
        l_max: see ``Vocabulary``.
        append_bos: see ``Vocabulary``.
        append_eos: see ``Vocabulary``.

    Raises:
        FileNotFoundError: files that are not there, or incomplete.
        ValueError: more than 1 in 1000 lines damaged; fewer are left out.
    """
    folder, damage = place(data_dir, "listops"), Damage("ListOps")
    check_there(folder, list(SPLIT_FILES["listops"].values()), f"hope data listops --out {folder.parent}")
    rows = {name: list(listops_rows(folder / file, damage)) for name, file in SPLIT_FILES["listops"].items()}
    options = {"l_max": l_max, "append_bos": append_bos, "append_eos": append_eos}
    return _encoded(rows, what="ListOps", damage=damage, name=lambda byte: _NAMES.get(byte, chr(byte)), **options)


def aan(
    data_dir: str | None = None, *, l_max: int = 4000, append_bos: bool = False, append_eos: bool = True
) -> tuple[dict[str, TokenSequences], Vocabulary]:
    """Return splits of pairs ((x (L,), x' (L',)), class 0 or 1): texts of two papers; does one cite the other?

    Args:
        data_dir: folder of ``new_aan_pairs.{train,eval,test}.tsv``; by default ``$DATA_PATH/aan``.
        l_max: see ``Vocabulary``.
        append_bos: see ``Vocabulary``.
        append_eos: see ``Vocabulary``.

    Source: D. R. Radev et al., "The ACL Anthology Network Corpus", 2013; pairs of Y. Tay et al., arXiv 2011.04006.
    """
    folder, damage = place(data_dir, "aan"), Damage("AAN")
    mend = "hope data retrieval --archive lra_release.gz"
    check_there(folder, list(SPLIT_FILES["aan"].values()), mend)
    rows = {name: list(aan_rows(folder / file, damage, l_max)) for name, file in SPLIT_FILES["aan"].items()}
    return _encoded(rows, what="AAN", damage=damage, l_max=l_max, append_bos=append_bos, append_eos=append_eos)


def imdb(
    data_dir: str | None = None,
    *,
    seed: int = 42,
    l_max: int = 4096,
    min_freq: int = 15,
    val_split: float = 0.0,
    append_bos: bool = False,
    append_eos: bool = True,
) -> tuple[dict[str, TokenSequences], Vocabulary]:
    """Return splits of pairs (x (L,), class): characters of film reviews, 0 negative and 1 positive.

    Args:
        data_dir: folder of ``aclImdb``, or it; by default ``$DATA_PATH/imdb``.
        seed: of the validation split.
        l_max: see ``Vocabulary``.
        min_freq: see ``Vocabulary``.
        append_bos: see ``Vocabulary``.
        append_eos: see ``Vocabulary``.
        val_split: share of the training reviews; with 0, the test reviews are for validation too, as the Long Range
            Arena has it.

    Source: A. L. Maas et al., "Learning Word Vectors for Sentiment Analysis", ACL 2011.
    """
    folder, damage = place(data_dir, "imdb"), Damage("IMDB")
    folder = folder if (folder / "train").is_dir() else folder / "aclImdb"
    check_there(folder, [f"{split}/{name}" for split in ("train", "test") for name in CLASSES], "hope data text")
    rows = {split: list(imdb_rows(folder / split, damage, l_max)) for split in ("train", "test")}
    if not 0 <= val_split < 1:
        raise ValueError(f"val_split must be from 0 to less than 1; got {val_split}.")
    n_val = int(val_split * len(rows["train"]))
    if n_val:
        order = torch.randperm(len(rows["train"]), generator=torch.Generator().manual_seed(check_seed(seed))).tolist()
        rows["val"] = [rows["train"][i] for i in order[:n_val]]
        rows["train"] = [rows["train"][i] for i in order[n_val:]]
    options = {"l_max": l_max, "min_freq": min_freq, "append_bos": append_bos, "append_eos": append_eos}
    splits, vocabulary = _encoded(rows, what="IMDB", damage=damage, **options)
    return {"val": splits["test"], **splits}, vocabulary
