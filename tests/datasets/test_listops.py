"""ListOps: values by another evaluator, the law of the samples by a plain sampler, and the bytes of the files."""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter

import pytest

from files import contents
from hope_ssm.datasets.lra import checking, listops, small, texts
from hope_ssm.datasets.lra.making import part_generator
from hope_ssm.datasets.lra.texts import listops_symbols

N = 1200


def naive(text: str) -> tuple[int, int, int]:
    """(value, symbols, depth) of nested pairs, read by recursion."""
    words = text.split()
    place = 0

    def read():
        nonlocal place
        word = words[place]
        place += 1
        if word != "(":
            return word
        pair = read(), read()
        assert words[place] == ")"
        place += 1
        return pair

    def value(tree) -> tuple[int, int]:
        if isinstance(tree, str):
            return int(tree), 1
        chain = []
        while isinstance(tree, tuple):
            tree, right = tree
            chain.append(right)
        assert chain[0] == "]"
        values, depths = zip(*map(value, reversed(chain[1:])), strict=True)
        assert 2 <= len(values) <= 10
        result = {
            "[MIN": lambda: min(values),
            "[MAX": lambda: max(values),
            "[MED": lambda: int(statistics.median(values)),
            "[SM": lambda: sum(values) % 10,
        }[tree]()
        return result, 1 + max(depths)

    tree = read()
    assert place == len(words)
    result, depth = value(tree)
    return result, sum(word not in "()" for word in words), depth


@pytest.fixture(scope="module")
def samples():
    drawn = listops.expressions(part_generator(5, 0, 0))
    return [next(drawn) for _ in range(N)]


@pytest.mark.slow
def test_values_lengths_and_depths(samples):
    for text, target in samples:
        value, length, depth = naive(text)
        assert value == target
        assert 500 < length < 2000
        assert depth <= 10
        assert checking.evaluate(listops_symbols(text.encode())) == (value, depth - 1)


@pytest.mark.slow
def test_the_law_is_that_of_a_plain_sampler(samples):
    """Share of draws that are kept, about 8 %, and lengths of those: both within 4 standard deviations."""
    dice = random.Random(1)

    def draw(depth: int) -> int:
        if depth == 10 or dice.random() > 0.25:
            return 1
        return 2 + sum(draw(depth + 1) for _ in range(dice.randint(2, 10)))

    lengths = [draw(1) for _ in range(30_000)]
    kept = [length for length in lengths if 500 < length < 2000]
    share = len(kept) / len(lengths)
    assert 0.07 < share < 0.09

    codes = part_generator(6, 0, 0).integers(listops.NODES, size=4_000_000).tolist()
    i, ours = 0, []
    while i < len(codes) - 2000:
        i, length = listops._end(codes, i, 2000)
        ours.append(500 < length < 2000)
    spread = (share * (1 - share) * (1 / len(ours) + 1 / len(lengths))) ** 0.5
    assert abs(sum(ours) / len(ours) - share) < 4 * spread

    found = [naive(text)[1] for text, _ in samples]
    deviation = statistics.pstdev(kept)
    difference = abs(statistics.mean(found) - statistics.mean(kept))
    assert difference < 4 * deviation * (1 / len(found) + 1 / len(kept)) ** 0.5


def test_frequencies(samples):
    labels = Counter(target for _, target in samples)
    assert 0.13 < max(labels.values()) / N < 0.22  # 17 % are 0, as many 9
    assert set(labels) == set(range(10))
    operators = Counter(word for text, _ in samples for word in text.split() if word.startswith("["))
    total = sum(operators.values())
    assert set(operators) == set(listops.OPERATORS)
    assert all(abs(n / total - 0.25) < 4 * (0.1875 / total) ** 0.5 for n in operators.values())
    digits = Counter(word for text, _ in samples for word in text.split() if word.isdigit())
    total = sum(digits.values())
    assert all(abs(n / total - 0.1) < 4 * (0.09 / total) ** 0.5 for n in digits.values())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "listops"
    assert listops.make(folder, seed=7, size=N)
    return folder


def test_files_are_those_of_the_host(made):
    assert sorted(contents(made)) == ["basic_test.tsv", "basic_train.tsv", "basic_val.tsv", "hope-data.json"]
    rows = []
    for split, n in (("train", 1152), ("val", 24), ("test", 24)):
        header, *lines = (made / f"basic_{split}.tsv").read_text().splitlines()
        assert header == "Source\tTarget"
        assert len(lines) == n
        rows += [line.split("\t") for line in lines]
    assert len({source for source, _ in rows}) == N
    assert all(naive(source)[0] == int(target) for source, target in rows[::10])


