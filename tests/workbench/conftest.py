from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def hope(tmp_path: Path):
    """Run the hope command in an empty directory; returns the finished process."""

    def run(*arguments: str, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess:
        clean = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR" and not k.startswith("PYTEST_")}
        return subprocess.run(
            [str(Path(sys.executable).with_name("hope")), *arguments],
            cwd=tmp_path,
            env={**clean, "OMP_NUM_THREADS": "1", **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
