"""A sample of kills.py: SIGKILL at random moments, also within a write, with TMPDIR on another file system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HELPER = Path(__file__).parents[1] / "helpers" / "kills.py"
SHARED = Path("/dev/shm")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_runs_leave_nothing_torn_and_end_as_undisturbed_ones(tmp_path):
    elsewhere = ["--tmp", str(SHARED)] if SHARED.is_dir() and SHARED.stat().st_dev != tmp_path.stat().st_dev else []
    done = subprocess.run(
        [sys.executable, str(HELPER), "--count", "5", "--seed", "3", "--out", str(tmp_path), *elsewhere],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
