"""Fixtures of the tests that run the command or read data files."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

import numpy as np
import pytest

import processes
from hope_ssm.datasets.lra import listops, pathfinder_files
from processes import in_a_process


@pytest.fixture
def hope(tmp_path: Path):
    """Run the hope command in an empty directory; returns the finished process."""

    def run(*arguments: str, timeout: float = 600, **environment: str) -> subprocess.CompletedProcess:
        return in_a_process(processes.hope, *arguments, directory=tmp_path, environment=environment, timeout=timeout)

    return run


@pytest.fixture
def cifar_files(tmp_path: Path):
    """A folder with CIFAR-10's files of 10 images each; the pixels (60, 32, 32, 3), classes in the files' order."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)
    classes = np.tile(np.arange(10, dtype=np.uint8), 6)
    names = [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    for k, name in enumerate(names):
        with (folder / name).open("wb") as file:
            for i in range(10 * k, 10 * k + 10):
                file.write(bytes([classes[i]]) + pixels[i].transpose(2, 0, 1).tobytes())
    return tmp_path, pixels, classes


@pytest.fixture(scope="session")
def lra_files(tmp_path_factory):
    """A folder with the data of the Long-Range Arena in small, each in its own format."""
    root = tmp_path_factory.mktemp("lra")
    listops.make(root / "listops", seed=3, size=60)
    for resolution in (16, 128):
        pathfinder_files.make(root / "pathfinder" / f"pathfinder{resolution}", resolution, seed=3, size=24)
    words = ["the", "film", "was", "not", "so", "good", "as", "its", "maker's", "other", "ones,", "é…", "<br />"]
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("neg", "pos"):
            folder = root / "imdb" / "aclImdb" / split / name
            folder.mkdir(parents=True)
            for i in range(6):
                text = " ".join(random.choice(words, random.integers(1, 12)))
                (folder / f"{i}_{random.integers(1, 11)}.txt").write_text(text, encoding="utf-8")
    (root / "aan").mkdir()
    for split in ("train", "eval", "test"):
        with (root / "aan" / f"new_aan_pairs.{split}.tsv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, delimiter="\t")
            for i in range(8):
                texts = [" ".join(random.choice([*words, 'a "quoted" word'], random.integers(1, 12))) for _ in "ab"]
                rows.writerow([float(i % 2), f"P{i}", f"Q{i}", *texts])
    return root