@pytest.mark.slow
def test_the_bytes_do_not_depend_on_the_number_of_processes(made, tmp_path):
    heard = []
    listops.make(tmp_path / "listops", seed=7, size=N, processes=2, advance=heard.append)
    assert contents(tmp_path / "listops") == contents(made)
    assert sum(heard) == N
    listops.make(tmp_path / "other", seed=8, size=N)
    assert contents(tmp_path / "other")["basic_val.tsv"] != contents(made)["basic_val.tsv"]


@pytest.mark.slow
def test_a_script_without_a_guard_runs_once(made, tmp_path):
    """Its processes would run it too, and wait for the lock that it holds."""
    script = tmp_path / "script.py"
    script.write_text(
        "print('begun', flush=True)\nfrom pathlib import Path\nfrom hope_ssm.datasets.lra import listops\n"
        f"listops.make(Path('listops'), 7, {N}, processes=2)\n"
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["begun"], done.stderr
    assert contents(tmp_path / "listops") == contents(made)


@pytest.mark.slow
def test_killed_and_started_again_gives_the_same_bytes(made, tmp_path):
    folder = tmp_path / "listops"
    code = "import sys, pathlib; from hope_ssm.datasets.lra import listops; listops.make(pathlib.Path(sys.argv[1]), 7, "
    code += f"{N})"
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    while not list(folder.glob("parts/train-1.tsv")):
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "basic_train.tsv").exists()
    heard = []
    assert listops.make(folder, seed=7, size=N, advance=heard.append)
    assert heard[0] >= 1000
    assert contents(folder) == contents(made)
    assert not listops.make(folder, seed=7, size=N)


def test_a_folder_of_something_else(made, tmp_path):
    with pytest.raises(FileExistsError, match=r"must be empty or hold data listops, seed 8, .*; it holds .*seed 7"):
        listops.make(made, seed=8, size=N)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(FileExistsError, match=r"must be empty or made by hope data; it holds thesis.tex"):
        listops.make(tmp_path, size=N)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 49}, "size must be at least 50, .*; got 49"),
        ({"size": 0}, "size must be a whole number of at least 1; got 0"),
        ({"seed": -1}, "seed must be a whole number from 0"),
        ({"processes": 0}, "processes must be a whole number of at least 1; got 0"),
    ],
)
def test_bad_options(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        listops.make(tmp_path / "new", **{"size": 60, **options})


def test_a_full_disk(monkeypatch, tmp_path):
    """Of the part that was being written nothing stays."""

    def full(generator, lengths):
        yield "( 1 )", 1
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(listops, "expressions", full)
    with pytest.raises(OSError, match=r"the disk of .* is full; the partial file was removed\. Free some space"):
        listops.make(tmp_path / "full", size=60)
    assert not list((tmp_path / "full" / "parts").iterdir())
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 10**5})())
    with pytest.raises(OSError, match=r"must have 0.0 GB free; it has 0.0 GB\. Name another disk"):
        listops.make(tmp_path / "small", size=60)


def listed(part) -> list[tuple]:
    return [(*sample[0].tolist(), sample[1]) for sample in part]


def test_the_small_splits_are_those_of_the_files_or_are_cut_anew(tmp_path):
    """Without a seed and with the shares of the files, the files; with a seed, the same samples in other splits."""
    made, _ = small.listops_splits(tmp_path, size=100)
    files, _ = texts.listops(str(small.listops_folder(tmp_path, size=100)), l_max=128, append_eos=False)
    assert {name: listed(part) for name, part in made.items()} == {name: listed(part) for name, part in files.items()}
    shares = {"val_split": 0.1, "test_split": 0.2}
    drawn = [small.listops_splits(tmp_path, size=100, seed=seed, **shares)[0] for seed in (0, 0, 1)]
    first, again, other = ({name: listed(part) for name, part in one.items()} for one in drawn)
    assert first == again != other
    assert {name: len(part) for name, part in first.items()} == {"train": 70, "val": 10, "test": 20}
    everything = sorted(sample for part in files.values() for sample in listed(part))
    for splits in (first, other):
        assert sorted(sample for part in splits.values() for sample in part) == everything


@pytest.mark.parametrize("shares", [{"val_split": 0.0}, {"test_split": 0.001}, {"val_split": 0.5, "test_split": 0.5}])
def test_the_small_splits_are_not_empty(tmp_path, shares):
    with pytest.raises(ValueError, match="must leave no split of 100 samples empty"):
        small.listops_splits(tmp_path, size=100, **shares)


def test_a_damaged_line_is_missing_from_the_small_splits(tmp_path):
    """One line in 1000 may be damaged and is left out; the splits are cut from those that are there."""
    small.make_listops(tmp_path, size=1100)
    file = small.listops_folder(tmp_path, size=1100) / "basic_train.tsv"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join([*lines[:-1], "damaged\n"]), encoding="utf-8")
    parts, _ = small.listops_splits(tmp_path, size=1100, seed=0)
    assert sum(len(listed(part)) for part in parts.values()) == 1099
