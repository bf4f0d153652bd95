"""Vocabularies, padding, pairs, and files with lines that cannot be read."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hope_ssm.datasets.lra import files, listops, texts
from hope_ssm.datasets.lra.tokens import Vocabulary, characters
from hope_ssm.workbench.data import lra
from hope_ssm.workbench.models.coders import RetrievalDecoder


def vocabulary_of(tokens: list[list[str]], specials: list[str], min_freq: int = 1) -> list[str]:
    """By frequency, then alphabet, as torchtext does it."""
    counts = Counter(token for sequence in tokens for token in sequence)
    return specials + sorted((t for t, n in counts.items() if n >= min_freq), key=lambda t: (-counts[t], t))


def listops_tokens(source: str) -> list[str]:
    """As the host does it: parentheses dropped, the end of a list called X."""
    return source.replace("]", "X").replace("(", "").replace(")", "").split()


@pytest.mark.parametrize("marks", [{}, {"append_bos": True}, {"append_eos": False}, {"l_max": 100}])
def test_listops_tokens_are_the_host_s(lra_files, marks):
    splits = lra.listops(str(lra_files / "listops"), **marks)
    options = {"l_max": 2048, "append_bos": False, "append_eos": True, **marks}
    begin, end = ["<bos>"] * options["append_bos"], ["<eos>"] * options["append_eos"]
    cut = options["l_max"] - len(begin) - len(end)
    rows = {
        split: [
            line.split("\t") for line in (lra_files / "listops" / f"basic_{split}.tsv").read_text().splitlines(True)
        ][1:]
        for split in ("train", "val", "test")
    }
    tokens = {split: [listops_tokens(source)[:cut] for source, _ in part] for split, part in rows.items()}
    vocabulary = vocabulary_of(tokens["train"], ["<pad>", "<unk>", *begin, *end])
    assert splits.n_tokens == len(vocabulary) == 17 + len(begin) + len(end)
    for split in rows:
        for i, (x, y) in enumerate(getattr(splits, split)):
            assert [vocabulary[k] for k in x] == begin + tokens[split][i] + end
            assert y == int(rows[split][i][1])
            if i == len(rows[split]) - 1:
                break


def test_character_vocabularies(lra_files):
    splits = lra.imdb(str(lra_files / "imdb"), min_freq=3, l_max=30)
    folder = lra_files / "imdb" / "aclImdb"
    reviews = {
        split: [
            (path.read_text(encoding="utf-8"), label)
            for label, name in enumerate(("neg", "pos"))
            for path in sorted((folder / split / name).iterdir())
        ]
        for split in ("train", "test")
    }
    train = [list(text)[:29] for text, _ in reviews["train"]]
    vocabulary = vocabulary_of(train, ["<pad>", "<unk>", "<eos>"], min_freq=3)
    assert splits.n_tokens == len(vocabulary)
    assert splits.val is splits.test
    for split, part in (("train", splits.train), ("test", splits.test)):
        for i, (text, label) in enumerate(reviews[split]):
            x, y = part[i]
            wanted = [*(c if c in vocabulary else "<unk>" for c in text[:29]), "<eos>"]
            assert ([vocabulary[k] for k in x], y) == (wanted, label)
    assert any(vocabulary[1] in [vocabulary[k] for k in x] for x, _ in (splits.test[i] for i in range(12)))


def test_pairs(lra_files):
    splits = lra.aan(str(lra_files / "aan"), l_max=25)
    with (lra_files / "aan" / "new_aan_pairs.eval.tsv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t"))
    batch = splits.collate([splits.val[i] for i in range(5)])
    x, y, context = batch
    assert x.shape[0] == 10
    assert y.tolist() == [int(float(row[0])) for row in rows[:5]]
    lengths = [min(24, len(row[column])) + 1 for column in (3, 4) for row in rows[:5]]
    assert context["lengths"].tolist() == lengths
    assert x.shape[1] == max(lengths)
    for i, length in enumerate(lengths):
        first = splits.val[i % 5][0][i // 5]
        assert torch.equal(x[i, :length], first)
        assert (x[i, length:] == 0).all()


def test_rare_and_wide_characters():
    points = characters("aé…𝔸a")
    assert points.tolist() == [ord(c) for c in "aé…𝔸a"]
    vocabulary = Vocabulary([characters("aab")], l_max=10)
    assert vocabulary.encode(points).tolist() == [3, 1, 1, 1, 3, 2]
    assert vocabulary.encode(characters("")).tolist() == [2]
    with pytest.raises(ValueError, match="l_max must leave a step to the text; got 1"):
        Vocabulary([points], l_max=1)


@pytest.mark.parametrize("nli", [True, False])
@pytest.mark.parametrize("mode", ["last", "pool"])
def test_retrieval_is_two_sequences_compared(nli, mode):
    decoder = RetrievalDecoder(5, 3, d_hidden=7, nli=nli, activation="gelu", mode=mode).double()
    x, lengths = torch.randn(8, 6, 5, dtype=torch.float64), torch.tensor([6, 1, 2, 5, 3, 6, 4, 2])
    y = decoder(x, lengths)
    linear = [layer for layer in decoder.classifier if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == ([7, 3] if nli else [7, 3, 3])
    for i in range(4):
        z, w = (x[k, lengths[k] - 1] if mode == "last" else x[k, : lengths[k]].mean(0) for k in (i, i + 4))
        f = torch.cat([z, w, z - w, z * w] if nli else [z, w])
        for layer in linear[:-1]:
            f = nn.functional.gelu(layer.weight @ f + layer.bias)
        torch.testing.assert_close(y[i], linear[-1].weight @ f + linear[-1].bias)
    with pytest.raises(ValueError, match="needs two sequences per sample; got 3 in a batch"):
        decoder(x[:3])


def damaged(folder: Path, source: Path, line: str) -> Path:
    folder.mkdir()
    for file in source.glob("basic_*"):
        (folder / file.name).write_text(file.read_text())
    with (folder / "basic_train.tsv").open("a") as file:
        file.write(line)
    return folder


@pytest.mark.parametrize("line", ["( [MIN 3 ) 4\n", "( 1 )\t12\n", "\t3\n", "( [MUL 1 ) ] )\t3\n", "<html>\t1\n"])
def test_damaged_lines_are_counted_and_refused(lra_files, tmp_path, line):
    folder = damaged(tmp_path / "listops", lra_files / "listops", line)
    with pytest.raises(
        ValueError, match=r"1 of 61 samples of ListOps are damaged, the first is line 60 of .*train.tsv"
    ):
        lra.listops(str(folder))


def test_a_few_are_left_out(lra_files, tmp_path, monkeypatch, caplog):
    folder = damaged(tmp_path / "listops", lra_files / "listops", "( 1 )\t12\n")
    monkeypatch.setattr(files, "TOLERATED", 0.1)
    assert len(lra.listops(str(folder)).train) == 58
    assert "1 of 61 samples of ListOps are damaged" in caplog.text


def test_other_files(lra_files, tmp_path):
    folder = damaged(tmp_path / "listops", lra_files / "listops", "")
    (folder / "basic_val.tsv").write_text("a,b\n")
    with pytest.raises(ValueError, match=r"basic_val.tsv must begin with the line Source, tab, Target; got b'a,b"):
        lra.listops(str(folder))
    (folder / "basic_val.tsv").write_bytes(listops.HEADER)
    with pytest.raises(ValueError, match="the val split of ListOps must have samples; it has none"):
        lra.listops(str(folder))
    rows = texts.aan_rows
    (tmp_path / "pairs.tsv").write_text("1.0\ta\tb\tx\ty\n2\ta\tb\tx\ty\n0\ta\tb\tx\n")
    damage = files.Damage("AAN")
    found = list(rows(tmp_path / "pairs.tsv", damage, 9))
    assert [label for *_, label in found] == [1]
    assert [text[:5] for text in damage.found] == ["row 2", "row 3"]


@pytest.mark.parametrize(
    ("make", "mend"),
    [
        (lra.listops, "hope data listops --out"),
        (lra.imdb, "hope data text makes it"),
        (lra.aan, "hope data retrieval --archive lra_release.gz makes it"),
        (lra.pathfinder, "hope data pathfinder -r 32 --out"),
    ],
)
def test_absent_data_say_what_makes_them(make, mend, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"is not there. {mend}"):
        make()


def test_encoding_is_exact_beyond_bytes():
    many = np.arange(1, 400, dtype=np.uint32)
    vocabulary = Vocabulary([many], l_max=1000)
    assert len(vocabulary) == 402
    assert sorted(vocabulary.encode(many).tolist()) == list(range(2, 402))
