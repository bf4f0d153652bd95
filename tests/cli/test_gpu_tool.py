"""tools/gpu on the CPU: every step of it runs, and the page has every table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = [sys.executable, str(ROOT / "tools" / "gpu.py")]


def gpu(*arguments):
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "STATE_SPACES"))}
    return subprocess.run(
        [*PROGRAM, *arguments], cwd=ROOT, env=variables | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )


@pytest.mark.slow
def test_rehearsal(tmp_path):
    done = gpu("--rehearse", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    steps = json.loads((tmp_path / "steps.json").read_text())["steps"]
    names = ["tests", "bench", "train", "train-resumed", "train-compiled", "report"]
    assert [(step["step"], step["state"]) for step in steps] == [(name, "done") for name in names]
    page = (tmp_path / "summary.md").read_text()
    for part in ("| hope-triton | ", "| copy | ", "precision bf16-mixed", "auto takes hope-krylov"):
        assert part in page
    for run, epochs in (("compiled", 1), ("precisions/0", 2), ("precisions/1", 2)):  # the latter two were resumed
        assert len((tmp_path / "train" / run / "metrics.csv").read_text().splitlines()) == 1 + epochs


@pytest.mark.slow
def test_one_training_goes_on(tmp_path):
    given = ["experiment=hope/noisy-digits", "model.d_model=4", "model.n_layers=1", "trainer.limit_train_batches=2"]
    for _ in range(2):
        done = gpu("--rehearse", "--out", str(tmp_path), "train", *given, "trainer.max_epochs=1")
        assert done.returncode == 0, done.stdout + done.stderr
    assert "there is nothing to do with train.ckpt=auto" in (tmp_path / "train.log").read_text()


def test_bad_command():
    done = gpu("trian")
    assert done.returncode == 2
    assert "the command must be train with its overrides, or nothing; got 'trian'." in done.stderr
